"""Documents as the index holds them: listed, found by their opaque id, read with exact offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from crossrag import assembly

from .problems import Problem
from .wire import document_id

if TYPE_CHECKING:
    from crossrag.manifest import Entry, Manifest
    from crossrag.pipeline import Rag
    from crossrag.types import Chunk

_SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class Text:
    """A document's text, put together from its passages; what lies between them is blank."""

    chunks: tuple[Chunk, ...]
    length: int

    @property
    def title(self) -> str:
        """As its passages know it."""
        return self.chunks[0].title if self.chunks else ""

    def between(self, start: int, end: int) -> str:
        """`text[start:end]`, as it was indexed."""
        end = min(end, self.length)
        letters = [_SEPARATOR] * max(0, end - start)
        for chunk in self.chunks:
            first, last = max(chunk.start, start), min(chunk.end, end)
            if first < last:
                letters[first - start : last - start] = chunk.text[first - chunk.start : last - chunk.start]
        return "".join(letters)


_IDENTITIES: WeakKeyDictionary[Manifest, dict[str, str]] = WeakKeyDictionary()
"""Opaque ids and what they stand for, of each manifest; an id never comes to stand for anything else."""


def entries(rag: Rag) -> dict[str, Entry]:
    """All documents by id."""
    manifest = _manifest(rag)
    return {} if manifest is None else manifest.entries()


def totals(rag: Rag) -> tuple[int, int]:
    """How many documents and passages there are."""
    manifest = _manifest(rag)
    return (0, 0) if manifest is None else manifest.totals()


def _manifest(rag: Rag) -> Manifest | None:
    """None, and nothing is made, where there is no index yet."""
    made = rag.index.home / assembly.manifest_name(rag.settings)
    return rag.manifest if made.is_file() else None


def find_entry(rag: Rag, opaque: str) -> Entry:
    """The document of this id.

    Raises:
        Problem: There is none; also where there is one that this caller may not see.
    """
    if (manifest := _manifest(rag)) is not None:
        if opaque not in _IDENTITIES.get(manifest, {}):
            _IDENTITIES[manifest] = {document_id(identity): identity for identity in manifest.ids()}
        identity = _IDENTITIES[manifest].get(opaque)
        entry = None if identity is None else manifest.entry(identity)
        if entry is not None:
            return entry
    raise Problem(404, "There is no such document")


def reassembled(rag: Rag, entry: Entry) -> Text:
    """The text that was indexed, whatever has become of the file since.

    Raises:
        Problem: It is being replaced at this moment.
    """
    where = {"document_id": entry.id, "generation": entry.generation}
    found = {point.chunk.position: point.chunk for point in rag.store.scan(where=where)}
    if len(found) != entry.chunks:
        raise Problem(503, "The document is being replaced", retry_after=1)
    chunks = tuple(found[position] for position in sorted(found))
    return Text(chunks, max((chunk.end for chunk in chunks), default=0))


def described(entry: Entry, *, uploaded: bool) -> dict[str, Any]:
    """`schemas.DocumentReply`."""
    return {
        "id": document_id(entry.id),
        "source": entry.source,
        "chunks": entry.chunks,
        "metadata": dict(entry.metadata),
        "uploaded": uploaded,
    }


def listed(
    found: list[Entry], *, contains: str, after: str, limit: int
) -> tuple[list[Entry], int, str | None]:
    """Those whose source contains a text, a page of them; how many there are in all; where to go on.

    Raises:
        Problem: What the page before ended with is not there any more.
    """
    wanted = contains.casefold()
    fitting = [entry for entry in found if wanted in entry.source.casefold()]
    ids = [document_id(entry.id) for entry in fitting]
    if after and after not in ids:
        raise Problem(
            422, "There is no such cursor", hint="Begin anew: the document it stands for may be gone"
        )
    start = ids.index(after) + 1 if after else 0
    page = fitting[start : start + limit]
    more = start + limit < len(fitting)
    return page, len(fitting), document_id(page[-1].id) if more and page else None
