"""From a path and a Rag to a report in a folder: what `crossrag eval`, the quality page and programs call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from crossrag import reranking
from crossrag.errors import UsageError

from . import corpus, figures, markdown, report, trec
from .dataset import written
from .experiment import Subject, conduct, subject, whole_ranking
from .journal import Journal, key
from .judging import judged
from .measures import DEFAULT, check
from .outcome import outcome, qrels, runs
from .reading import is_corpus

if TYPE_CHECKING:
    from crossrag.config import Settings

    from .dataset import Dataset
    from .judging import Judge
    from .records import Record

Progress = Callable[[str], Callable[[int, int], None]]
"""What is being done -> what is called with how much of it is done."""
_TIMED, _LEAST_TIMED, _TIMING = 8, 3, 20.0
"""Questions on which reranking is timed per depth; fewer, but so many, where they take more seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure beside the ranking."""

    measures: tuple[str, ...] = DEFAULT
    answers: bool = False
    judges: tuple[Judge, ...] = ()
    timed: bool = True
    """Whether to time reranking per depth, on a few questions."""


def _quiet(_: str) -> Callable[[int, int], None]:
    return lambda *_: None


@contextmanager
def opened(data: Path, settings: Settings, *, progress: Progress = _quiet) -> Iterator[Subject]:
    """What the questions of `data` are about: its own corpus where it brings one, else the index.

    Raises:
        IndexMissingError: There is no index, and no corpus.
    """
    from crossrag.pipeline import Rag

    if is_corpus(data):
        with corpus.open_corpus(data, settings, progress=progress("embedding passages")) as rag:
            yield subject(rag, corpus=corpus.digest(data))
        return
    with Rag(settings) as rag:
        # Where there is no index, this says so; looking for its documents would begin one.
        rag.store.count()
        yield subject(rag)


def evaluate(
    dataset: Dataset,
    measured: Subject,
    *,
    journal: Journal,
    wanted: Wanted | None = None,
    progress: Progress = _quiet,
) -> tuple[dict[str, Any], list[Record]]:
    """Search, ask where that is wanted, judge and measure. Returns the report and what it rests on.

    Raises:
        UsageError: A measure is unknown.
    """
    wanted = wanted or Wanted()
    check(wanted.measures)
    records = conduct(
        dataset, measured, journal=journal, answers=wanted.answers, progress=progress("searching")
    )
    found = outcome(dataset, records, measured, measures=wanted.measures)
    said = None
    if wanted.answers:
        said = judged(dataset, records, wanted.judges, journal=journal, progress=progress("judging"))
    depths = [row.depth for row in found.sweep] if wanted.timed else []
    seconds = timed(dataset, measured, depths, journal=journal, progress=progress("timing"))
    content = report.report(dataset, records, found, measured, judged=said, sweep_seconds=seconds)
    return content, records


def save(
    content: Mapping[str, Any],
    records: Sequence[Record],
    dataset: Dataset,
    folder: Path,
    *,
    drawn: bool = True,
) -> None:
    """Write report.json, report.md, its figures, and a TREC run per stage with the judgements.

    Raises:
        UsageError: The folder cannot be made.
    """
    make_folder(folder)
    report.write_json(content, folder / "report.json")
    pictures = figures.draw(content, folder) if drawn else {}
    (folder / "report.md").write_text(markdown.markdown(content, pictures), encoding="utf-8")
    subject_ = content["subject"]
    (folder / "runs").mkdir(exist_ok=True)
    for stage, run in runs(records, threshold=subject_["threshold"], top_k=subject_["top_k"]).items():
        named = {written(query): names for query, names in run.items()}
        trec.write_run(named, folder / "runs" / f"{stage.lower()}.run", tag=f"crossrag-{stage.lower()}")
    truth = {written(query): rows for query, rows in qrels(dataset).items()}
    trec.write_qrels(truth, folder / "runs" / "qrels.txt")


def make_folder(folder: Path) -> None:
    """Make the folder of a report, before a long run.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} is no folder to write to: {error.strerror}", hint="Name another"
        ) from None


def sampled(dataset: Dataset, most: int | None) -> Dataset:
    """So many questions, the same in every run: those whose ids have the lowest hashes."""
    if most is None or len(dataset.questions) <= most:
        return dataset
    chosen = sorted(dataset.questions, key=lambda question: key("sample", question.id))[:most]
    kept = {question.id for question in chosen}
    return replace(dataset, questions=tuple(q for q in dataset.questions if q.id in kept))


def timed(
    dataset: Dataset,
    measured: Subject,
    depths: Sequence[int],
    *,
    journal: Journal,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, float]:
    """Median seconds of reranking per depth, over a few questions; remembered, as it is slow."""
    rag = measured.rag
    chosen = sampled(dataset, _TIMED).questions
    name = key("timed", measured.identity, [question.text for question in chosen], list(depths))
    if (kept := journal.get(name)) is not None:
        values = [float(part) for part in kept.split()]
        return dict(zip(depths, values, strict=True))
    if rag.reranker is None or not depths:
        return {}
    found: dict[int, list[float]] = {depth: [] for depth in depths}
    start = time.monotonic()
    for done, question in enumerate(chosen):
        if done >= _LEAST_TIMED and time.monotonic() - start > _TIMING:
            break
        progress(done, len(chosen))
        first = sorted(whole_ranking(rag, question.text).candidates, key=lambda c: c.scores.fused_rank or 0)
        for depth in depths:
            begun = time.perf_counter()
            if depth:
                reranking.rerank(
                    question.text, first, reranker=rag.reranker, depth=depth, top_k=min(depth, 10)
                )
            found[depth].append(time.perf_counter() - begun)
    medians = {depth: median(values) for depth, values in found.items()}
    journal.put([(name, " ".join(f"{value:.6f}" for value in medians.values()).encode())])
    return medians
