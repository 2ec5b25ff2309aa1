"""Index: store and manifest of one place, kept equal to the documents. Knows nothing of answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import assembly, chunking, files, indexing, likeness, places, planning, registry
from .errors import FingerprintError, StoreError, StoreLockedError, UsageError
from .manifest import Manifest, writer_lock
from .planning import Plan, Selection
from .steady import Gate, SteadySearch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .config import Settings
    from .files import File
    from .indexing import Progress
    from .protocols import Embedder, SparseEncoder, Store
    from .types import Chunk, Document, IngestReport, Rankings, SparseVector, Where

_PARSING = "1"
"""Another number whenever the same bytes give another text: documents are then read again, by themselves."""

_EVERYTHING = Selection()
_STORES_WITH_A_LOCK = {"edge"}
"""They belong to one process while they are open; of others, only the manifest can say who may write."""
_PATIENCE = 30.0
"""Seconds to wait for another writer."""


def _silent(_: Progress) -> None:
    return None


class Index:
    """What is indexed at `settings.index.path`. Threads may search while one writes; writers take turns.

    Args:
        settings: Where it is and how it is made.
        embedder: Gives the embedder, which is made when it is first needed.
        sparse_encoder: Likewise.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embedder: Callable[[], Embedder],
        sparse_encoder: Callable[[], SparseEncoder],
    ) -> None:
        self.settings = settings
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._opening = threading.RLock()
        self._writing = threading.RLock()
        self._gate = Gate()
        self._store: Store | None = None
        self._held: Store | None = None
        """An index of other settings, opened for its lock alone."""
        self._manifest: Manifest | None = None
        self._counted: tuple[int, int] | None = None
        """Epoch of the manifest, and number of passages then."""

    # --- reading

    @property
    def home(self) -> Path:
        """The folder that holds its files now."""
        return places.home(self._folder)

    @property
    def _folder(self) -> Path:
        return assembly.index_folder(self.settings)

    @property
    def _manifest_file(self) -> Path:
        return self.home / assembly.manifest_name(self.settings)

    @property
    def store(self) -> Store:
        """The index, which must exist."""
        return self._opened(create=False)

    @property
    def manifest(self) -> Manifest:
        """What is indexed."""
        with self._opening:
            if self._manifest is None:
                self._manifest = Manifest(self._manifest_file)
            return self._manifest

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`; sees every document whole, also while documents are written."""
        return SteadySearch(self.store, self.manifest).search(dense, sparse, limit=limit, where=where)

    def count(self) -> int:
        """Passages in the store, counted once for each state of the manifest: an engine counts one by one."""
        epoch = self.manifest.view().epoch
        counted = self._counted
        if counted is None or counted[0] != epoch:
            self._counted = counted = epoch, self.store.count()
        return counted[1]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Until the block ends, this index is not exchanged for another one."""
        with self._gate.shared():
            yield

    # --- writing

    def plan(
        self,
        roots: Sequence[Path],
        selection: Selection = _EVERYTHING,
        *,
        progress: Callable[[Progress], None] = _silent,
    ) -> Plan:
        """What `ingest` would do; writes nothing, and needs no index."""
        roots = _existing(roots)
        found = _collected(roots, selection)
        known = self.manifest.entries() if self._manifest_file.is_file() else {}
        wanted = {file.document_id for file in found.files}
        prunable = known if selection.prune else ()
        plan = planning.compare(
            found.files,
            known,
            gone=[one for one in prunable if one not in wanted and files.is_below(one, roots)],
            recipe=self.recipe,
            checksum=selection.checksum,
            progress=lambda done, total, source: progress(
                indexing.Progress(stage="comparing", done=done, total=total, source=source)
            ),
        )
        return plan.with_found(found)

    def ingest(
        self,
        roots: Sequence[Path],
        selection: Selection = _EVERYTHING,
        *,
        rebuild: bool = False,
        fail_fast: bool = False,
        progress: Callable[[Progress], None] = _silent,
    ) -> IngestReport:
        """Make the index equal to the files under `roots`; see `Rag.ingest`."""
        with self._turn():
            if rebuild:
                roots = _existing(roots)
                _refuse_nothing(_collected(roots, selection), roots)
                self._drop()
            plan = self.plan(roots, selection, progress=progress)
            if plan == Plan() and not self.manifest.entries():
                _refuse_nothing(files.Found((), ()), roots)
            return self.indexer().run(plan, fail_fast=fail_fast, progress=progress)

    def ingest_files(
        self, wanted: Sequence[File], *, prune: bool = True, progress: Callable[[Progress], None] = _silent
    ) -> IngestReport:
        """Make the index hold these files, and no others where it is pruned."""
        with self._turn():
            indexer = self.indexer()
            known = self.manifest.entries()
            ids = {file.document_id for file in wanted}
            gone = [one for one in known if prune and one not in ids]
            plan = planning.compare(wanted, known, gone=gone, recipe=self.recipe)
            return indexer.run(plan, progress=progress)

    @contextmanager
    def filling(self) -> Iterator[Store]:
        """The store of an index that holds nothing, made if there is none; its manifest is to be filled too.

        Raises:
            UsageError: There are documents in it already.
        """
        with self._turn():
            if self._manifest_file.is_file() and self.manifest.entries():
                raise UsageError(
                    f"The index at {self.settings.index.path} is not empty", hint="Choose another --index"
                )
            indexer = self.indexer()
            indexer.recover()
            if count := self.store.count():
                raise UsageError(
                    f"The index at {self.settings.index.path} holds {count} chunks that nobody knows",
                    hint="Run `crossrag repair`, or choose another --index",
                )
            yield self.store

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only one to write, among the threads of this process and other processes."""
        with self._writing:
            if self.settings.store in _STORES_WITH_A_LOCK:
                yield
                return
            with writer_lock(self.home / "writer.lock", seconds=_PATIENCE):
                yield

    @contextmanager
    def only_writer(self, *, foreign: bool = False) -> Iterator[None]:
        """Keep other writers out, of this process and others, until the block ends.

        Args:
            foreign: Hold also an index that was made with other settings, which cannot be used.

        Raises:
            IndexMissingError: There is no index.
            StoreLockedError: Another process has it open.
        """
        with self._turn():
            try:
                self._opened(create=False)
            except FingerprintError:
                if not foreign:
                    raise
                self._hold()
            yield

    def exchange(self, switch: Callable[[], None]) -> None:
        """Let searches end, switch to the index that was built beside this one, and let them go on there."""
        with self._gate.alone():
            switch()
            self._close()
            places.sweep(self._folder)

    def beside(self, folder: Path) -> Index:
        """An index with the same settings and models in another folder."""
        return Index(
            placed(self.settings, folder), embedder=self._embedder, sparse_encoder=self._sparse_encoder
        )

    def indexer(self) -> indexing.Indexer:
        """What writes documents into this index, which is made if there is none."""
        places.check_room(self.home, 0)
        store = self._opened(create=True)
        self._refuse_unknown(store)
        return indexing.Indexer(
            store=store,
            manifest=self.manifest,
            embedder=self._embedder(),
            sparse_encoder=self._sparse_encoder(),
            recipe=indexing.Recipe(
                split=self._split,
                fingerprint=self.recipe,
                reading=lambda: indexing.reading_by(assembly.loader(self.settings)),
            ),
            room=lambda size: places.check_room(self.home, size),
        )

    @property
    def fingerprint(self) -> dict[str, str]:
        """What everything in it is made with, part by part."""
        return assembly.fingerprint(
            self.settings, embedder=self._embedder(), sparse_encoder=self._sparse_encoder()
        )

    @property
    def recipe(self) -> str:
        """Whatever a document's chunks depend on beside its file."""
        cut = self.settings.chunking
        cutting = chunking.fingerprint(cut.size, cut.overlap, cut.unit, assembly.CHUNK_TOKENIZER)
        fields = "".join(f" field:{name}" for name in self.settings.loading.fields)
        return f"parsing:{_PARSING}{fields} {cutting} {likeness.FINGERPRINT}"

    # --- life

    def close(self) -> None:
        """Let go of the files; closing twice is fine, and the next use opens them again."""
        with self._gate.alone():
            self._close()

    def _close(self) -> None:
        with self._opening:
            store, self._store = self._store, None
            self._counted = None
            manifest, self._manifest = self._manifest, None
            if manifest is not None:
                manifest.close()
            for one in (store, self._held):
                if one is not None:
                    one.close()
            self._held = None

    def _opened(self, *, create: bool) -> Store:
        with self._opening:
            if self._store is None:
                home = self.home
                if create and not (self.manifest.entries() or self.manifest.transitions()):
                    places.clear_unfinished(home)
                self._store = self._assembled(create=create)
                places.sweep(self._folder)
            return self._store

    def _assembled(self, *, create: bool, replace: bool = False) -> Store:
        embedded = self.settings.store != "qdrant"
        return assembly.store(
            placed(self.settings, self.home) if embedded else self.settings,
            embedder=self._embedder(),
            sparse_encoder=self._sparse_encoder(),
            create=create,
            replace=replace,
        )

    def _hold(self) -> None:
        """Open the store by the fingerprint that it has, so that nobody else can."""
        home = self.home
        fingerprint = json.loads((home / "fingerprint.json").read_text(encoding="utf-8"))
        self._held = registry.load(
            "stores", self.settings.index.store, path=home, dimension=1, fingerprint=fingerprint
        )

    def _drop(self) -> None:
        """Throw everything away, unless another process has it open; a damaged index may go."""
        assembly.check_no_other_tenant(self.settings, self.home)
        if (self.home / "fingerprint.json").is_file():
            try:
                self._opened(create=True)
            except StoreLockedError:
                raise
            except (FingerprintError, StoreError):
                pass
        with self._gate.alone():
            self._close()
            places.clear_all(self._folder)
            if self.settings.store == "qdrant":
                # Another collection takes the place of the old one, whatever that was made with.
                self._store = self._assembled(create=True, replace=True)

    def _refuse_unknown(self, store: Store) -> None:
        """What another machine wrote is no leftover: a server's points are known where they came from.

        Raises:
            UsageError: The collection holds chunks, and nothing is known here of any document.
        """
        if self.settings.store in _STORES_WITH_A_LOCK or self.manifest.entries():
            return
        if not self.manifest.transitions() and (count := store.count()):
            raise UsageError(
                f"{assembly.place(self.settings)} holds {count} chunks that were not written from here",
                hint="Ingest where they came from, choose another qdrant.collection, "
                "or begin anew from here with `crossrag ingest --rebuild PATH`",
            )

    def _split(self, document: Document, generation: str) -> Sequence[Chunk]:
        cut = self.settings.chunking
        chunks = chunking.split(
            document,
            size=cut.size,
            overlap=cut.overlap,
            unit=cut.unit,
            tokenizer_file=assembly.CHUNK_TOKENIZER,
            generation=generation,
        )
        return [replace(chunk, minhash=likeness.mark(chunk.text)) for chunk in chunks]


def placed(settings: Settings, folder: Path) -> Settings:
    """The same settings for an index in another folder."""
    return settings.model_copy(update={"index": settings.index.model_copy(update={"path": folder})})


def _collected(roots: Sequence[Path], selection: Selection) -> files.Found:
    return files.collect(
        roots, globs=selection.globs, exclude=selection.exclude, gitignore=selection.gitignore
    )


def _existing(roots: Sequence[Path]) -> list[Path]:
    if not roots:
        raise UsageError("Nothing to ingest", hint="Name a file or a folder")
    for root in roots:
        if not root.exists():
            raise UsageError(f"{root} does not exist", hint="Check the path")
    return [root.resolve() for root in roots]


def _refuse_nothing(found: files.Found, roots: Sequence[Path]) -> None:
    if not (found.files or found.skipped):
        raise UsageError(f"There are no files in {', '.join(map(str, roots))}", hint="Name another folder")
