"""Printing: data to stdout, talk to stderr; tables and bars only where a person looks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from crossrag.types import Answer, Context, Delta, Done, IngestReport, Ranking, Retrieved, Scores

if TYPE_CHECKING:
    from rich.console import Console

    from crossrag.config import Setting
    from crossrag.indexing import Progress
    from crossrag.pipeline import Rag

    from .doctor import Finding


@dataclass(slots=True)
class State:
    """What the options before the command said."""

    debug: bool = False


state = State()


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False, soft_wrap=True)


def use_utf8() -> None:
    """Documents hold any character; a terminal of another encoding gets marks in their place, not a crash."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def talk(text: str) -> None:
    """One line to stderr."""
    print(text, file=sys.stderr)


def hint_once(text: str) -> None:
    """A quiet line, only where a person looks."""
    if sys.stderr.isatty():
        _console(stderr=True).print(text, style="dim")


def error(text: str, *, unexpected: bool = False) -> None:
    """What went wrong, on one line."""
    console = _console(stderr=True)
    console.print("error: ", style="bold red", end="")
    console.print(" ".join(text.split()))
    if unexpected and not state.debug:
        console.print(
            "This was not foreseen: run it again as `crossrag --debug …` and report it.", style="dim"
        )


def to_json(value: Any) -> None:
    """One JSON object; numbers that are not finite become null, as JSON has none."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def bar() -> Any:
    """A progress bar on stderr, gone when it is done; a context manager."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=_console(stderr=True), transient=True)


@contextmanager
def ingest_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left on a terminal, nothing elsewhere."""
    started = time.perf_counter()

    def text(now: Progress) -> str:
        if now.stage == "comparing":
            return f"comparing {now.source}"
        rate = now.chunks / max(1e-3, time.perf_counter() - started)
        return f"{rate:.0f} chunks/s  {now.source}"

    with counting("") as count:
        yield lambda now: count(now.done, now.total, text(now))


@contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
    """A bar for something that is done one by one, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    with bar() as shown:
        task = shown.add_task(what)
        yield lambda done, total, text=what: shown.update(task, completed=done, total=total, description=text)


def columns(rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, the first row its head and the first column its names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join((first.strip().ljust(widths[0]), *others)).rstrip())


def report(done: IngestReport, *, as_json: bool) -> None:
    """The closing table of an ingestion."""
    if as_json:
        to_json(asdict(done))
        return
    counts = (
        ("added", done.added),
        ("updated", done.updated),
        ("renamed", done.renamed),
        ("unchanged", done.unchanged),
        ("deleted", done.deleted),
        ("skipped", len(done.skipped)),
        ("failed", len(done.failed)),
    )
    for name, count in counts:
        print(f"{name:<10}{count:>7}")
    print(f"{'chunks':<10}{done.chunks:>7}   written in {done.seconds:.1f} s")
    for name, failures in (("skipped", done.skipped), ("failed", done.failed)):
        for failure in failures:
            talk(f"{name}: {failure}")
    for notice in done.notices:
        talk(f"note: {notice}")


def ranking(found: Ranking, *, explain: bool, as_json: bool) -> None:
    """Passages, best first."""
    if as_json:
        to_json(asdict(found))
        return
    if not found.candidates:
        talk("Nothing was found.")
    for rank, candidate in enumerate(found.candidates, start=1):
        scores = candidate.scores
        known = "  -  " if scores.relevance is None else f"{scores.relevance:5.2f}"
        print(f"{rank:>3}  {known}  {candidate.chunk.location}")
        if explain:
            print(f"            {_path(scores)}")
            for chunk in candidate.duplicates:
                print(f"            nearly the same: {chunk.location}")
        print(f"            {_excerpt(candidate.chunk.text)}")
    _notices(found.degraded, found.notices)
    if explain:
        talk(_times(found.timings))


def answer_json(answer: Answer) -> None:
    """The answer with everything behind it."""
    to_json(asdict(answer))


def answer_stream(events: Iterable[Any], *, context: bool, explaining: Rag | None = None) -> Answer | None:
    """Text as it comes, the sources it cites, and the whole path if it is to be explained; the answer."""
    answer = None
    for event in events:
        if isinstance(event, Retrieved) and context:
            _context(event.context)
        elif isinstance(event, Delta):
            print(event.text, end="", flush=True)
        elif isinstance(event, Done):
            print()
            answer = event.answer
            _sources(answer)
            if explaining is not None:
                print()
                explained(answer, explaining)
    return answer


