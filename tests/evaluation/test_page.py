"""The quality page: what people wrote stays, what is generated is replaced; and a judge against labels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crossrag.errors import UsageError
from crossrag.evaluation import running
from crossrag.evaluation.agreement import agreement, compared, read_labels
from crossrag.evaluation.experiment import subject
from crossrag.evaluation.journal import Journal
from crossrag.evaluation.local import LocalJudge
from crossrag.evaluation.reading import read_dataset
from crossrag.testing import OverlapGrounder, OverlapReranker

from . import toys

BENCH = Path(__file__).parent.parent.parent / "bench"


def test_the_page_keeps_what_people_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import page

    docs = toys.library(tmp_path)
    data = read_dataset(toys.questions(tmp_path))
    with toys.made(tmp_path) as rag, Journal(None) as journal:
        rag.ingest(docs)
        judges = (LocalJudge(grounder=OverlapGrounder(), reranker=OverlapReranker()),)
        wanted = running.Wanted(answers=True, judges=judges, timed=False)
        content, _ = running.evaluate(data, subject(rag), journal=journal, wanted=wanted)
    out = tmp_path / "quality.md"
    out.write_text(f"# How good\n\nBefore.\n\n{page.BEGIN}\nold figures\n{page.END}\n\nAfter.\n")
    reports = [content | {"documents": 25, "passages": 50}]
    labels = {"toys": compared([True, False], [0.9, 0.1])}
    text = ""
    for _ in range(2):
        page.write(out, head="Measured.", retrieval=reports, folders=reports, labels=labels)
        text = out.read_text()
        assert text.startswith("# How good\n\nBefore.\n\n<!--")
        assert text.endswith("-->\n\nAfter.\n")
        assert "old figures" not in text
        assert text.count("## Retrieval") == text.count("## Folders of files") == 1
    for name in ("gain", "depth", "trust", "coverage"):
        assert f"(quality-{name}.svg)" in text
        assert (tmp_path / f"quality-{name}.svg").is_file()
    sys.modules.pop("page", None)


def test_agreement_with_people_by_hand() -> None:
    found = compared([True, True, False, False, False], [0.9, 0.4, 0.6, 0.1, float("nan")])
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.balanced == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Chance: yes is said 2 of 5 times and is right 2 of 5 times.
    chance = 2 / 5 * 2 / 5 + 3 / 5 * 3 / 5
    assert found.kappa == pytest.approx((3 / 5 - chance) / (1 - chance))
    # Of the six pairs, one has the unsupported claim above the supported one.
    assert found.area == pytest.approx(5 / 6)
    assert found.undefined == 1
    with pytest.raises(UsageError):
        compared([True], [0.5])


def test_labels_are_read_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(
        '{"context": "red paint", "claim": "red", "label": 1}\n'
        '{"context": "red", "claim": "blue", "label": 0}\n'
        '{"context": "red", "claim": "blue", "label": null}\n'
    )
    labels = read_labels(file)
    with Journal(None) as journal:
        found = agreement(OverlapGrounder(), labels, journal=journal)
        assert agreement(OverlapGrounder(), labels, journal=journal) == found
    assert (found.claims, found.supported, found.accuracy) == (2, 1, 1.0)
    file.write_text('{"context": "red"}\n')
    with pytest.raises(UsageError, match="line 1"):
        read_labels(file)
