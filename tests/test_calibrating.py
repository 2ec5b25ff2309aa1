"""From judged questions to calibrated relevance: files, matching, thresholds, the whole way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from crossrag import Rag, Settings
from crossrag.calibrating import (
    FILE_NAME,
    Calibrated,
    Judgement,
    by_question,
    calibrate,
    load,
    read_judgements,
    remove,
    resolve_threshold,
)
from crossrag.calibration import Calibration, Operating
from crossrag.config import IndexSettings, RerankingSettings, load_settings
from crossrag.errors import ConfigError, UsageError
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker
from crossrag.types import Candidate, Chunk, Relevance, Scores

# Words that no passage holds make the fake doubt what is right: there is something to calibrate.
JUDGED = [
    Judgement("How to restore a backup?", "backup.md", "run the restore command"),
    Judgement("When does the office open?", "docs/office.html"),
    Judgement(
        "Please tell me: Is the blue whale the largest animal?", "docs/whales.txt", "largest ANIMAL\nthat"
    ),
    Judgement("Please tell me: When is a backup written?", "backup.md", "every night at two"),
    Judgement("Please tell me: When does the office close?", "docs/office.html"),
    Judgement("Please tell me: Are whales mammals?", "docs/whales.txt"),
    Judgement("Please tell me: Who runs the restore command?", "backup.md", "run the restore command"),
    Judgement("Please tell me: What opens at nine in the morning?", "docs/office.html"),
    Judgement("Please tell me: Which animal ever lived on Earth?", "docs/whales.txt"),
    Judgement("Please tell me: What is written every night?", "backup.md", "every night at two"),
    Judgement("Please tell me: Does the office close at five?", "docs/office.html"),
    Judgement("Please tell me: What should I stop to restore a backup?", "backup.md", "stop the service"),
]
CERTAIN = [
    Judgement(word, f"docs/{name}")
    for name, words in (
        ("whales.txt", "whales mammals blue whale largest earth"),
        ("office.html", "office opens nine morning closes five"),
    )
    for word in words.split()
]
"""Of one word each, so that the fake's relevance is 1 or 0, and right: no calibration betters that."""


class Noting(OverlapReranker):
    """Remembers how much it was told to care."""

    def __init__(self) -> None:
        self.told: list[tuple[int | None, float | None]] = []

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        self.told.append((top_k, deadline))
        return super().score(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)


class Other(OverlapReranker):
    fingerprint = "other"


def opened(folder: Path, reranker: OverlapReranker | None = None, **reranking: object) -> Rag:
    settings = Settings(
        index=IndexSettings(path=folder / "index"), reranking=RerankingSettings.model_validate(reranking)
    )
    return Rag(
        settings,
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=reranker or OverlapReranker(),
    )


def chunk(text: str, source: str = "docs/handbook/leave.md") -> Chunk:
    return Chunk(id="1", document_id="d", source=source, text=text, start=0, end=len(text), position=0)


def ranked(count: int = 300) -> dict[str, list[Candidate]]:
    """One question with candidates of which every other one holds the word `yes` and mostly scores higher."""
    random = np.random.default_rng(5)
    return {
        "q": [
            Candidate(
                chunk=chunk("yes" if number % 2 else "no"),
                scores=Scores(logit=float(logit), relevance=Calibration().probability(float(logit))),
            )
            for number, logit in enumerate(random.normal(0, 2, count) + 3.0 * (np.arange(count) % 2))
        ]
    }


def calibrated(rows: dict[str, list[Candidate]]) -> Calibrated:
    return calibrate(rows, {"q": [Judgement("q", "leave.md", "yes")]}, scorers=("overlap",), fewest=1)


def test_judgements_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    # A line separator within a text does not end the line.
    quote = "fourteen\u2028months\x85or so"
    rows = [{"question": " Q? ", "source": "a.md", "quote": quote}, {"question": "Q?", "source": "b.md"}]
    text = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_judgements(file)
    assert found == [Judgement("Q?", "a.md", quote), Judgement("Q?", "b.md")]
    assert by_question([*found, Judgement("R?", "c.md")]) == {"Q?": found, "R?": [Judgement("R?", "c.md")]}


