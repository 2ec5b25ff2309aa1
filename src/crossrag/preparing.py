"""Change -> document -> chunks, ready to be written; and the seam between who prepares and who writes.

Reads files and writes nothing. Knows no store: what the index holds already is told by a call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from . import files, planning
from .errors import LoadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .files import File
    from .loading import Loader
    from .planning import Change
    from .types import Chunk, Document, SparseVector

    Vectors = tuple[NDArray[np.float32], SparseVector]

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a file becomes chunks."""

    split: Callable[[Document, str], Sequence[Chunk]]
    """Cuts a document; the text names its generation."""
    fingerprint: str
    """Changes whenever the same file would give other chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What came of one change: chunks, or a failure, or neither where it has no text or did not change."""

    change: Change
    """With the hash of the very bytes that the chunks were made of."""
    chunks: Sequence[Chunk] = ()
    notices: tuple[str, ...] = ()
    failure: str = ""
    """Why the file could not be read."""
    unchanged: bool = False
    """Whether it was changed back before it was read."""
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    """Made ahead, by `Chunk.described`. The writer makes those that it lacks."""


class Engine(Protocol):
    """Prepares documents, in this process or elsewhere. The index is the same, whichever it is."""

    @property
    def models(self) -> tuple[str, ...]:
        """Fingerprints of embedder and sparse encoder that vectors are made ahead with; () where none are."""
        ...

    def prepared(
        self, changes: Sequence[Change], known: Callable[[Change], Collection[str]]
    ) -> AbstractContextManager[Iterator[Prepared]]:
        """One for each change, in their order, prepared no earlier than there is room for them.

        Args:
            changes: What must be written.
            known: Gives the described texts of which the index holds vectors; none need be made for those.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Prepares one document after another, each when it is asked for; embeds nothing ahead."""

    recipe: Recipe
    loader: Callable[[], Loader]
    """Gives, for one run, what reads files."""

    @property
    def models(self) -> tuple[str, ...]:
        """None: the writer embeds."""
        return ()

    @contextmanager
    def prepared(
        self, changes: Sequence[Change], known: Callable[[Change], Collection[str]]
    ) -> Iterator[Iterator[Prepared]]:
        """As `Engine.prepared`."""
        del known
        with self.loader() as loader:
            yield (prepare(change, loader, self.recipe) for change in changes)


def prepare(change: Change, loader: Loader, recipe: Recipe) -> Prepared:
    """Read a document and cut it; a file that cannot be read is a failure of its own, not an exception."""
    try:
        change, document = _read(change, loader)
        notices = tuple(f"{document.source}: {notice}" for notice in document.notices)
        named = planning.generation(change.file, change.content_hash, recipe.fingerprint)
        is_known = change.previous is not None and change.previous.generation == named
        if is_known and not change.damaged:
            return Prepared(change=change, notices=notices, unchanged=True)
        return Prepared(change=change, notices=notices, chunks=recipe.split(document, named))
    except LoadError as error:
        source = change.file.source
        reason = error.message.removeprefix(f"{source}: ").removeprefix(f"{source} ")
        return Prepared(change=change, failure=f"{reason}. {error.hint}" if error.hint else reason)


def _read(change: Change, loader: Loader) -> tuple[Change, Document]:
    """The document, and the change with the hash of the very bytes that it was made of."""
    path, source = change.file.path, change.file.source
    try:
        for _ in range(_ATTEMPTS):
            document = _loaded(change.file, loader)
            if (look := files.look(path)).stamp == change.look.stamp:
                return change, document
            change = replace(change, look=look, content_hash=files.digest(path))
    except OSError as error:
        raise LoadError(f"{source} cannot be read: {error.strerror}") from None
    raise LoadError(f"{source} changes while it is read", hint="Ingest again when it is finished")


def _loaded(file: File, loader: Loader) -> Document:
    return loader.load(file.path, document_id=file.document_id, source=file.source, metadata=file.metadata)
