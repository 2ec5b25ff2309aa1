"""The reranker as LangChain's compressor and cross-encoder: documents or pairs in, scores out.

The bundled reranker builds on a first stage; for texts in no index it is made here, from these texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from crossrag.errors import ModelError
from crossrag.pipeline import Rag

from . import scoring

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks


class CrossEncoderCompressor(BaseDocumentCompressor):
    """Keeps the most relevant documents, best first, as copies with `metadata["relevance_score"]`.

    For `ContextualCompressionRetriever` and wherever a compressor is taken. A score in [0, 1] is a calibrated
    probability where the reranker is crossrag's own; None where a document could not be read.

    Args:
        rag: Whose models are used; it needs no index.
        reranker: In its place: a name as in `reranking.model`, or an object; None for that of the settings.
        top_n: Most documents.
        score_threshold: Least relevance; None keeps irrelevant ones too.
    """

    rag: Rag | None = Field(default=None, repr=False)
    reranker: Any = Field(default=None, repr=False)
    top_n: int = Field(default=6, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing is asked that could call back
    ) -> list[Document]:
        """The documents that are kept; those given stay as they are.

        Raises:
            UsageError: There is no reranker.
            ModelError: It failed.
        """
        scored = scoring.kept(scoring.best_first(self._models, query, documents), self.score_threshold)
        return [scoring.with_score(one) for one in scored[: self.top_n]]

    @cached_property
    def _models(self) -> Rag:
        return scoring.models(self.rag, self.reranker)


class CrossRagCrossEncoder(BaseCrossEncoder):
    """Scores pairs of question and text, for `CrossEncoderReranker` and wherever a cross-encoder is taken.

    Pairs of one question are scored together, because how rare a word is is counted among their texts.

    Args:
        rag: Whose models are used; it needs no index.
        reranker: In its place: a name as in `reranking.model`, or an object; None for that of the settings.
        score: `relevance` in [0, 1], or the raw `logit`.
    """

    def __init__(
        self,
        rag: Rag | None = None,
        *,
        reranker: Any = None,
        score: Literal["relevance", "logit"] = "relevance",
    ) -> None:
        self._models = scoring.models(rag, reranker)
        self._score = score

    def score(self, text_pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One finite score per pair, in order.

        Raises:
            UsageError: There is no reranker.
            ModelError: It failed, or gave no finite number: whoever sorts these scores would not notice.
        """
        grouped: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(text_pairs):
            grouped.setdefault(query, []).append(place)
        scores = [math.nan] * len(text_pairs)
        for query, places in grouped.items():
            said = self._models.rerank(query, [text_pairs[place][1] for place in places])
            for place, value in zip(places, getattr(said, self._score), strict=True):
                scores[place] = value
        if broken := sum(not math.isfinite(value) for value in scores):
            raise ModelError(f"The reranker gave no finite score for {broken} of {len(scores)} pairs")
        return scores