@pytest.mark.parametrize(
    "line",
    [
        b'{"question": "Q?"}',
        b'{"question": "Q?", "source": 3}',
        b'{"question": "Q?", "source": "a.md", "quote": null}',
        b'{"question": " ", "source": "a.md"}',
        b'{"question": "Q?", "source": ""}',
        b'["Q?", "a.md"]',
        b'{"question": "Q?", "source": "a.md"',
        b'{"question": "Fran\xe7ais?", "source": "a.md"}',
    ],
)
def test_a_broken_line_is_named(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_bytes(b'{"question": "Q?", "source": "a.md"}\n\n' + line + b"\n")
    with pytest.raises(UsageError, match=r"judged\.jsonl, line 3: "):
        read_judgements(file)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"q": "x"}', "question and source missing"),
        ('{"question": "x"}', "line 1: source missing"),
        ('["a"]', "it is no JSON object"),
    ],
)
def test_what_a_line_lacks_is_said(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "judged.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_judgements(tmp_path / "judged.jsonl")


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        read_judgements(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_judgements(tmp_path / "judged.jsonl")
    (tmp_path / "judged.jsonl").write_text("\n \n", encoding="utf-8")
    with pytest.raises(UsageError, match="is empty"):
        read_judgements(tmp_path / "judged.jsonl")


@pytest.mark.parametrize(
    ("source", "quote", "names"),
    [
        ("docs/handbook/leave.md", "Fourteen  months", True),
        ("handbook/leave.md", "fourteen\nMONTHS of", True),
        ("leave.md", "", True),
        ("eave.md", "", False),
        ("book/leave.md", "", False),
        ("docs/handbook", "", False),
        ("leave.md", "fifteen months", False),
        ("leave.md", "months fourteen", False),
        ("leave.md", "teen months", False),
        ("leave.md", "It began with a word: parental leave is fourteen months of pay", True),
    ],
)
def test_a_judgement_names_the_passage_it_quotes(source: str, quote: str, names: bool) -> None:  # noqa: FBT001
    passage = chunk("Parental leave is\n\tfourteen months  of pay.")
    assert Judgement("Q?", source, quote).names(passage) is names


def test_what_was_found_survives_a_file(tmp_path: Path) -> None:
    found = calibrated(ranked())
    assert (found.questions, found.pairs, found.relevant) == (1, 300, 150)
    assert 0.0 <= found.error_after < found.error_before
    assert load(tmp_path) is None
    found.save(tmp_path)
    assert load(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_passages_that_were_not_read_do_not_count() -> None:
    rows = ranked()
    unread = Candidate(chunk=chunk("yes"), scores=Scores(dense=0.9))
    assert calibrated({"q": [*rows["q"], unread]}) == calibrated(rows)


@pytest.mark.parametrize("precision", [0.6, 0.75, 0.9, 1.0])
def test_a_wanted_precision_is_kept_and_no_more_is_left_out_than_it_takes(precision: float) -> None:
    rows = ranked(2_000)
    found = calibrated(rows)
    threshold = resolve_threshold(f"precision>={precision}", found)
    kept = [
        candidate.chunk.text == "yes"
        for candidate in rows["q"]
        if found.calibration.probability(candidate.scores.logit or 0.0) >= threshold
    ]
    assert sum(kept) / len(kept) >= precision
    labels = [
        candidate.chunk.text == "yes"
        for candidate in sorted(rows["q"], key=lambda candidate: -(candidate.scores.logit or 0.0))
    ]
    right = list(accumulate(labels))
    assert sum(kept) == max(good for count, good in enumerate(right, start=1) if good / count >= precision)


def test_a_threshold_is_a_number_or_is_read_from_the_calibration() -> None:
    points = (Operating(0.8, 1.0, 0.4), Operating(0.3, 0.7, 0.9))
    found = Calibrated(
        scorers=("r",),
        calibration=Calibration(),
        points=points,
        questions=1,
        pairs=9,
        relevant=5,
        unmatched=0,
        error_before=0.0,
        error_after=0.0,
    )
    assert resolve_threshold(0.25, None) == resolve_threshold(0.25, found) == 0.25
    assert (resolve_threshold("precision>=0.7", found), resolve_threshold("precision>=0.71", found)) == (
        0.3,
        0.8,
    )
    with pytest.raises(ConfigError, match="no calibration for its reranker"):
        resolve_threshold("precision>=0.7", None)


def test_the_setting_takes_a_number_or_a_precision(tmp_path: Path) -> None:
    def threshold(value: object, **environ: str) -> float | str:
        arguments = {} if value is None else {"reranking": {"threshold": value}}
        return load_settings(arguments, environ=environ, directory=tmp_path).settings.reranking.threshold

    assert threshold(0.25) == threshold(None, CROSSRAG_RERANKING__THRESHOLD="0.25") == 0.25
    assert threshold("precision>=0.9") == "precision>=0.9"
    for wrong in (
        "precision>=1.5",
        "precision>=nan",
        "precision>=",
        "precision",
        "0.9>=precision",
        "2",
        -0.1,
    ):
        with pytest.raises(ConfigError, match="a number from 0 to 1, or such as"):
            threshold(wrong)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"3", b"{}", b'{"calibration": {"slope": 1.0, "tilt": 2.0}}', b'{"calibration": "\xff"}'],
)
def test_a_damaged_calibration_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=r"calibration\.json is damaged: .*Delete it"):
        load(tmp_path)