def status(found: dict[str, Any], *, as_json: bool) -> None:
    """Documents and chunks of an index."""
    if as_json:
        to_json(found)
        return
    size = f"{found['bytes'] / 1e6:.1f} MB"
    print(f"{found['index']}: {found['documents']} documents, {found['chunks']} chunks, {size}")
    if calibration := found["calibration"]:
        said = "in force" if calibration["in_force"] else "not used, it was made with other models"
        made = f"a calibration of {calibration['questions']} questions is {said}"
        print(f"{made}; `crossrag calibrate --remove` undoes it")
    for row in found["sources"]:
        print(f"{row['chunks']:>7}  {row['source']}")
    if found["chunks"] != found["chunks_in_store"]:
        talk(f"The store holds {found['chunks_in_store']} chunks: run `crossrag verify`.")


def findings(found: Sequence[Finding], *, as_json: bool) -> None:
    """What the doctor saw."""
    if as_json:
        to_json({"findings": [asdict(finding) for finding in found]})
        return
    for finding in found:
        print(f"{'FAIL' if finding.exit_code else 'ok':<5} {finding.subject:<10} {finding.text}")


def settings(rows: Sequence[Setting], *, as_json: bool) -> None:
    """Every setting and its origin."""
    if as_json:
        to_json({row.name: {"value": row.value, "origin": row.origin} for row in rows})
        return
    width = max(len(row.name) for row in rows)
    value_width = max(len(row.value) for row in rows)
    for row in rows:
        print(
            f"{row.name:<{width}}  {row.value:<{value_width}}  {row.origin:<10}  {row.description}".rstrip()
        )


def _sources(answer: Answer) -> None:
    cited = {citation.number for citation in answer.citations}
    if cited:
        print()
    for source in answer.context.sources:
        if source.number in cited:
            known = "" if source.relevance is None else f"  (relevance {source.relevance:.2f})"
            print(f"[{source.number}] {source.chunk.location}{known}")
    for claim in answer.claims:
        if claim.supported is False:
            talk(f"not supported: {' '.join(claim.text.split())}")
    for reason in answer.reasons:
        talk(f"{answer.status.replace('_', ' ')}: {reason}")
    if answer.status == "no_answer" and answer.ranking.candidates:
        nearest = answer.ranking.candidates[0]
        talk(f"Nearest: {nearest.chunk.location} (relevance {nearest.scores.relevance or 0.0:.2f})")
    _notices(answer.degraded, answer.notices)
    talk(_times(answer.timings))


def _context(used: Context) -> None:
    for source in used.sources:
        talk(f"--- [{source.number}] {source.chunk.location}\n{source.chunk.text}")
    talk("---")


def passages(used: Context) -> None:
    """What an answer could use, to stdout."""
    if not used.sources:
        talk("No passage was relevant enough.")
    for source in used.sources:
        print(f"--- [{source.number}] {source.chunk.location}\n{source.chunk.text}")


def explained(answer: Answer, rag: Rag) -> None:
    """The whole path to an answer, to stdout."""
    from . import explain

    budget = rag.settings.context.token_budget
    for line in explain.lines(answer, count_tokens=rag.count_tokens, budget=budget):
        print(line)


def _notices(degraded: Sequence[str], notices: Sequence[str]) -> None:
    for stage in degraded:
        talk(f"degraded: {stage}")
    for notice in notices:
        talk(f"note: {notice}")


def _times(timings: Any) -> str:
    return "  ".join(f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in timings.items())


def _path(scores: Scores) -> str:
    """`dense #3 (0.61)  bm25 #12 (8.4)  ->  fused #4  ↑ reranked #1 (logit 3.2, relevance 0.96)`."""
    legs = (("dense", scores.dense_rank, scores.dense), ("bm25", scores.sparse_rank, scores.sparse))
    text = "  ".join(
        f"{leg} {f'#{rank}' if rank else 'none'} ({score or 0.0:.2f})" for leg, rank, score in legs
    )
    text += f"  ->  fused #{scores.fused_rank}"
    if scores.rerank_rank is None or scores.fused_rank is None:
        return f"{text}  not reranked"
    moved = scores.fused_rank - scores.rerank_rank
    arrow = f"↑{moved}" if moved > 0 else f"↓{-moved}" if moved < 0 else "="
    said = f"(logit {scores.logit:.2f}, relevance {scores.relevance:.2f})"
    return f"{text}  ->  reranked #{scores.rerank_rank} {arrow}  {said}"


def _excerpt(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
