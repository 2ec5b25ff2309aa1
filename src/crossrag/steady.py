"""Searches that see every document whole: its old generation or its new one, never both, never none.

Which generations are in transition is the manifest's to say, how to leave them out the store's. A gate lets
one index be exchanged for another between two searches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .manifest import Manifest
    from .protocols import Store
    from .types import Rankings, SparseVector, Where

_FREE_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class SteadySearch:
    """A store's search beside an ingestion that may be running, in this thread's process or another."""

    store: Store
    manifest: Manifest

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`, of the documents as they were at one moment."""
        for _ in range(_FREE_ATTEMPTS):
            before = self.manifest.view()
            found = self.store.search(dense, sparse, limit=limit, where=where, hidden=before.hidden)
            if self.manifest.view().epoch == before.epoch:
                return found
        # Documents change faster than one can search: the next change waits for this one search.
        with self.manifest.held() as view:
            return self.store.search(dense, sparse, limit=limit, where=where, hidden=view.hidden)


class Gate:
    """Many may be inside, or one alone. Who wants to be alone keeps others out and waits for those inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def shared(self, until: float | None = None) -> Iterator[None]:
        """Be inside with others.

        Args:
            until: `time.monotonic()` value at which it is no longer waited for.

        Raises:
            TimeoutError: Somebody is still inside alone, or waits to be.
        """
        left = None if until is None else max(0.0, until - time.monotonic())
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed, left):
                raise TimeoutError("the index is being exchanged for another one")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._inside == 0)
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
