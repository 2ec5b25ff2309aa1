"""A place -> the store and the manifest that belong together: opened, followed, exchanged, closed.

Embedded, both lie in one folder, which one process has at a time. On a server, a collection's name may come
to mean another collection at any moment; an identity that it shares with a folder says which belong together.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import assembly, places
from .errors import FingerprintError, IndexMissingError, StoreError, StoreLockedError, UsageError
from .manifest import Manifest, writer_lock
from .steady import Elsewhere

if TYPE_CHECKING:
    from .config import Settings
    from .protocols import Embedder, SharedStore, SparseEncoder, Store
    from .steady import Transitions
    from .types import View

_PATIENCE = 30.0
"""Seconds to wait for another writer."""


class Pair:
    """Store and manifest of an embedded index, in `folder` or a subfolder of it.

    Args:
        settings: How it is made.
        folder: Where it is.
        embedder: Gives the embedder, which is made when it is first needed.
        sparse_encoder: Likewise.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        embedder: Callable[[], Embedder],
        sparse_encoder: Callable[[], SparseEncoder],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._lock = threading.RLock()
        self._store: Store | None = None
        self._held: Store | None = None
        """An index of other settings, opened for its lock alone."""
        self._manifest: Manifest | None = None
        self._elsewhere: Elsewhere | None = None

    @property
    def is_shared(self) -> bool:
        """Whether others search it who have not its folder."""
        return False

    @property
    def is_ours(self) -> bool:
        """Whether what is open is written from this folder, so that its manifest knows all."""
        return True

    @property
    def home(self) -> Path:
        """The folder that holds its files now."""
        return places.home(self.folder)

    @property
    def manifest_file(self) -> Path:
        """Where the manifest is, or will be."""
        return self.home / assembly.manifest_name(self.settings)

    @property
    def manifest(self) -> Manifest:
        """What is indexed."""
        with self._lock:
            if self._manifest is None:
                tell = partial(self._tell, self.home) if self.is_shared else None
                self._manifest = Manifest(self.manifest_file, tell=tell)
            return self._manifest

    def transitions(self, store: Store) -> Transitions:
        """Who says what a search in this store must leave out."""
        if not self.is_shared or self.is_ours:
            return self.manifest
        with self._lock:
            if self._elsewhere is None or self._elsewhere.store is not store:
                self._elsewhere = Elsewhere(cast("SharedStore", store))
            return self._elsewhere

    def _tell(self, home: Path, view: View) -> None:
        """Only the collection that this manifest is of: another one may have come in its place meanwhile."""
        store = cast("SharedStore", self.store(create=False))
        if store.identity != places.identity(home):
            raise IndexMissingError(
                f"{assembly.place(self.settings)} was put in another's place while it was written",
                hint="Run the command again",
            )
        store.tell(view)

    @property
    def fingerprint(self) -> dict[str, str]:
        """What everything in it is made with, part by part."""
        return assembly.fingerprint(
            self.settings, embedder=self._embedder(), sparse_encoder=self._sparse_encoder()
        )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only process that writes: it is, as long as it has the store open."""
        yield

    def store(self, *, create: bool) -> Store:
        """The store, opened at first use."""
        with self._lock:
            if self._store is None:
                if create and not (self.manifest.entries() or self.manifest.transitions()):
                    places.clear_unfinished(self.home)
                self._store = assembly.store(
                    placed(self.settings, self.home),
                    dimension=self._embedder().dimension,
                    fingerprint=self.fingerprint,
                    create=create,
                )
                places.sweep(self.folder)
            return self._store

    def hold(self) -> None:
        """Open the store whatever it was made with, so that nobody else can."""
        self._held = assembly.store(placed(self.settings, self.home))

    def check_ours(self, store: Store) -> None:
        """A folder is its owner's; there is nothing to ask."""

    def check_alone(self) -> None:
        """Before all of it is thrown away or built anew.

        Raises:
            UsageError: It holds documents of other tenants too.
        """
        assembly.check_no_other_tenant(self.settings, self.home)

    def leave(self, store: Store) -> None:
        """What this is told is gone; nobody can take an embedded index away."""

    def beside(self, folder: Path) -> Pair:
        """One with the same settings and models in another folder."""
        return type(self)(self.settings, folder, embedder=self._embedder, sparse_encoder=self._sparse_encoder)

    def replace_by(self, fresh: Pair) -> None:
        """Put what was built beside this in its place, in one step; it must be whole."""
        fresh.close()  # flushes: what is switched to is on disk
        places.switch(self.folder, fresh.folder)
        self.close()
        places.sweep(self.folder)

    def clear(self) -> None:
        """Throw everything away, unless another process has it open; a damaged index may go."""
        if (self.home / "fingerprint.json").is_file():
            try:
                self.store(create=True)
            except StoreLockedError:
                raise
            except (FingerprintError, StoreError):
                pass
        self.close()
        places.clear_all(self.folder)

    def close(self) -> None:
        """Let go of the files; the next use opens them again."""
        with self._lock:
            manifest, self._manifest = self._manifest, None
            stores = self._store, self._held
            self._store = self._held = None
            if manifest is not None:
                manifest.close()
            for one in stores:
                if one is not None:
                    one.close()


