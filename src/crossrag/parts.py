"""What works on a question, by name: a `Rag` is one such object, and makes each part at its first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .calibrating import Calibrated
    from .config import Settings
    from .index import Index
    from .protocols import Embedder, Generator, Grounder, Reranker, SparseEncoder


class Finding(Protocol):
    """What finding passages takes; a `Rag` is one."""

    @property
    def settings(self) -> Settings:
        """All of them."""
        ...

    @property
    def index(self) -> Index:
        """Where passages are searched."""
        ...

    @property
    def embedder(self) -> Embedder:
        """For the dense leg."""
        ...

    @property
    def sparse_encoder(self) -> SparseEncoder:
        """For the sparse leg."""
        ...

    @property
    def reranker(self) -> Reranker | None:
        """None where first-stage order is wanted."""
        ...

    @property
    def complete(self) -> Callable[[str], str] | None:
        """Asks a language model; None where there is none."""
        ...

    @property
    def count_tokens(self) -> Callable[[str], int]:
        """How the model that reads the context counts."""
        ...

    @property
    def calibrated(self) -> Calibrated | None:
        """What relevance means for this index, where that was found out."""
        ...


class Parts(Finding, Protocol):
    """What answering a question takes; a `Rag` is one."""

    @property
    def generator(self) -> Generator:
        """Writes the answer."""
        ...

    @property
    def fallback(self) -> Generator | None:
        """Answers when a language model is down."""
        ...

    @property
    def last_resort(self) -> Generator:
        """Quotes sentences when no model is left."""
        ...

    @property
    def grounder(self) -> Grounder | None:
        """Checks what the answer says."""
        ...
