"""A Reranker that many requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossrag.protocols import Reranker


def shared(model: Reranker, *, batch_tokens: int) -> Reranker:  # noqa: ARG001
    """The model as it is."""
    return model
