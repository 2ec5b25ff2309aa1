"""Answer -> the whole path to it, for a terminal: what was searched, found, read, cut, used and checked."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from crossrag.types import Answer, Candidate, Claim, Ranking

_LABEL = 12
_NARROWEST = 60


def lines(answer: Answer, *, count_tokens: Callable[[str], int], budget: int) -> Iterator[str]:
    """Line by line, none wider than the terminal.

    Args:
        answer: With its ranking and context.
        count_tokens: How the passages of the context were counted.
        budget: Most tokens of context.
    """
    width = max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns)
    yield from _question(answer, width)
    yield from _found(answer.ranking, width)
    yield from _context(answer, count_tokens, budget, width)
    yield from _claims(answer, width)
    for stage in answer.degraded:
        yield from _row("degraded", stage, width)
    times = [f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in answer.timings.items()]
    yield from _row("time", ", ".join(times), width)


def _question(answer: Answer, width: int) -> Iterator[str]:
    ranking = answer.ranking
    yield from _row("question", answer.question, width)
    if ranking.query != answer.question:
        yield from _row("searched", ranking.query, width)
    if ranking.truncated is not None:
        cut = ranking.truncated
        yield from _row("condensed", f"{cut.query_tokens} tokens to {cut.kept}", width)
    for expansion in ranking.expansions:
        yield from _row("expansion", f"{expansion.method}: {expansion.text}", width)


def _found(ranking: Ranking, width: int) -> Iterator[str]:
    counts = ranking.counts
    named = (
        ("dense", "dense"),
        ("sparse", "bm25"),
        ("fused", "fused"),
        ("distinct", "distinct"),
        ("read", "read"),
        ("relevant", "relevant"),
    )
    text = ", ".join(f"{label} {counts[name]}" for name, label in named if name in counts)
    yield from _row("found", text, width)
    if ranking.threshold is not None:
        read = counts.get("read", 0)
        below = f"; {read - counts.get('relevant', 0)} of {read} passages are below it"
        yield from _row("threshold", f"relevance {ranking.threshold:.3f}{below}", width)
    if not ranking.candidates:
        return
    place = width - 43
    yield ""
    yield f"{'':>3}  {'passage':<{place}}{'dense':>7}{'bm25':>7}{'fused':>7}{'read':>6}{'relevant':>9}"
    for rank, candidate in enumerate(ranking.candidates, start=1):
        yield _passage(rank, candidate, ranking.threshold, place)
    yield ""


def _passage(rank: int, candidate: Candidate, threshold: float | None, place: int) -> str:
    scores = candidate.scores
    ranks = "".join(f"{f'#{one}' if one else '-':>7}" for one in (scores.dense_rank, scores.sparse_rank))
    relevance, moved, why = "-", "-", ""
    if scores.relevance is not None:
        relevance = f"{scores.relevance:.3f}"
        way = (scores.fused_rank or 0) - (scores.rerank_rank or 0)
        moved = f"{'+' if way > 0 else ''}{way}" if way else "="
        if threshold is not None and scores.relevance < threshold:
            why = " cut"
    row = f"{rank:>3}  {_cut(candidate.chunk.location, place):<{place}}{ranks}"
    return f"{row}{f'#{scores.fused_rank}':>7}{moved:>6}{relevance:>7}{why}".rstrip()


def _context(answer: Answer, count_tokens: Callable[[str], int], budget: int, width: int) -> Iterator[str]:
    used = answer.context
    count = len(used.sources)
    text = f"{count} passage{'s' if count != 1 else ''}, {used.tokens} of {budget} tokens"
    if used.dropped:
        text += f"; {used.dropped} did not fit"
    yield from _row("context", text, width)
    for source in used.sources:
        merged = f", {len(source.chunk_ids)} chunks" if len(source.chunk_ids) > 1 else ""
        tail = f"{count_tokens(source.chunk.text)} tokens{merged}"
        yield f"  [{source.number}] {_cut(source.chunk.location, width - len(tail) - 9)}  {tail}"


def _claims(answer: Answer, width: int) -> Iterator[str]:
    yield from _row("answer", "; ".join([answer.status.replace("_", " "), *answer.reasons]), width)
    for claim in answer.claims:
        yield from textwrap.wrap(
            f"{_verdict(claim)}: {' '.join(claim.text.split())}",
            width - 2,
            initial_indent="  ",
            subsequent_indent="    ",
        )
    for citation in answer.citations:
        if citation.supported is False:
            yield f"  [{citation.number}] at {citation.start} does not support its statement"


def _verdict(claim: Claim) -> str:
    known = "" if claim.support is None else f" {claim.support:.2f}"
    if claim.verbatim:
        return f"verbatim{known}"
    return {True: "supported", False: "NOT SUPPORTED", None: "not checked"}[claim.supported] + known


def _row(label: str, text: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        " ".join(text.split()) or "-",
        width,
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
    )


def _cut(text: str, width: int) -> str:
    """Its beginning and its end, where it is too long."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[-half:]}"
