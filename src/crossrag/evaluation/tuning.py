"""Questions and settings -> better settings, found on one half of the questions and measured on the other.

A plain grid: how passages are found (and cut, where that is wanted) needs a search each and is tried while
there is time; depth, fusion and threshold are read off what those searches found.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import UsageError

from .changes import Changes, with_changes
from .dataset import order
from .experiment import Subject, conduct, subject
from .journal import Journal, key
from .measures import MAIN, mean, measured
from .outcome import qrels
from .reading import is_corpus
from .records import reread
from .running import Progress, opened
from .statistics import Difference, compared

if TYPE_CHECKING:
    from crossrag.config import Settings

    from .dataset import Dataset
    from .records import Record, Seen

DEEPEST = 200
DEPTHS = (0, 10, 20, 50, 100, 200)
CONSTANTS = (10, 30, 60, 120)
DENSE_WEIGHTS = (0.5, 1.0, 2.0)
THRESHOLDS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
METHODS = ((), ("feedback",), ("variants",), ("feedback", "variants"))
_PER_TOKEN = 4
"""Characters; chunk sizes are tried as either."""
CHUNKS = ((400, 80), (800, 150), (1_200, 200), (2_000, 300))
LEAST = 10
"""Questions in each half, without which nothing is tuned."""
_PRICE = 0.002
"""What a deeper reading, or another way of finding, must be worth to be taken: it costs time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How far to look."""

    seconds: float = 600.0
    chunking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What some settings come to, on the half that is looked at."""

    changes: Changes
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was found."""

    changes: Changes
    """Everything that the new settings say, the old values too where they were best."""
    trials: tuple[Trial, ...]
    left_out: tuple[str, ...]
    """What there was no time for."""
    questions: int
    """In the half on which it is measured."""
    before: float
    after: float
    difference: Difference
    """New settings against old ones, on the other half."""
    reranking: Difference
    """The best with reranking against the best without, on the other half."""
    utility: tuple[float, float]
    """What the old and the new threshold are worth, on the other half: see `usefulness`."""

    @property
    def verdict(self) -> str:
        """Whether reranking helps here, and whether the new settings do."""
        gain = self.reranking.difference
        amount = f"{gain.mean * 100:+.1f} points of {MAIN} [{gain.low * 100:+.1f}, {gain.high * 100:+.1f}]"
        if self.reranking.verdict == "better":
            helps = f"Reranking helps here: {amount}"
        elif self.reranking.verdict == "worse":
            helps = f"Reranking does NOT help here, it makes results worse: {amount}"
        else:
            helps = f"Reranking does not help here as far as these questions show: {amount}"
        return (
            f"{helps}, p = {self.reranking.p:.3f}. The new settings are {self.difference.verdict}.".replace(
                "are no difference shown", "are not shown to be better"
            )
        )


def tune(
    dataset: Dataset,
    data: Path,
    settings: Settings,
    *,
    journal: Journal,
    options: Options | None = None,
    progress: Progress = lambda _: lambda *_: None,
) -> Tuned:
    """Look for better settings.

    Raises:
        UsageError: There are too few questions.
    """
    options = options or Options()
    seen, unseen = halves(dataset)
    began, trials, left_out = time.monotonic(), [], []
    best: _Best | None = None
    base: _Base | None = None
    for changes in _variants(settings, data, options):
        name = ", ".join(f"{key} = {value}" for key, value in changes.items()) or "as it is"
        if best is not None and time.monotonic() - began > options.seconds:
            left_out.append(name)
            continue
        with _searched(data, settings, changes) as found:
            records = conduct(dataset, found, journal=journal, progress=progress(name))
        base = base or _Base(records, found.threshold)
        for inner in _inner(settings, changes):
            value = mean(list(ranked(seen, records, inner).values()))
            trials.append(Trial(changes={**changes, **inner}, value=value))
            found_better = _Best(value, changes, inner, records)
            if best is None or value > best.value + _PRICE * found_better.dearer_than(best):
                best = found_better
    assert best is not None  # noqa: S101 - the settings as they are have been tried
    assert base is not None  # noqa: S101 - as above
    return _finished(settings, (seen, unseen), base, best, trials=trials, left_out=left_out)


@dataclass(frozen=True, slots=True)
class _Base:
    """The settings as they are."""

    records: list[Record]
    threshold: float
    """As a number, whatever it was set as."""


@dataclass(frozen=True, slots=True)
class _Best:
    value: float
    outer: Changes
    """What needed a search of its own."""
    inner: Changes
    records: list[Record]

    def dearer_than(self, other: _Best) -> bool:
        """Whether it takes more time."""
        deeper: bool = self.inner["reranking.depth"] > other.inner["reranking.depth"]
        return deeper or (bool(self.outer) and not other.outer)


def halves(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Two halves by the hash of the questions' ids.

    Raises:
        UsageError: One has fewer than ten judged questions.
    """
    ordered = sorted((q for q in dataset.questions if q.judged), key=lambda q: key("half", q.id))
    others = sorted((q for q in dataset.questions if not q.judged), key=lambda q: key("half", q.id))
    if len(ordered) < 2 * LEAST:
        raise UsageError(
            f"{len(ordered)} judged questions are too few to tune on one half and measure on the other",
            hint=f"Judge at least {2 * LEAST}; a hundred say something",
        )
    return (
        replace(dataset, questions=(*ordered[::2], *others[::2])),
        replace(dataset, questions=(*ordered[1::2], *others[1::2])),
    )


