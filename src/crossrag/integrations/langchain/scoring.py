"""LangChain documents and a question -> the documents best first, with their relevance.

Changes none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.documents import Document

from crossrag.config import load_settings
from crossrag.diversity import diversify
from crossrag.integrations import ranking
from crossrag.pipeline import Rag

if TYPE_CHECKING:
    from crossrag.types import Candidate

SCORE = "relevance_score"
"""Key of the metadata that holds the relevance, as LangChain's other rerankers write it."""
TRUNCATED = "rerank_truncated"
"""Key that is there, and true, where the reranker did not see the end of a text."""
_INTERNAL = ("generation", "minhash")


class Scored(NamedTuple):
    """A document and what the reranker says of it; None where it did not read it."""

    document: Document
    relevance: float | None
    truncated: bool = False
    """Whether its end was beyond what the reranker reads."""


def models(rag: Rag | None, reranker: object) -> Rag:
    """What holds the models. An index is opened only by whoever searches in it.

    Args:
        rag: Taken as it is.
        reranker: In its place, with the settings of this place: a name as in `reranking.model`, an object of
            that shape, or None for the reranker of the settings.
    """
    if rag is not None:
        return rag
    if reranker is None:
        return Rag.open()
    if isinstance(reranker, str):
        return Rag.open(reranking={"model": reranker})
    given: Any = reranker
    return Rag(load_settings().settings, reranker=given)


def best_first(rag: Rag, query: str, documents: Sequence[Document]) -> list[Scored]:
    """All documents; equals in their order, what has no score last.

    Raises:
        UsageError: There is no reranker.
        ModelError: It failed.
    """
    read = ranking.rerank(rag, query, [document.page_content for document in documents])
    return [Scored(documents[one.place], one.relevance, truncated=one.truncated) for one in read]


def kept(scored: Sequence[Scored], threshold: float | None) -> list[Scored]:
    """Those that reach the threshold; what was not read does not."""
    if threshold is None:
        return list(scored)
    return [one for one in scored if one.relevance is not None and one.relevance >= threshold]


def diverse(rag: Rag, scored: Sequence[Scored], *, count: int, lambda_mult: float) -> list[Scored]:
    """At most `count` by maximal marginal relevance, with vectors of the embedder of `rag`."""
    if len(scored) < 2:
        return list(scored[:count])
    vectors = rag.embedder.embed_documents([one.document.page_content for one in scored])
    relevance = [math.nan if one.relevance is None else one.relevance for one in scored]
    return list(diversify(scored, relevance, vectors, lambda_mult=lambda_mult, count=count))


def with_score(scored: Scored) -> Document:
    """A copy that holds the relevance in its metadata, and whether the end was not read."""
    document, relevance, truncated = scored
    cut = {TRUNCATED: True} if truncated else {}
    return document.model_copy(update={"metadata": {**deepcopy(document.metadata), SCORE: relevance, **cut}})


def of_candidate(candidate: Candidate) -> Document:
    """A passage of an index as LangChain has it: the keys of the stored form, and the relevance."""
    metadata = candidate.chunk.payload()["metadata"]
    for name in _INTERNAL:
        metadata.pop(name, None)
    return Document(
        id=candidate.chunk.id,
        page_content=candidate.chunk.text,
        metadata={**metadata, SCORE: candidate.scores.relevance}
        | ({TRUNCATED: True} if candidate.truncated else {}),
    )
