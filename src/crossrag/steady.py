"""Searches that see every document whole: its old generation or its new one, never both, never none.

Which generations are in transition is the manifest's to say, or, to those who have not the manifest, the
server's; how to leave them out is the store's. A gate lets one index be exchanged for another between two
searches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import StoreError
from .types import Rankings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from .protocols import SharedStore, Store
    from .types import SparseVector, View, Where


class Transitions(Protocol):
    """Who says what a search must leave out, such as a manifest."""

    @property
    def attempts(self) -> int:
        """How often to search beside changes before `held` is asked for."""
        ...

    def known(self) -> View:
        """What was so when it was last looked at; cheap."""
        ...

    def view(self) -> View:
        """What is so now."""
        ...

    def held(self) -> AbstractContextManager[View]:
        """What stays so until the block ends."""
        ...


class Elsewhere:
    """As the writer of an index on a server tells it there; its manifest is in another folder or machine."""

    attempts = 20
    """A change is three small requests of the writer's, and the next one needs documents: few suffice."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self._last: View | None = None

    def known(self) -> View:
        """Looked at again only after the search, which saves one request of two."""
        return self._last or self.view()

    def view(self) -> View:
        """Asks the server."""
        self._last = view = self.store.view()
        return view

    @contextmanager
    def held(self) -> Iterator[View]:
        """No: who writes elsewhere waits for nobody here."""
        raise StoreError(
            f"Documents changed beside each of {self.attempts} searches", hint="Ask again in a moment"
        )
        yield


@dataclass(frozen=True, slots=True)
class SteadySearch:
    """A store's search beside an ingestion that may be running, in this thread's process or another."""

    store: Store
    transitions: Transitions

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`, of the documents as they were at one moment."""

        def found(view: View) -> Rankings:
            if view.nothing:
                return Rankings((), ())
            return self.store.search(dense, sparse, limit=limit, where=where, hidden=view.hidden)

        before = self.transitions.known()
        for _ in range(self.transitions.attempts):
            seen = found(before)
            # What was so before and after was so meanwhile: no epoch comes twice.
            after = self.transitions.view()
            if after.epoch == before.epoch:
                return seen
            before = after
        # Documents change faster than one can search: the next change waits for this one search.
        with self.transitions.held() as view:
            return found(view)


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
