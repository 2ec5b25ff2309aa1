"""What every framework's adapter does: texts -> the reranker's order, a question -> relevant passages.

Imports no framework. What could not be read comes last and has no score, not one that looks like a score.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossrag.errors import ConfigError

if TYPE_CHECKING:
    from crossrag.pipeline import Rag
    from crossrag.types import Candidate, Where

_log = logging.getLogger(__name__)
_INTERNAL = {"generation", "minhash", "variant", "chunk_length"}
"""What a point holds for the index's own use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A text that was given, as the reranker sees it."""

    place: int
    """0, 1, 2… among the texts as they were given."""
    relevance: float | None = None
    """In [0, 1]; None where it was not read or the model gave no finite number."""
    logit: float | None = None
    truncated: bool = False

    def metadata(self, retrieval_score: float | None) -> dict[str, Any]:
        """What an adapter adds to a document, beside its score."""
        return {
            "retrieval_score": retrieval_score,
            "rerank_logit": self.logit,
            "rerank_truncated": self.truncated,
        }


def rerank(
    rag: Rag,
    query: str,
    texts: Sequence[str],
    *,
    top_k: int | None = None,
    min_relevance: float | None = None,
    deadline: float | None = None,
) -> list[Read]:
    """Texts that need be in no index, best first; equal ones in the order in which they were given.

    Args:
        rag: Whose reranker reads.
        query: A question or a few words.
        texts: Passages.
        top_k: At most this many; None for all.
        min_relevance: Leave out what is less relevant, and what was not read.
        deadline: Seconds after which no further batch is begun.
    """
    if not texts:
        return []
    said = rag.rerank(query, texts, deadline=deadline)
    read = [
        Read(place=place, relevance=relevance, logit=logit, truncated=truncated)
        if math.isfinite(relevance) and math.isfinite(logit)
        else Read(place=place, truncated=truncated)
        for place, (relevance, logit, truncated) in enumerate(
            zip(said.relevance, said.logit, said.truncated, strict=True)
        )
    ]
    if unread := sum(one.relevance is None for one in read):
        _log.warning("%d of %d texts were not read and come last", unread, len(read))
    # Scores are equal to five decimals: batches add the same numbers up in other orders.
    order = sorted(read, key=lambda one: (one.logit is None, -round(one.logit or 0.0, 5), one.place))
    if min_relevance is not None:
        order = [one for one in order if one.relevance is not None and one.relevance >= min_relevance]
    return order[:top_k]


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of an index that was found, with what a framework's document says of it."""

    candidate: Candidate
    degraded: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The relevance; None where the reranker did not read it."""
        return self.candidate.scores.relevance

    @property
    def metadata(self) -> dict[str, Any]:
        """The document's own metadata; where the passage stands; what the reranker said.

        `degraded` is there only where a stage did not do its work.
        """
        stored = self.candidate.chunk.payload()["metadata"]
        found = {key: value for key, value in stored.items() if key not in _INTERNAL}
        found["location"] = self.candidate.chunk.location
        found["rerank_logit"] = self.candidate.scores.logit
        found["rerank_truncated"] = self.candidate.truncated
        return found | ({"degraded": list(self.degraded)} if self.degraded else {})


def retrieve(
    rag: Rag, query: str, *, top_k: int | None = None, where: Where | None = None, relevant_only: bool = False
) -> list[Passage]:
    """Search, rerank, and keep the best.

    Args:
        rag: The index.
        query: A question or a few words.
        top_k: How many; None for `reranking.top_k`.
        where: Only passages whose metadata says so.
        relevant_only: Leave out what is below `reranking.threshold`, as an answer does.

    Raises:
        ConfigError: The threshold is a wanted precision, and the index has no calibration.
    """
    ranking = rag.search(query, top_k=top_k, where=where)
    if ranking.degraded:
        _log.warning("%s did not work: %s", ", ".join(ranking.degraded), "; ".join(ranking.notices))
    candidates: Sequence[Candidate] = ranking.candidates[: top_k or rag.settings.reranking.top_k]
    scored = any(one.scores.relevance is not None for one in candidates)
    if relevant_only and scored:
        if ranking.threshold is None:
            raise ConfigError(
                f"No threshold is known for {rag.settings.reranking.threshold}",
                hint="Run `crossrag calibrate`, or set reranking.threshold to a number",
            )
        candidates = [one for one in candidates if (one.scores.relevance or 0.0) >= ranking.threshold]
    return [Passage(candidate, ranking.degraded) for candidate in candidates]
