"""Index: store and manifest of one place, kept equal to the documents. Knows nothing of answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from . import assembly, files, indexing, opening, places, planning
from .errors import FingerprintError, IndexMissingError, StoreLockedError, UsageError
from .planning import Plan, Selection
from .steady import Gate, SteadySearch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .config import Settings
    from .files import File
    from .indexing import Progress
    from .manifest import Manifest
    from .opening import Pair
    from .preparing import Engine
    from .protocols import Embedder, SparseEncoder, Store
    from .types import Chunk, IngestReport, Rankings, SparseVector, Where

_EVERYTHING = Selection()
Result = TypeVar("Result")


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
        pair: Pair | None = None,
    ) -> None:
        self.settings = settings
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._pair = pair or opening.pair(settings, embedder=embedder, sparse_encoder=sparse_encoder)
        self._writing = threading.RLock()
        self._gate = Gate()
        self._counted: tuple[Store, int | str, int] | None = None
        """Of which store, at which epoch of its documents, and the number of passages then."""

    # --- reading

    @property
    def home(self) -> Path:
        """The folder that holds its files now."""
        return self._pair.home

    @property
    def folder(self) -> Path:
        """The folder of all that is kept here of it; `home` is it or a subfolder."""
        return self._pair.folder

    @property
    def store(self) -> Store:
        """The index, which must exist."""
        return self._pair.store(create=False)

    @property
    def manifest(self) -> Manifest:
        """What is indexed."""
        return self._pair.manifest

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`; sees every document whole, also while documents are written."""
        return self._asked(lambda store: self._steady(store).search(dense, sparse, limit=limit, where=where))

    def _steady(self, store: Store) -> SteadySearch:
        return SteadySearch(store, self._pair.transitions(store))

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """As `Store.neighbours`."""
        return self._asked(lambda store: store.neighbours(chunk, radius))

    def count(self) -> int:
        """Passages in the store, counted once for each state of it: an engine counts one by one."""
        return self._asked(self._count)

    def _count(self, store: Store) -> int:
        epoch = self._pair.transitions(store).known().epoch
        counted = self._counted
        if counted is None or counted[:2] != (store, epoch):
            self._counted = counted = store, epoch, store.count()
        return counted[2]

    def _asked(self, work: Callable[[Store], Result]) -> Result:
        store = self.store
        try:
            return work(store)
        except IndexMissingError:
            # Another process has put another index in its place, which is the one to ask now.
            self._pair.leave(store)
            return work(self.store)

    @contextmanager
    def reading(self, until: float | None = None) -> Iterator[None]:
        """Until the block ends, this index is not exchanged for another one.

        Args:
            until: `time.monotonic()` value at which an exchange under way is no longer waited for.

        Raises:
            TimeoutError: It was not over by then.
        """
        with self._gate.shared(until):
            yield

    # --- writing

    def plan(
        self,
        roots: Sequence[Path],
        selection: Selection = _EVERYTHING,
        *,
        rebuild: bool = False,
        progress: Callable[[Progress], None] = _silent,
    ) -> Plan:
        """What `ingest` would do; changes nothing, and needs no index; see `Rag.plan`."""
        named, roots = roots, _existing(roots)
        found = self._collected(roots, selection)
        held = self.manifest.entries() if self._pair.manifest_file.is_file() else {}
        if held and not rebuild:
            self._check_made_alike()
        known = {} if rebuild else held
        wanted = {file.document_id for file in found.files}
        prunable = known if selection.prune else ()
        within = frozenset(map(files.identify, roots))
        plan = planning.compare(
            found.files,
            known,
            gone=[
                one
                for one in prunable
                if one not in wanted and files.is_below(one, within) and not files.is_below(one, found.failed)
            ],
            recipe=self.recipe,
            checksum=selection.checksum,
            largest=self.settings.loading.file_bytes,
            progress=lambda done, total, source: progress(
                indexing.Progress(stage="comparing", done=done, total=total, source=source)
            ),
        )
        if selection.named and not found.files:
            left = len(plan.still_there)
            self._refuse_choice(selection, named, held=left, new=not (known or found.skipped or found.failed))
        plan = plan.with_found(found, known)
        if not rebuild:
            return plan
        return replace(plan, gone=tuple(entry for one, entry in held.items() if one not in wanted))

    def _check_made_alike(self) -> None:
        """Open the index, which compares; where another process has it, a plan does without.

        Raises:
            FingerprintError: It was built with other settings.
        """
        with suppress(StoreLockedError, IndexMissingError):
            self._pair.store(create=False)

    def ingest(
        self,
        roots: Sequence[Path],
        selection: Selection = _EVERYTHING,
        *,
        rebuild: bool = False,
        fail_fast: bool = False,
        engine: Engine | None = None,
        progress: Callable[[Progress], None] = _silent,
    ) -> IngestReport:
        """Make the index equal to the files under `roots`; see `Rag.ingest`."""
        with self._turn():
            if rebuild:
                named, roots = roots, _existing(roots)
                found = self._collected(roots, selection)
                if selection.named and not found.files:
                    self._refuse_choice(selection, named, held=0, new=True)
                _refuse_nothing(found, named)
                self._drop()
            plan = self.plan(roots, selection, progress=progress)
            if plan == Plan() and not self.manifest.entries():
                _refuse_nothing(files.Found((), ()), roots)
            return self.indexer(engine).run(plan, fail_fast=fail_fast, progress=progress)

    def ingest_files(
        self, wanted: Sequence[File], *, prune: bool = True, progress: Callable[[Progress], None] = _silent
    ) -> IngestReport:
        """Make the index hold these files, and no others where it is pruned."""
        with self._turn():
            indexer = self.indexer()
            known = self.manifest.entries()
            ids = {file.document_id for file in wanted}
            gone = [one for one in known if prune and one not in ids]
            largest = self.settings.loading.file_bytes
            plan = planning.compare(wanted, known, gone=gone, recipe=self.recipe, largest=largest)
            return indexer.run(plan, progress=progress)

    @contextmanager
    def filling(self) -> Iterator[Store]:
        """The store of an index that holds nothing, made if there is none; its manifest is to be filled too.

        Raises:
            UsageError: There are documents in it already.
        """
        with self._turn():
            if self._pair.manifest_file.is_file() and self.manifest.entries():
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
        with self._writing, self._pair.turn():
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
                store = self.store
            except FingerprintError:
                if not foreign:
                    raise
                self._pair.hold()
            else:
                self._pair.check_ours(store)
            yield

    def check_alone(self) -> None:
        """Before all of it is thrown away or built anew.

        Raises:
            UsageError: It holds documents of other tenants too.
        """
        self._pair.check_alone()

    def exchange(self, fresh: Index) -> None:
        """Let searches end, put the index that was built beside in this one's place, let them go on."""
        with self._gate.alone():
            self._pair.replace_by(fresh._pair)
            self._counted = None

    def beside(self, folder: Path) -> Index:
        """An index with the same settings and models in another folder."""
        return Index(
            self.settings,
            embedder=self._embedder,
            sparse_encoder=self._sparse_encoder,
            pair=self._pair.beside(folder),
        )

    def indexer(self, engine: Engine | None = None) -> indexing.Indexer:
        """What writes documents into this index, which is made if there is none; `engine` prepares them."""
        places.check_room(self.home, 0)
        store = self._pair.store(create=True)
        self._pair.check_ours(store)
        return indexing.Indexer(
            store=store,
            manifest=self.manifest,
            embedder=self._embedder(),
            sparse_encoder=self._sparse_encoder(),
            engine=engine or assembly.local_engine(self.settings),
            room=lambda size: places.check_room(self.home, size),
        )

    @property
    def fingerprint(self) -> dict[str, str]:
        """What everything in it is made with, part by part."""
        return self._pair.fingerprint

    @property
    def recipe(self) -> str:
        """Whatever a document's chunks depend on beside its file."""
        return assembly.recipe(self.settings).fingerprint

    def _refuse_choice(self, selection: Selection, roots: Sequence[Path], *, held: int, new: bool) -> None:
        """See `planning.refuse_choice`; `new` is whether nothing is in the index yet, or will be any more."""
        everything = replace(selection, globs=(), exclude=())
        others = len(self._collected(_existing(roots), everything).files) if new and not held else 0
        planning.refuse_choice(selection, roots, held=held, others=others)

    def _collected(self, roots: Sequence[Path], selection: Selection) -> files.Found:
        """Files below the roots; no index is made of an index.

        Raises:
            UsageError: A root is itself an index.
        """
        own = self.settings.index.path.resolve()

        def reason_to_pass(folder: Path) -> str:
            return "is an index of crossrag" if folder == own or places.is_index(folder) else ""

        for root in roots:
            if reason_to_pass(root):
                raise UsageError(
                    f"{root} is the folder of an index",
                    hint="Name the folder of the documents; where both are the same, choose another --index",
                )
        return files.collect(
            roots,
            globs=selection.globs,
            exclude=selection.exclude,
            gitignore=selection.gitignore,
            reason_to_pass=reason_to_pass,
        )

    # --- life

    def close(self) -> None:
        """Let go of the files; closing twice is fine, and the next use opens them again."""
        with self._gate.alone():
            self._pair.close()
            self._counted = None

    def _drop(self) -> None:
        """Throw everything away, unless another process has it open; a damaged index may go."""
        self.check_alone()
        with self._gate.alone():
            self._pair.clear()
            self._counted = None


def _existing(roots: Sequence[Path]) -> list[Path]:
    if not roots:
        raise UsageError("Nothing to ingest", hint="Name a file or a folder")
    for root in roots:
        if not root.exists():
            raise UsageError(f"{root} does not exist", hint="Check the path")
    return [root.resolve() for root in roots]


def _refuse_nothing(found: files.Found, roots: Sequence[Path]) -> None:
    if not (found.files or found.skipped or found.failed):
        raise UsageError(f"There are no files in {', '.join(map(str, roots))}", hint="Name another folder")
