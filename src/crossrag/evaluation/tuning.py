"""Questions and settings -> better settings, found on one half of the questions and measured on the other.

A plain grid: how passages are found (and cut, where that is wanted) needs a search each and is tried while
there is time; depth, fusion and threshold are read off what those searches found, as scores do not depend on
company.
"""

from __future__ import annotations

import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import UsageError
from crossrag.retrieval import reciprocal_rank_fusion

from .dataset import order
from .experiment import Subject, conduct, subject
from .journal import Journal, key
from .measures import MAIN, mean, measured
from .outcome import qrels
from .reading import is_corpus
from .running import Progress, opened
from .statistics import Difference, compared

if TYPE_CHECKING:
    from crossrag.config import Settings

    from .dataset import Dataset
    from .records import Record, Seen

Changes = Mapping[str, Any]
"""`section.key` -> value."""
DEEPEST = 200
DEPTHS = (0, 10, 20, 50, 100, 200)
CONSTANTS = (10, 30, 60, 120)
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
    best: tuple[float, Changes, list[Record]] | None = None
    base: list[Record] = []
    for changes in _variants(settings, data, options):
        name = ", ".join(f"{key} = {value}" for key, value in changes.items()) or "as it is"
        if best is not None and time.monotonic() - began > options.seconds:
            left_out.append(name)
            continue
        with _searched(data, settings, changes) as found:
            records = conduct(dataset, found, journal=journal, progress=progress(name))
        base = base or records
        for inner in _inner(settings):
            value = mean(list(ranked(seen, records, inner).values()))
            trials.append(Trial(changes={**changes, **inner}, value=value))
            cost = _PRICE * bool(changes)
            if best is None or value > best[0] + cost:
                best = value - cost, {**changes, **inner}, records
    assert best is not None  # noqa: S101 - the settings as they are have been tried
    return _finished(settings, (seen, unseen), (base, best[2]), best[1], trials=trials, left_out=left_out)


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
    """The main measure per question, had the records been made with this fusion and depth."""
    depth, constant = int(changes["reranking.depth"]), int(changes["retrieval.rrf_k"])
    run = {record.id: order(seen.names for seen in reordered(record, depth, constant)) for record in records}
    return measured(run, qrels(dataset), (MAIN,), relevant_from=dataset.relevant_from)[MAIN]


def reordered(record: Record, depth: int, constant: int) -> list[Seen]:
    """Candidates fused with another constant, the first `depth` of them in the reranker's order."""
    legs = []
    for leg in ("bm25", "dense"):
        ranks = {place: getattr(seen, leg) for place, seen in enumerate(record.seen)}
        legs.append(sorted((place for place in ranks if ranks[place] is not None), key=lambda p: ranks[p]))
    scores = reciprocal_rank_fusion(legs, k=constant)
    fused = sorted(scores, key=lambda place: (-scores[place], record.seen[place].fused or 0))
    read = [place for place in fused[:depth] if record.seen[place].reranked is not None]
    unread = [place for place in fused if place not in set(read)]
    return [record.seen[p] for p in (*sorted(read, key=lambda p: record.seen[p].reranked or 0), *unread)]


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


def write_settings(found: Tuned, path: Path, *, start: Path) -> None:
    """Write a settings file: what `start` says, if it is there, with what was found above it.

    Raises:
        UsageError: It cannot be written.
    """
    content: dict[str, dict[str, Any]] = {}
    if start.is_file():
        content = tomllib.loads(start.read_text(encoding="utf-8"))
    for name, value in found.changes.items():
        section, _, setting = name.partition(".")
        content.setdefault(section, {})[setting] = value
    lines = [f"# {found.verdict}", ""]
    for section, values in content.items():
        lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", hint="Name another with --out"
        ) from None


def _finished(
    settings: Settings,
    parts: tuple[Dataset, Dataset],
    records: tuple[list[Record], list[Record]],
    changes: Changes,
    *,
    trials: Sequence[Trial],
    left_out: Sequence[str],
) -> Tuned:
    (seen, unseen), (base, best) = parts, records
    top_k = settings.reranking.top_k
    old = {"reranking.depth": settings.reranking.depth, "retrieval.rrf_k": settings.retrieval.rrf_k}
    before, after = ranked(unseen, base, old), ranked(unseen, best, changes)
    # The best fusion without reranking, chosen on the same half as the best with it.
    plain = max(
        (inner for inner in _inner(settings) if inner["reranking.depth"] == 0),
        key=lambda inner: mean(list(ranked(seen, best, inner).values())),
    )
    read = max(
        (inner for inner in _inner(settings) if inner["reranking.depth"]),
        key=lambda inner: mean(list(ranked(seen, best, inner).values())),
        default=plain,
    )
    without, with_it = ranked(unseen, best, plain), ranked(unseen, best, read)
    given = settings.reranking.threshold
    old_threshold = given if isinstance(given, float) else 0.0
    threshold = _threshold(seen, best, top_k, start=old_threshold)
    if not changes["reranking.depth"]:
        changes = {**{k: v for k, v in changes.items() if k != "reranking.depth"}, "reranking.model": "none"}
    return Tuned(
        changes={**changes, "reranking.threshold": threshold},
        trials=tuple(trials),
        left_out=tuple(left_out),
        questions=len(before),
        before=mean(list(before.values())),
        after=mean(list(after.values())),
        difference=compared(list(before.values()), list(after.values())),
        reranking=compared(list(without.values()), list(with_it.values())),
        utility=(usefulness(unseen, base, old_threshold, top_k), usefulness(unseen, best, threshold, top_k)),
    )


def _threshold(dataset: Dataset, records: Sequence[Record], top_k: int, *, start: float) -> float:
    """The most useful one; the one that there is, where no other is clearly better."""
    tried = sorted({0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, start})
    worth = {value: usefulness(dataset, records, value, top_k) for value in tried}
    best = max(tried, key=lambda value: (worth[value], -value))
    return best if worth[best] > worth[start] + _PRICE else start


def _inner(settings: Settings) -> list[dict[str, Any]]:
    """What needs no search: cheapest first, so that of equals the cheapest is taken."""
    own = settings.reranking.depth
    depths = [0] if settings.reranking.model == "none" else sorted({*DEPTHS, own})
    constants = sorted(
        {*CONSTANTS, settings.retrieval.rrf_k}, key=lambda k: (k != settings.retrieval.rrf_k, k)
    )
    return [{"reranking.depth": d, "retrieval.rrf_k": k} for d in depths for k in constants]


def _variants(settings: Settings, data: Path, options: Options) -> Iterator[Changes]:
    """What needs a search, or an index, of its own; the settings as they are come first."""
    yield {}
    for methods in (("feedback",), ("variants",), ("feedback", "variants")):
        if methods != tuple(settings.expansion.methods):
            yield {"expansion.methods": list(methods)}
    if options.chunking and not is_corpus(data):
        for size, overlap in CHUNKS:
            if size != settings.chunking.size:
                yield {"chunking.size": size, "chunking.overlap": overlap}


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
        with Rag(with_changes(changed, {"index.path": Path(scratch) / "index"})) as rag:
            rag.ingest(*roots)
            yield subject(rag)


def with_changes(settings: Settings, changes: Changes) -> Settings:
    """The same settings but for some."""
    content = settings.model_dump()
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        content[section][setting] = value
    return settings.__class__.model_validate(content)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = str(value)
    # JSON's escapes of a text are TOML's, too.
    import json

    return json.dumps(text, ensure_ascii=False)
