"""A collection that something else made -> what the pipeline asks of an index. It is read, never written.

Its passages are searched by the vectors that are there and reranked as any others. What they were made with,
nobody but the caller knows; so the embedder has to be named.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from . import assembly
from .errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .config import Settings
    from .protocols import Embedder, Store
    from .types import Chunk, Rankings, SparseVector, Where


class AdoptedIndex:
    """In the place of an `Index`; what writes or manages one is refused.

    Args:
        settings: Where the collection is: `index.store = adopted`, `[qdrant]` and `[adopt]`.
        embedder: Gives the embedder, which is made when it is first needed.
    """

    def __init__(self, settings: Settings, *, embedder: Callable[[], Embedder]) -> None:
        self.settings = settings
        self._embedder = embedder
        self._store: Store | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Of nothing: there is no file of an adopted collection here."""
        return assembly.index_folder(self.settings)

    home = folder

    @property
    def fingerprint(self) -> dict[str, str]:
        """What is known of its making."""
        return {"embedder": self._embedder().fingerprint, "chunking": f"of {assembly.place(self.settings)}"}

    @property
    def store(self) -> Store:
        """The collection, opened at first use.

        Raises:
            IndexMissingError: There is none.
            FingerprintError: Its vectors are of another length than the embedder's.
        """
        with self._lock:
            if self._store is None:
                self._store = assembly.store(self.settings, dimension=self._embedder().dimension)
            return self._store

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`."""
        return self.store.search(dense, sparse, limit=limit, where=where)

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """As `Store.neighbours`."""
        return self.store.neighbours(chunk, radius)

    def count(self) -> int:
        """Passages in the collection now."""
        return self.store.count()

    @contextmanager
    def reading(self, until: float | None = None) -> Iterator[None]:  # noqa: ARG002 - as an index's
        """Whoever writes into the collection does so whether it is read or not."""
        yield

    @property
    def manifest(self) -> NoReturn:
        """There is none."""
        self._refuse()

    def ingest(self, *_: Any, **__: Any) -> NoReturn:
        """Refused, and so are the others."""
        self._refuse()

    plan = ingest_files = indexer = only_writer = filling = exchange = beside = ingest

    def close(self) -> None:
        """Let go of the connection; closing twice is fine, and the next use opens it again."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{assembly.place(self.settings)} was adopted: it is read, never written or managed",
            hint="Use what made it, or make an index of crossrag's with `crossrag ingest`",
        )


def arguments(
    collection: str,
    *,
    url: str,
    embedder: str | None,
    adopt: Mapping[str, str | None],
    sections: Mapping[str, Mapping[str, Any]],
) -> dict[str, Mapping[str, Any]]:
    """What `load_settings` takes for a collection that is adopted; `sections` are settings beside."""
    own: dict[str, dict[str, Any]] = {
        "index": {"store": assembly.ADOPTED},
        "qdrant": {"url": url, "collection": collection},
        "adopt": {name: value for name, value in adopt.items() if value is not None},
        "embedder": {} if embedder is None else {"model": embedder},
    }
    return {name: {**sections.get(name, {}), **own.get(name, {})} for name in {**own, **sections}}
