"""The seams of crossrag on one page. A backend is any object of one of these shapes; nothing is inherited.

Arrays are numpy; texts are plain strings; every method is synchronous and takes batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .types import (
        Chunk,
        Context,
        Rankings,
        Relevance,
        Scores,
        SparseVector,
        StoredPoint,
        Turn,
        View,
        Where,
    )


@runtime_checkable
class Embedder(Protocol):
    """Text to one dense vector of unit length. Queries and documents are different verbs."""

    @property
    def dimension(self) -> int:
        """Length d of every vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text would get another vector."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d], rows in the order of the texts."""
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d]."""
        ...


@runtime_checkable
class SparseEncoder(Protocol):
    """Text to weighted terms, for BM25 and its like. The store supplies the inverse document frequency."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text would get other terms or weights."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text; empty where a text has no terms."""
        ...

    def encode_query(self, text: str) -> SparseVector:
        """The question's terms."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Reads question and passage together and says how relevant the passage is.

    One that corrects what a first stage says has an attribute `residual`, which is True: texts that no search
    has found then get first-stage scores made for them. Wrappers hand it on, as None where there is none.
    """

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same pair would get another score."""
        ...

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """One relevance in [0, 1] per text, in the order of the texts.

        Args:
            query: The question. It keeps its tokens; passages are cut to fit, and that is reported.
            texts: Passages or sentences; may be empty.
            first_stage: Dense cosine and BM25 per text, for rerankers that are residuals over them.
            top_k: How many of the best matter; a reranker may spend less on the others.
            deadline: `time.monotonic()` value after which no further batch is started.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """Holds chunks with their vectors and finds them again; never those of another tenant."""

    @property
    def tenant(self) -> str:
        """Whose chunks these are; the empty name is the default tenant."""
        ...

    def for_tenant(self, tenant: str) -> Store:
        """The same open store for somebody else; closing either closes both."""
        ...

    def upsert(
        self, chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector]
    ) -> None:
        """Write chunks with their vectors; a chunk of the same id is replaced."""
        ...

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
        hidden: Collection[str] = (),
    ) -> Rankings:
        """Both rankings, at most `limit` each, unfused; a leg without a vector is empty.

        Every hit carries both scores, whichever leg found it; a leg without a vector scores 0.

        Args:
            dense: A question's vector, float32[d], or None.
            sparse: A question's terms, or None.
            limit: Most hits of each leg.
            where: Only chunks whose metadata says so.
            hidden: Generations in transition; their chunks are left out before anything is ranked.
        """
        ...

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """The chunks of the same document and generation at most `radius` positions away, in order."""
        ...

    def scan(
        self,
        *,
        limit: int = 256,
        after: str | None = None,
        where: Where | None = None,
        with_vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """Every chunk in ascending order of id, hidden ones too; `upsert` takes back what it gives.

        Args:
            limit: How many are fetched at a time; memory grows with it, the result does not.
            after: Go on behind this id, which need not exist any more.
            where: Only chunks whose metadata says so.
            with_vectors: Whether to fetch the vectors too.
        """
        ...

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """Remove a document's chunks, but for those of one generation where that is given."""
        ...

    def count(self, document_id: str | None = None) -> int:
        """Number of chunks, of one document or in all."""
        ...

    def flush(self) -> None:
        """Return when everything written so far survives a power cut."""
        ...

    def close(self) -> None:
        """Flush and let go of the index. Closing twice is fine."""
        ...


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store on a server, under a name that can come to mean another index while this one is open.

    From then on, IndexMissingError says that the opened one is gone.
    """

    @property
    def identity(self) -> str:
        """Of what was opened; no other index under the name has or had it."""
        ...

    @property
    def notices(self) -> Sequence[str]:
        """What could not be had while it was written, in words."""
        ...

    def view(self) -> View:
        """What searches from elsewhere must leave out; where nobody has told, nothing."""
        ...

    def tell(self, view: View) -> None:
        """In one step, let them leave that out from now on."""
        ...

    def others(self) -> int:
        """Number of chunks of all other tenants in it."""
        ...

    def take_over(self) -> None:
        """In one step, let the name mean this index; what it meant before is deleted. Can be repeated."""
        ...


@runtime_checkable
class Grounder(Protocol):
    """Reads claim and evidence together and says whether the evidence supports the claim."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same pair would get another score."""
        ...

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One probability in [0, 1] per pair of evidence and claim, in order; NaN where there is none."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Writes the answer from the context alone, citing sources as `[n]`."""

    @property
    def fingerprint(self) -> str:
        """Names backend and model, such as `openai:gpt-4o-mini`."""
        ...

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """Pieces of text. Raises GeneratorError, never ends early in silence.

        One that waits for a server may ask `crossrag.caller` whether anybody still waits for it.
        """
        ...
