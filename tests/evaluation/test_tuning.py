"""Tuning: what is read off records is what a search gives; what is found is measured elsewhere, written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag import Settings
from crossrag.config import load_settings
from crossrag.evaluation import tuning
from crossrag.evaluation.changes import with_changes, write_settings
from crossrag.evaluation.experiment import conduct, subject
from crossrag.evaluation.journal import Journal

from . import toys

if TYPE_CHECKING:
    from crossrag.evaluation.dataset import Dataset


@pytest.fixture
def over_toys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning searches the toy library by fakes."""

    @contextmanager
    def opened(_: Path, settings: Any, **__: Any) -> Iterator[Any]:
        with toys.made(place, depth=settings.reranking.depth) as rag:
            yield subject(rag)

    monkeypatch.setattr(tuning, "opened", opened)


def test_another_fusion_of_records_is_that_of_a_search(place: Path, data: Dataset) -> None:
    with Journal(None) as journal:
        with toys.made(place) as rag:
            records = conduct(data, subject(rag), journal=journal)
        with toys.made(place, retrieval={"rrf_k": 10, "dense_weight": 2.5}) as other:
            searched = conduct(data, subject(other), journal=journal)
    changed = 0
    for record, wanted in zip(records, searched, strict=True):
        assert tuning.reordered(record, depth=0, constant=60) == record.in_order("fused")
        assert tuning.reordered(record, depth=1000, constant=None) == record.in_order("reranked")
        fused = [seen.where for seen in tuning.reordered(record, depth=0, constant=10, dense_weight=2.5)]
        assert fused == [seen.where for seen in wanted.in_order("fused")]
        changed += fused != [seen.where for seen in record.in_order("fused")]
    assert changed


@pytest.mark.usefixtures("over_toys")
def test_tuning_reports_on_questions_that_it_has_not_seen(place: Path, data: Dataset) -> None:
    seen_half, unseen = tuning.halves(data)
    assert not {q.id for q in seen_half.questions} & {q.id for q in unseen.questions}
    with toys.made(place) as rag, Journal(None) as journal:
        found = tuning.tune(data, place, rag.settings, journal=journal, options=tuning.Options(seconds=0.0))
    assert found.left_out  # there was no time for anything but the settings as they are
    assert found.questions == len(toys.ANIMALS)
    assert found.after >= found.before - 0.05
    # Fusion finds everything here: reading deeper is not worth its time, and that is said.
    assert "Reranking does not help here" in found.verdict
    assert found.changes["reranking.model"] == "none"
    assert "reranking.depth" not in found.changes
    assert {trial.changes["retrieval.dense_weight"] for trial in found.trials} == {0.5, 1.0, 2.0}


@pytest.mark.usefixtures("over_toys")
def test_a_threshold_that_is_as_good_stays_as_it_was_set(
    place: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with toys.made(place) as rag:
        precise = with_changes(rag.settings, {"reranking.threshold": "precision>=0.9"})
    options = tuning.Options(seconds=0.0)
    found = []
    for tried in ((), (0.0, 0.3)):
        monkeypatch.setattr(tuning, "THRESHOLDS", tried)
        with Journal(None) as journal:
            found.append(tuning.tune(data, place, precise, journal=journal, options=options))
    assert [one.changes["reranking.threshold"] for one in found] == ["precision>=0.9"] * 2
    # What it comes to, 0.3 with the toys, is what is compared, and not a threshold of 0.
    assert found[0].utility[0] == found[0].utility[1]
    assert found[1].utility == found[0].utility


def test_what_an_expansion_found_is_not_fused_in_another_way() -> None:
    settings = Settings()
    plain, expanded = (
        tuning._inner(settings, {}),
        tuning._inner(settings, {"expansion.methods": ["variants"]}),
    )
    assert len(plain) == len(expanded) * len(tuning.CONSTANTS) * len(tuning.DENSE_WEIGHTS)
    assert all(list(inner) == ["reranking.depth"] for inner in expanded)
    own = with_changes(settings, {"expansion.methods": ["feedback"]})
    variants = list(tuning._variants(own, Path("questions.jsonl"), tuning.Options()))
    assert {"expansion.methods": []} in variants
    assert variants[0] == {}


def test_chunk_sizes_are_tried_in_their_unit() -> None:
    settings = with_changes(
        Settings(), {"chunking.unit": "tokens", "chunking.size": 200, "chunking.overlap": 30}
    )
    tried = tuning._variants(settings, Path("questions.jsonl"), tuning.Options(chunking=True))
    assert [one["chunking.size"] for one in tried if "chunking.size" in one] == [100, 300, 500]


def test_changed_settings_stay_where_the_index_is() -> None:
    settings = load_settings(
        {"qdrant": {"url": "http://127.0.0.1:6333", "api_key": "k"}}, environ={}
    ).settings
    changed = with_changes(settings, {"reranking.depth": 20})
    assert (settings.store, changed.store, changed.reranking.depth) == ("qdrant", "qdrant", 20)
    assert changed.qdrant.api_key is not None
    assert changed.qdrant.api_key.get_secret_value() == "k"
    assert with_changes(settings, {"index.store": "edge"}).store == "edge"


def test_what_stood_in_the_settings_file_still_does(tmp_path: Path) -> None:
    start, out = tmp_path / "crossrag.toml", tmp_path / "tuned.toml"
    start.write_text(
        "[reranking]\ndepth = 100\ntop_k = 4\n"
        '[loading]\nfields = ["Name", "Role"]\n'
        '[server]\ncollections = {legal = "legal \\" index", "b-2" = "x"}\n'
        f'[[server.keys]]\nname = "anna"\nsha256 = "{"0" * 64}"\nscope = "write"\n'
    )
    write_settings({"reranking.depth": 20, "expansion.methods": ["feedback"]}, out, start=start, remark="So.")
    before = load_settings(config_file=start, environ={}).settings
    after = load_settings(config_file=out, environ={}).settings
    assert after == with_changes(before, {"reranking.depth": 20, "expansion.methods": ["feedback"]})
    assert out.read_text().startswith("# So.\n")