class SharedPair(Pair):
    """A collection on a server, and in `folder` what is known of it here.

    The collection that the name means decides: a folder whose identity is another one is not its folder. So
    moving the name is the one step in which an index is exchanged, wherever the rest of it is cut short.
    """

    _beside = False
    """Whether the collection is one that the name does not mean yet."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        embedder: Callable[[], Embedder],
        sparse_encoder: Callable[[], SparseEncoder],
    ) -> None:
        super().__init__(settings, folder, embedder=embedder, sparse_encoder=sparse_encoder)
        self._home: Path | None = None
        self._left: list[Store | Manifest] = []
        """Of indexes that were replaced: other threads may still be at them."""

    @property
    def is_shared(self) -> bool:
        """Whoever reaches the server may search it."""
        return True

    @property
    def is_ours(self) -> bool:
        """So it is where a folder here has the collection's identity."""
        return self._home is not None

    @property
    def home(self) -> Path:
        """The folder that belongs to the collection, once that is open."""
        return self._home or places.home(self.folder)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other processes with this folder out, and finish a switch that was cut short."""
        with writer_lock(self.folder / "writer.lock", seconds=_PATIENCE):
            if not self._beside:
                self._follow()
            yield

    def store(self, *, create: bool) -> Store:
        """The collection, and with it the folder that it belongs to."""
        with self._lock:
            if self._store is None:
                store = self._opened(create=create)
                before, self._home = self.home, places.identified(self.folder, store.identity)
                if self._manifest is not None and self.home != before:
                    self._left.append(self._manifest)
                    self._manifest = None
                self._store = store
            return self._store

    def hold(self) -> None:
        """No process can keep others from a server, and the turn keeps other writers out; but is it ours?"""
        found = assembly.store(self.settings)
        try:
            self.check_ours(found)
        finally:
            found.close()

    def check_ours(self, store: Store) -> None:
        """Only from where a collection is known may it be written: elsewhere all of it would be unknown.

        Raises:
            UsageError: It was made from another folder, or another machine.
        """
        if cast("SharedStore", store).identity != places.identity(self.home):
            raise UsageError(
                f"{assembly.place(self.settings)} was made from another folder or machine,"
                f" and its {store.count()} chunks are not known here",
                hint="Ingest where they came from, choose another qdrant.collection, "
                "or begin anew from here with `crossrag ingest --rebuild PATH`",
            )

    def check_alone(self) -> None:
        """Ask the server too: what others wrote from elsewhere is not known here.

        Raises:
            UsageError: The collection holds documents of other tenants too.
        """
        super().check_alone()
        try:
            meant = cast("SharedStore", assembly.store(self.settings))
        except IndexMissingError:
            return
        try:
            if others := meant.others():
                raise UsageError(
                    f"{assembly.place(self.settings)} holds {others} chunks of other tenants too",
                    hint="This would throw theirs away: choose another qdrant.collection, "
                    "or delete theirs first, from where they were ingested",
                )
        finally:
            meant.close()

    def leave(self, store: Store) -> None:
        """Open anew what the name means now, since this store's collection is gone."""
        with self._lock:
            if self._store is store:
                self._left += [one for one in (self._store, self._manifest) if one is not None]
                self._store = self._manifest = self._home = None

    def beside(self, folder: Path) -> SharedPair:
        """A collection that the name does not mean yet."""
        other = SharedPair(
            self.settings, folder, embedder=self._embedder, sparse_encoder=self._sparse_encoder
        )
        other._beside = True
        return other

    def replace_by(self, fresh: Pair) -> None:
        """The name first, which decides; what follows is made good by the next turn."""
        cast("SharedStore", fresh.store(create=False)).take_over()
        super().replace_by(fresh)

    def clear(self) -> None:
        """Put an empty collection in the old one's place, whatever that was made with and by whom."""
        folder = places.beside(self.folder)
        shutil.rmtree(folder, ignore_errors=True)
        fresh = self.beside(folder)
        try:
            fresh.store(create=True)
            self.replace_by(fresh)
        finally:
            fresh.close()

    def close(self) -> None:
        """Let go of what was replaced, too."""
        with self._lock:
            left, self._left = self._left, []
            self._home = None
            for one in left:
                one.close()
            super().close()

    def _opened(self, *, create: bool) -> SharedStore:
        known = len(self.manifest.entries()) if self.manifest_file.is_file() else 0
        try:
            store = assembly.store(
                self.settings,
                dimension=self._embedder().dimension,
                fingerprint=self.fingerprint,
                # An empty collection is not the one that the manifest knows.
                create=create and not known,
                beside=self._beside,
                identity=places.identify(self.home) if create else places.identity(self.home),
            )
        except IndexMissingError:
            if not known:
                raise
            raise IndexMissingError(
                f"{assembly.place(self.settings)} is gone, with the {known} documents in it",
                hint="Check qdrant.url, or write them again with `crossrag ingest --rebuild PATH`",
            ) from None
        return cast("SharedStore", store)

    def _follow(self) -> None:
        """Make the folder of the collection that the name means now the one that counts."""
        with self._lock:
            try:
                meant = cast("SharedStore", assembly.store(self.settings))
            except IndexMissingError:
                return
            try:
                if self._store is not None and cast("SharedStore", self._store).identity != meant.identity:
                    self.leave(self._store)
                home = places.identified(self.folder, meant.identity)
                if home is not None and home != places.home(self.folder):
                    meant.take_over()  # once more: the collection that it replaced may be there
                    places.switch(self.folder, home)
                places.sweep(self.folder)
            finally:
                meant.close()


def pair(
    settings: Settings, *, embedder: Callable[[], Embedder], sparse_encoder: Callable[[], SparseEncoder]
) -> Pair:
    """What the settings say, embedded or on a server."""
    kind = SharedPair if settings.store == "qdrant" else Pair
    return kind(settings, assembly.index_folder(settings), embedder=embedder, sparse_encoder=sparse_encoder)


def placed(settings: Settings, folder: Path) -> Settings:
    """The same settings for an index in another folder."""
    return settings.model_copy(update={"index": settings.index.model_copy(update={"path": folder})})
