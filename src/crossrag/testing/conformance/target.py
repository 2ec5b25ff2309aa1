"""What is checked, as a small shape: texts in, positions with scores out; a corpus in, names of passages out.

A target is any object with `rank`, with `retriever`, or with both. Knows no library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Ranked(NamedTuple):
    """One text of a ranking."""

    position: int
    """Its place among the texts that were given, from 0."""
    score: float | None
    """None where the library gives none."""
    text: str | None = None
    """What the library itself says is at that position, where it gives texts back."""
    truncated: bool | None = None
    """Whether the library says that it was cut; None where it never says."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of the corpus that retrievers are given."""

    id: str
    text: str
    metadata: Mapping[str, str]


class Reranking(Protocol):
    """A reranker, for the checks.

    It may also have `changed: Sequence[int]`, the positions of documents that its last call has altered.
    """

    def rank(
        self, query: str, texts: Sequence[str], top_k: int
    ) -> Sequence[Ranked | tuple[int, float | None]]:
        """At most `top_k` pairs of position and score (or `Ranked`), best first."""
        ...


class Searching(Protocol):
    """A filled index, for the checks.

    It may also have `mmr(query, top_k, fetch_k, lambda_mult)`, which gives names as `search` does, and
    `close`.
    """

    def search(self, query: str, top_k: int, where: Mapping[str, str] | None = None) -> Sequence[str]:
        """Names of at most `top_k` passages, best first, only of those with this metadata."""
        ...


class Retrieving(Protocol):
    """A retriever, for the checks."""

    def retriever(self, passages: Sequence[Passage]) -> Searching:
        """An index of these passages and no others."""
        ...


Target = Reranking | Retrieving
"""What `conformance.run` takes."""


@dataclass(slots=True)
class DocumentTarget:
    """A library that ranks documents of its own kind, as a target.

    Args:
        documents: Texts to documents. Each must remember its position, in metadata or by name.
        run: Question, documents and `top_k` to documents, best first.
        read: What a document that came back says: position, score, text.
        snapshot: A document as a value that can be compared with a later one.
    """

    documents: Callable[[Sequence[str]], list[Any]]
    run: Callable[[str, list[Any], int], Sequence[Any]]
    read: Callable[[Any], Ranked]
    snapshot: Callable[[Any], Any] = deepcopy
    changed: list[int] = field(default_factory=list)
    """Positions of the documents that the last call has altered."""

    def rank(self, query: str, texts: Sequence[str], top_k: int) -> Sequence[Ranked]:
        """Make documents, rank them, read them; note which of the given ones are not as they were."""
        given = self.documents(texts)
        handed = list(given)
        before = [self.snapshot(document) for document in given]
        found = [self.read(document) for document in self.run(query, handed, top_k)]
        moved = {
            place for place, (one, other) in enumerate(zip(given, handed, strict=False)) if one is not other
        }
        self.changed = [
            place
            for place, document in enumerate(given)
            if place in moved or self.snapshot(document) != before[place]
        ]
        return found
