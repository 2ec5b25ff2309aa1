"""Values of the engine -> what the native API says of them. Pure; ids of documents are made opaque here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from crossrag.types import Cited, Claimed, Delta, Done, Retrieved, Scores, Unsupported

from .service import DEFAULT

if TYPE_CHECKING:
    from crossrag.types import (
        Answer,
        Candidate,
        Chunk,
        Citation,
        Claim,
        Context,
        Event,
        Ranking,
        Source,
    )

_SCORES = tuple(field.name for field in fields(Scores) if field.name != "indexed")


def document_id(identity: str) -> str:
    """An id that says nothing of where a document lies: 96 bits of a digest."""
    return "d" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def page_address(document: str, characters: str = "", *, collection: str = DEFAULT) -> str:
    """Where the page shows a document, below the server's own address.

    Args:
        document: Its id, as `document_id` makes it.
        characters: Which of it are marked, `START-END`.
        collection: The document's; the default one is not named.
    """
    named = "" if collection == DEFAULT else f"?collection={collection}"
    return f"/d/{document}{named}" + (f"#{characters}" if characters else "")


def passage(chunk: Chunk) -> dict[str, Any]:
    """`schemas.Passage`."""
    return {
        "id": chunk.id,
        "document_id": document_id(chunk.document_id),
        "source": chunk.source,
        "title": chunk.title,
        "location": chunk.location,
        "text": chunk.text,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "page_name": chunk.page_name,
        "title_path": list(chunk.title_path),
        "metadata": plain(chunk.metadata),
    }


def candidate(found: Candidate, rank: int, *, threshold: float | None, top_k: int) -> dict[str, Any]:
    """`schemas.CandidatePassage`."""
    relevance = found.scores.relevance
    return passage(found.chunk) | {
        "rank": rank,
        "scores": {name: _finite(getattr(found.scores, name)) for name in _SCORES},
        # As `reranking.relevant` does; where nothing was scored there is no threshold.
        "kept": rank <= top_k and (threshold is None or (relevance or 0.0) >= threshold),
        "truncated": found.truncated,
        "window": found.window,
        "duplicates": [
            {
                "id": chunk.id,
                "document_id": document_id(chunk.document_id),
                "source": chunk.source,
                "location": chunk.location,
            }
            for chunk in found.duplicates
        ],
    }


def ranking(found: Ranking, *, top_k: int, shown: int, explain: bool = False) -> dict[str, Any]:
    """`schemas.RankingReply`.

    Args:
        found: Everything that was ranked, or the first of it.
        top_k: Most that are kept.
        shown: How many are given.
        explain: Whether to give the first `shown` of the first stage too.
    """
    whole = [
        candidate(one, rank, threshold=found.threshold, top_k=top_k)
        for rank, one in enumerate(found.candidates, start=1)
    ]
    before = None
    if explain:
        ranked = sorted(whole, key=lambda one: one["scores"]["fused_rank"] or math.inf)
        last = max((one["scores"]["fused_rank"] or 0 for one in whole[:shown]), default=0)
        # The first stage's own first ones, and wherever the shown ones came from.
        kept = {one["id"] for one in (*ranked[:shown], *whole[:shown])}
        before = [
            one
            for one in ranked
            if one["id"] in kept and (one["scores"]["fused_rank"] or 0) <= max(last, shown)
        ]
    return {
        "query": found.query,
        "threshold": found.threshold,
        "candidates": whole[:shown],
        "first_stage": before,
        "degraded": list(found.degraded),
        "notices": list(found.notices),
        "timings": dict(found.timings),
        "total_candidates": len(whole),
        "truncated": None if found.truncated is None else asdict(found.truncated),
    }


def source(one: Source) -> dict[str, Any]:
    """`schemas.SourcePassage`."""
    return passage(one.chunk) | {
        "number": one.number,
        "relevance": _finite(one.relevance),
        "chunk_ids": list(one.chunk_ids),
    }


def context(used: Context) -> dict[str, Any]:
    """Sources, and how much there was of them."""
    return {
        "sources": [source(one) for one in used.sources],
        "dropped": used.dropped,
        "context_tokens": used.tokens,
    }


def citation(one: Citation) -> dict[str, Any]:
    """`schemas.CitationReply`."""
    return asdict(one) | {"document_id": document_id(one.document_id), "support": _finite(one.support)}


def claim(one: Claim) -> dict[str, Any]:
    """`schemas.ClaimReply`."""
    return asdict(one) | {"citations": list(one.citations), "support": _finite(one.support)}


def answer(given: Answer, ranked: dict[str, Any], *, answer_id: str, collection: str) -> dict[str, Any]:
    """`schemas.AnswerReply`."""
    return {
        "id": answer_id,
        "question": given.question,
        "text": given.text,
        "status": given.status,
        "citations": [citation(one) for one in given.citations],
        "claims": [claim(one) for one in given.claims],
        "reasons": list(given.reasons),
        "degraded": list(given.degraded),
        "notices": list(given.notices),
        **context(given.context),
        "ranking": ranked,
        "timings": dict(given.timings),
        "collection": collection,
    }


def event(
    happened: Event, *, ranked: dict[str, Any], answer_id: str, collection: str
) -> tuple[str, dict[str, Any]]:
    """Name and data of a server-sent event."""
    match happened:
        case Retrieved():
            about = {"id": answer_id, "collection": collection, "ranking": ranked}
            return "retrieved", about | context(happened.context)
        case Delta():
            return "delta", {"text": happened.text}
        case Claimed():
            return "claimed", {"claim": claim(happened.claim)}
        case Cited():
            return "cited", {"citation": citation(happened.citation)}
        case Unsupported():
            return "unsupported", {"claim": claim(happened.claim)}
        case Done():
            whole = answer(happened.answer, ranked, answer_id=answer_id, collection=collection)
            return "done", {"answer": whole}


def plain(value: Any) -> Any:
    """The same as JSON can say it: no NaN, no unknown types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return _finite(value)
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _finite(number: float | None) -> float | None:
    return number if number is None or math.isfinite(number) else None
