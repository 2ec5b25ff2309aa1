"""The index of one tenant in a store that another index has open: an embedded one opens once a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.index import Index
from crossrag.opening import Pair

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.manifest import Manifest
    from crossrag.protocols import Store


class TenantIndex(Index):
    """As `Index`, for another tenant of the same folder or server; closing it leaves the store open.

    Args:
        whole: The index that holds the store.
        tenant: Whose documents are read and written.
    """

    def __init__(self, whole: Index, tenant: str) -> None:
        section = whole.settings.index.model_copy(update={"tenant": tenant})
        settings = whole.settings.model_copy(update={"index": section})
        super().__init__(
            settings,
            embedder=whole._embedder,  # noqa: SLF001 - of the same class
            sparse_encoder=whole._sparse_encoder,  # noqa: SLF001
            pair=_TenantPair(whole._pair, settings),  # noqa: SLF001
        )
        # Writers of one store take turns, whoever's documents they write.
        self._writing = whole._writing  # noqa: SLF001
        self._gate = whole._gate  # noqa: SLF001


class _TenantPair(Pair):
    """The tenant's part of another pair's store, and a manifest of its own beside the other's."""

    def __init__(self, whole: Pair, settings: Settings) -> None:
        super().__init__(
            settings,
            whole.folder,
            embedder=whole._embedder,  # noqa: SLF001 - of the same class
            sparse_encoder=whole._sparse_encoder,  # noqa: SLF001
        )
        self._whole = whole
        self._part_of: Store | None = None
        self._manifest_at: Path | None = None
        self._left: list[Manifest] = []
        """Of homes that the other pair has left: other threads may still be at them."""

    @property
    def is_shared(self) -> bool:
        return self._whole.is_shared

    @property
    def is_ours(self) -> bool:
        return self._whole.is_ours

    @property
    def home(self) -> Path:
        return self._whole.home

    @property
    def manifest(self) -> Manifest:
        """The one in the other pair's home, which may be another one than before."""
        with self._lock:
            at = self.manifest_file
            if self._manifest is not None and self._manifest_at != at:
                self._left.append(self._manifest)
                self._manifest = None
            self._manifest_at = at
            return super().manifest

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._whole.turn():
            yield

    def store(self, *, create: bool) -> Store:
        with self._lock:
            whole = self._whole.store(create=create)
            if self._store is None or self._part_of is not whole:
                self._store, self._part_of = whole.for_tenant(self.settings.index.tenant), whole
            return self._store

    def check_ours(self, store: Store) -> None:
        if self._part_of is not None and store is self._store:
            self._whole.check_ours(self._part_of)

    def leave(self, store: Store) -> None:
        if self._part_of is not None and store is self._store:
            self._whole.leave(self._part_of)

    def close(self) -> None:
        with self._lock:
            self._store = self._part_of = None  # its owner closes it
            left, self._left = self._left, []
            for one in left:
                one.close()
            super().close()
