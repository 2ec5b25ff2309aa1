"""Documents -> chunks -> index: what is read, cut and stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARIANT = "Cross-Encoder"
"""What `metadata["variant"]` of every chunk says: which retrieval pattern made it."""

WORD_JOINER = "\u2060"
"""Escape inside generated text: `[` + WORD_JOINER + `12]` is a document's own bracket, not a citation; a
backtick before it begins no code.

Documents never hold the character (it is removed when they are loaded), and no answer ever shows it.
"""

Where = Mapping[str, Any]
"""A filter on chunk metadata, in the language of `crossrag.filters`, such as `{"year": {"gte": 2020}}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One source as text, repaired at entry: valid Unicode, no NUL, no control characters."""

    id: str
    """Identity across runs: the same file has the same id, whatever it contains."""
    source: str
    """What the reader sees in a citation, such as `handbook/leave.md`."""
    text: str
    title: str = ""
    markdown: bool = False
    """Whether the text is Markdown, so that its headings become title paths."""
    page_starts: tuple[int, ...] = ()
    """Offset in `text` at which page, slide or sheet 1, 2, 3… begins; empty where there are none."""
    page_names: tuple[str, ...] = ()
    """What each is called where it is no page, such as `slide 3` or `sheet Q3`; else empty."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Names with plain values: text, numbers, true, false, and lists of these."""
    notices: tuple[str, ...] = ()
    """What the loader could not keep, in words, such as a line of front matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of a document. `document.text[start:end] == text`, always."""

    id: str
    """UUIDv5 of document, generation, position and content: two generations never share a point."""
    document_id: str
    source: str
    text: str
    start: int
    end: int
    position: int
    """0, 1, 2… within the document."""
    title: str = ""
    title_path: tuple[str, ...] = ()
    """Headings above the passage, outermost first."""
    page: int | None = None
    """Number of the page, slide or sheet on which it begins, from 1."""
    page_name: str = ""
    """What that is called where it is no page, such as `slide 3` or `sheet Q3`."""
    generation: str = ""
    """Which state of the document it was cut from; a document's chunks that are found together share it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The document's own metadata, handed down."""
    minhash: str = field(default="", repr=False)
    """What near-duplicates are found by; empty where they are not looked for."""

    @property
    def location(self) -> str:
        """Where a reader finds it: `a.pdf, page 12`, `b.pptx, slide 3`, `c.md, Backup > Schedule`."""
        if self.page is not None:
            return f"{self.source}, {self.page_name or f'page {self.page}'}"
        return f"{self.source}, {' > '.join(self.title_path)}" if self.title_path else self.source

    @property
    def described(self) -> str:
        """Title, headings and text: what is embedded, indexed and read by the reranker."""
        heading = " > ".join(dict.fromkeys(part for part in (self.title, *self.title_path) if part))
        return f"{heading}\n{self.text}" if heading else self.text

    @property
    def place(self) -> tuple[str, int, str]:
        """Breaks ties between equal scores the same way in every run and on every machine."""
        return self.source, self.position, self.id

    def payload(self) -> dict[str, Any]:
        """The stored form: `page_content` and `metadata`, as `langchain_qdrant` reads them."""
        metadata = dict(self.metadata) | {
            "source": self.source,
            "document_id": self.document_id,
            "chunk_id": self.position,
            "chunk_length": len(self.text),
            "variant": VARIANT,
            "start": self.start,
            "end": self.end,
            "title": self.title,
            "title_path": list(self.title_path),
            "generation": self.generation,
        }
        if self.page is not None:
            metadata["page"] = self.page
        if self.minhash:
            metadata["minhash"] = self.minhash
        if self.page_name:
            metadata["page_name"] = self.page_name
        return {"page_content": self.text, "metadata": metadata}

    @classmethod
    def from_payload(cls, point_id: str, payload: Mapping[str, Any]) -> Chunk:
        """The inverse of `payload`."""
        rest = dict(payload["metadata"])
        for derived in ("chunk_length", "variant"):
            rest.pop(derived, None)
        return cls(
            id=point_id,
            text=payload["page_content"],
            source=rest.pop("source"),
            document_id=rest.pop("document_id"),
            position=rest.pop("chunk_id"),
            start=rest.pop("start"),
            end=rest.pop("end"),
            title=rest.pop("title", ""),
            title_path=tuple(rest.pop("title_path", ())),
            page=rest.pop("page", None),
            generation=rest.pop("generation", ""),
            minhash=rest.pop("minhash", ""),
            page_name=rest.pop("page_name", ""),
            metadata=rest,
        )


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term ids and their weights, in ascending order of id, without repetition."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StoredPoint:
    """A chunk as a store holds it; the vectors are None where they were not asked for."""

    chunk: Chunk
    dense: NDArray[np.float32] | None = None
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that could not be indexed, and why."""

    source: str
    reason: str
    answers_still: bool = False
    """Whether the index holds an earlier version of it, which stays and is found."""

    def __str__(self) -> str:
        """One line for a person."""
        stays = "; its earlier version stays in the index, and is found" if self.answers_still else ""
        return f"{self.source}: {self.reason}{stays}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What one ingestion did. Counts are documents, but for `chunks`, those written, and `embedded`."""

    added: int = 0
    updated: int = 0
    renamed: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: tuple[Failure, ...] = ()
    """Files of no known type, or without text: left out on purpose."""
    failed: tuple[Failure, ...] = ()
    chunks: int = 0
    embedded: int = 0
    """Chunks for which the embedder was called; the others were in the index already, with the same text."""
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