def ranked(dataset: Dataset, records: Sequence[Record], changes: Changes) -> dict[str, float]:
    """The main measure per question, had the records been made with this fusion and depth.

    Without `retrieval.rrf_k` among the changes, the fusion is that of the search.
    """
    run = {
        record.id: order(
            seen.names
            for seen in reordered(
                record,
                depth=changes["reranking.depth"],
                constant=changes.get("retrieval.rrf_k"),
                dense_weight=changes.get("retrieval.dense_weight", 1.0),
            )
        )
        for record in records
    }
    return measured(run, qrels(dataset), (MAIN,), relevant_from=dataset.relevant_from)[MAIN]


def reordered(record: Record, *, depth: int, constant: int | None, dense_weight: float = 1.0) -> list[Seen]:
    """Candidates fused in another way, the first `depth` of them in the reranker's order.

    Args:
        record: Of a search of two legs.
        depth: How many the reranker reads.
        constant: Of reciprocal rank fusion; None for the order of the search itself.
        dense_weight: Of the dense leg.
    """
    first = record.in_order("fused")
    if constant is not None:
        scores = [
            (1 / (constant + seen.bm25) if seen.bm25 else 0.0)
            + (dense_weight / (constant + seen.dense) if seen.dense else 0.0)
            for seen in first
        ]
        first = [first[place] for place in sorted(range(len(first)), key=lambda place: -scores[place])]
    return reread(first, depth)


def usefulness(dataset: Dataset, records: Sequence[Record], threshold: float, top_k: int) -> float:
    """How well a threshold keeps what is relevant and nothing else, in [0, 1]: mean over questions.

    F1 of what is kept against the relevant places, of which at most `top_k` can be kept; for a question
    without an answer, 1 where nothing is kept and 0 otherwise.
    """
    known = {question.id: question for question in dataset.questions}
    truth = qrels(dataset)
    values = []
    for record in records:
        kept = record.kept(threshold, top_k) if record.id in known else []
        if record.id in truth:
            relevant = {n for n, g in truth[record.id].items() if g >= dataset.relevant_from}
            right = {name for seen in kept for name in seen.names} & relevant
            hits = sum(bool(set(seen.names) & relevant) for seen in kept)
            precision = hits / len(kept) if kept else 0.0
            recall = len(right) / min(len(relevant), top_k)
            values.append(2 * precision * recall / (precision + recall) if right else 0.0)
        elif record.id in known and known[record.id].answerable is False:
            values.append(float(not kept))
    return mean(values)


def told(found: Tuned) -> Iterator[str]:
    """The result in lines for people."""
    yield found.verdict
    yield ""
    gain = found.difference
    yield (
        f"On the {found.questions} questions that were not looked at: {MAIN} {found.before:.3f} -> "
        f"{found.after:.3f}, p = {gain.p:.3f} (better on {gain.wins}, same on {gain.ties}, worse on "
        f"{gain.losses}). What is kept above the threshold: {found.utility[0]:.3f} -> {found.utility[1]:.3f}."
    )
    yield ""
    for name, value in found.changes.items():
        yield f"{name} = {value}"
    if found.left_out:
        yield ""
        yield f"There was no time for: {'; '.join(found.left_out)}."


