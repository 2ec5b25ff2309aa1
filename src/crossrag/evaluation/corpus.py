"""A folder of judged passages (BEIR) -> a `Rag` that searches it exactly, in memory, one chunk per passage.

What reads, fuses and reranks is the pipeline's own; only the index is another, so nothing is cut and nothing
is approximate, and figures can be set beside published ones.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from crossrag.errors import UsageError
from crossrag.pipeline import Rag
from crossrag.training.judged import Passage, read_collections
from crossrag.training.mining import Searcher
from crossrag.types import Chunk, Hit, Rankings, SparseVector, Where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.config import Settings
    from crossrag.index import Index
    from crossrag.protocols import Embedder, SparseEncoder

Progress = Callable[[int, int], None]


class ExactIndex:
    """What the pipeline asks of an index, over passages in memory. They are embedded at the first question.

    Args:
        passages: All of them.
        embedder: Makes the embedder when it is needed.
        sparse_encoder: The same for terms.
        progress: Called with passages embedded and all.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        embedder: Callable[[], Embedder],
        sparse_encoder: Callable[[], SparseEncoder],
        progress: Progress = lambda *_: None,
    ) -> None:
        self._chunks = [_chunk(passage) for passage in passages]
        self._passages = passages
        self._embedder, self._sparse_encoder, self._progress = embedder, sparse_encoder, progress
        self._searcher: Searcher | None = None
        self._only: NDArray[np.bool_] | None = None
        self._lock = threading.Lock()

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`, exactly.

        Raises:
            UsageError: There is a filter: passages of a corpus have no metadata.
        """
        import numpy as np

        if where:
            raise UsageError("Passages of a corpus have no metadata", hint="Leave the filter out")
        cosines, scores = self._made().legs(dense, sparse)
        legs = []
        for wanted, values in ((dense, cosines), (sparse, np.where(scores > 0, scores, -np.inf))):
            reach = min(limit, len(values)) if wanted is not None else 0
            allowed = values if self._only is None else np.where(self._only, values, -np.inf)
            order = np.lexsort((np.arange(len(values)), -allowed))[:reach]
            legs.append([int(position) for position in order if np.isfinite(allowed[position])])
        hits = {
            position: Hit(self._chunks[position], float(cosines[position]), float(scores[position]))
            for leg in legs
            for position in leg
        }
        nearest, worded = (tuple(hits[position] for position in leg) for leg in legs)
        return Rankings(nearest, worded)

    def restrict(self, ids: Collection[str] | None) -> None:
        """Search only these passages from now on, all of them if None: for tasks that give the candidates."""
        import numpy as np

        wanted = None if ids is None else set(ids)
        self._only = None if wanted is None else np.asarray([chunk.id in wanted for chunk in self._chunks])

    def count(self) -> int:
        """Number of passages."""
        return len(self._chunks)

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:  # noqa: ARG002 - as a store's
        """A passage of a corpus stands alone."""
        return [chunk]

    @contextmanager
    def reading(self, until: float | None = None) -> Iterator[None]:  # noqa: ARG002 - as an index's
        """Nobody writes."""
        yield

    @property
    def store(self) -> ExactIndex:
        """Itself: there is nothing in transition."""
        return self

    def close(self) -> None:
        """Nothing to let go of."""

    def _made(self) -> Searcher:
        with self._lock:
            if self._searcher is None:
                done = 0

                def step(count: int) -> None:
                    nonlocal done
                    done += count
                    self._progress(done, len(self._passages))

                self._searcher = Searcher(
                    self._passages,
                    embedder=self._embedder(),
                    sparse_encoder=self._sparse_encoder(),
                    progress=step,
                )
            return self._searcher


def open_corpus(folder: Path, settings: Settings, *, progress: Progress = lambda *_: None) -> Rag:
    """A Rag over the folder's passages. Ids of passages are the sources of its chunks.

    Raises:
        UsageError: The folder is not of BEIR's layout.
    """
    (collection,) = read_collections(folder, splits=[])
    # No calibration of somebody's index is meant for it.
    elsewhere = settings.index.model_copy(update={"path": folder / ".no-index"})
    rag = Rag(settings.model_copy(update={"index": elsewhere}))
    exact = ExactIndex(
        collection.passages,
        embedder=lambda: rag.embedder,
        sparse_encoder=lambda: rag.sparse_encoder,
        progress=progress,
    )
    rag.index = cast("Index", exact)
    return rag


def digest(folder: Path) -> str:
    """SHA-256 of the folder's passages, whether they are compressed or not."""
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (file := folder / name).is_file():
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as data:
                return hashlib.file_digest(data, "sha256").hexdigest()
    raise UsageError(f"{folder} has no corpus", hint="It needs corpus.jsonl")


def _chunk(passage: Passage) -> Chunk:
    return Chunk(
        id=passage.id,
        document_id=passage.id,
        source=passage.id,
        text=passage.text,
        start=0,
        end=len(passage.text),
        position=0,
        title=passage.title,
    )