def test_relevance_is_calibrated_from_then_on_and_the_order_stays(tmp_path: Path, corpus: Path) -> None:
    with opened(tmp_path) as rag:
        rag.ingest(corpus)
        before = rag.search("How to restore a backup?")
        found = rag.calibrate(JUDGED)
        assert found.relevant >= 3
        assert load(tmp_path / "index") == found
        after = rag.search("How to restore a backup?")
    assert [candidate.chunk.id for candidate in after] == [candidate.chunk.id for candidate in before]
    assert [candidate.scores.relevance for candidate in after] == [
        found.calibration.probability(candidate.scores.logit or 0.0) for candidate in after
    ]
    assert after[0].scores.relevance != before[0].scores.relevance
    with opened(tmp_path) as rag:
        assert list(rag.search("How to restore a backup?")) == list(after)
    with opened(tmp_path, Other()) as rag:
        assert rag.calibrated is None
        assert list(rag.search("How to restore a backup?")) == list(before)


def test_calibration_reads_everything_whatever_the_deadline(tmp_path: Path, corpus: Path) -> None:
    reranker = Noting()
    with opened(tmp_path, reranker, deadline=1e-9, top_k=1) as rag:
        rag.ingest(corpus)
        done: list[tuple[int, int]] = []
        rag.calibrate(JUDGED, progress=lambda number, of: done.append((number, of)))
    assert reranker.told == [(None, None)] * len(JUDGED)
    assert [number for number, _ in done] == list(range(len(JUDGED)))
    assert {of for _, of in done} == {len(JUDGED)}


def test_few_questions_are_refused_and_nothing_is_kept(tmp_path: Path, corpus: Path) -> None:
    reranker = Noting()
    with opened(tmp_path, reranker) as rag:
        rag.ingest(corpus)
        with pytest.raises(UsageError, match=r"Of 9 questions 9 have a relevant .* 10 are the least"):
            rag.calibrate(JUDGED[:9])
        assert reranker.told == []
        lost = [Judgement(f"Where is place {number}?", "elsewhere.md") for number in range(60)]
        with pytest.raises(
            UsageError, match=r"Of 69 questions 9 have a relevant place that the search finds"
        ):
            rag.calibrate([*JUDGED[:9], *lost])
        assert rag.calibrated is None
    assert load(tmp_path / "index") is None


def test_a_calibration_that_is_worse_is_not_kept_and_the_one_before_stays(
    tmp_path: Path, corpus: Path
) -> None:
    with opened(tmp_path) as rag:
        rag.ingest(corpus)
        worse = rag.calibrate(CERTAIN)
        assert (worse.error_before, worse.better, worse.matched) == (0.0, False, 12)
        assert rag.calibrated is None
        kept = rag.calibrate(JUDGED)
        assert kept.better
        assert not rag.calibrate(CERTAIN).better
        assert rag.calibrated == load(tmp_path / "index") == kept
    assert remove(tmp_path / "index")
    assert not remove(tmp_path / "index")


def test_a_wanted_precision_needs_a_calibration_of_this_reranker(tmp_path: Path, corpus: Path) -> None:
    with opened(tmp_path, threshold="precision>=0.9") as rag:
        rag.ingest(corpus)
        with pytest.raises(ConfigError, match="crossrag calibrate"):
            rag.ask("How to restore a backup?")
        rag.calibrate(JUDGED)
        answer = rag.ask("How to restore a backup?")
        assert (answer.status, answer.citations[0].source) == ("answered", "docs/backup.md, Backup")
        assert {source.chunk.source for source in answer.context.sources} == {"docs/backup.md"}
        assert rag.ask("boiling point of liquid helium").status == "no_answer"
    other = opened(tmp_path, Other(), threshold="precision>=0.9")
    with other, pytest.raises(ConfigError, match="no calibration for its reranker"):
        other.ask("How to restore a backup?")