def _finished(
    settings: Settings,
    halved: tuple[Dataset, Dataset],
    base: _Base,
    best: _Best,
    *,
    trials: Sequence[Trial],
    left_out: Sequence[str],
) -> Tuned:
    seen, unseen = halved
    top_k = settings.reranking.top_k
    before = ranked(unseen, base.records, {"reranking.depth": settings.reranking.depth})
    after = ranked(unseen, best.records, best.inner)
    without, with_it = _without_and_with(settings, halved, best)
    threshold = _threshold(seen, best.records, top_k, start=base.threshold)
    # What was set stays as it was set, such as a wanted precision.
    kept = threshold == base.threshold
    changes = {
        **best.outer,
        **best.inner,
        "reranking.threshold": settings.reranking.threshold if kept else threshold,
    }
    if not changes["reranking.depth"]:
        del changes["reranking.depth"]
        changes["reranking.model"] = "none"
    return Tuned(
        changes=changes,
        trials=tuple(trials),
        left_out=tuple(left_out),
        questions=len(before),
        before=mean(list(before.values())),
        after=mean(list(after.values())),
        difference=compared(list(before.values()), list(after.values())),
        reranking=compared(list(without.values()), list(with_it.values())),
        utility=(
            usefulness(unseen, base.records, base.threshold, top_k),
            usefulness(unseen, best.records, threshold, top_k),
        ),
    )


def _without_and_with(
    settings: Settings, halved: tuple[Dataset, Dataset], best: _Best
) -> tuple[dict[str, float], dict[str, float]]:
    """The best without reranking and the best with it, chosen on one half, on the other."""
    seen, unseen = halved
    tried = _inner(settings, best.outer)

    def worth(inner: Changes) -> float:
        return mean(list(ranked(seen, best.records, inner).values()))

    plain = max((inner for inner in tried if not inner["reranking.depth"]), key=worth)
    read = max((inner for inner in tried if inner["reranking.depth"]), key=worth, default=plain)
    return ranked(unseen, best.records, plain), ranked(unseen, best.records, read)


def _threshold(dataset: Dataset, records: Sequence[Record], top_k: int, *, start: float) -> float:
    """The most useful one; the one that there is, where no other is clearly better."""
    tried = sorted({*THRESHOLDS, start})
    worth = {value: usefulness(dataset, records, value, top_k) for value in tried}
    best = max(tried, key=lambda value: (worth[value], -value))
    return best if worth[best] > worth[start] + _PRICE else start


def _inner(settings: Settings, outer: Changes) -> list[Changes]:
    """What needs no search: cheapest first, so that of equals the cheapest is taken."""
    own = settings.reranking.depth
    depths = [0] if settings.reranking.model == "none" else sorted({0, *DEPTHS, own})
    if outer.get("expansion.methods", settings.expansion.methods):
        # A record does not say what each expansion found: it cannot be fused in another way.
        return [{"reranking.depth": depth} for depth in depths]
    constant, weight = settings.retrieval.rrf_k, settings.retrieval.dense_weight
    fusions = sorted(
        ((k, w) for k in {*CONSTANTS, constant} for w in {*DENSE_WEIGHTS, weight}),
        key=lambda fusion: (fusion != (constant, weight), fusion),
    )
    return [
        {"reranking.depth": depth, "retrieval.rrf_k": k, "retrieval.dense_weight": w}
        for depth in depths
        for k, w in fusions
    ]


def _variants(settings: Settings, data: Path, options: Options) -> Iterator[Changes]:
    """What needs a search, or an index, of its own; the settings as they are come first."""
    yield {}
    for methods in METHODS:
        if methods != tuple(settings.expansion.methods):
            yield {"expansion.methods": list(methods)}
    if options.chunking and not is_corpus(data):
        per = _PER_TOKEN if settings.chunking.unit == "tokens" else 1
        for size, overlap in CHUNKS:
            if size // per != settings.chunking.size:
                yield {"chunking.size": size // per, "chunking.overlap": overlap // per}


@contextmanager
def _searched(data: Path, settings: Settings, changes: Changes) -> Iterator[Subject]:
    """A Rag of these settings that reads as deeply as any depth that is tried."""
    deep = {"reranking.depth": max(DEEPEST, settings.reranking.depth)}
    changed = with_changes(settings, {**deep, **changes})
    if "chunking.size" not in changes:
        with opened(data, changed) as found:
            yield found
        return
    from crossrag.pipeline import Rag

    with tempfile.TemporaryDirectory(prefix="crossrag-tune-") as scratch:
        with Rag(settings) as old:
            roots = [Path(entry.source) for entry in old.documents()]
        if missing := [root for root in roots if not root.exists()]:
            raise UsageError(
                f"{missing[0]} is not where it was when it was indexed",
                hint="Run tune from the folder that the index was made from, or leave out --chunking",
            )
        # Also where the index is on a server: nothing of what is tried is written there.
        elsewhere = {"index.path": Path(scratch) / "index", "index.store": "edge"}
        with Rag(with_changes(changed, elsewhere)) as rag:
            rag.ingest(*roots)
            yield subject(rag)
