"""The values that flow through crossrag. All are frozen; a stage returns new ones.

Knows nothing of files, models or stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARIANT = "Cross-Encoder"
"""What `metadata["variant"]` of every chunk says: which retrieval pattern made it."""

WORD_JOINER = "\u2060"
"""Escape inside generated text: `[` + WORD_JOINER + `12]` is a document's own bracket, not a citation.

Documents never hold the character (it is removed when they are loaded), and no answer ever shows it.
"""


# --- documents -> chunks -> index -------------------------------------------------------------------------


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


# --- query -> candidates -> reranked ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One field per stage; no stage overwrites another's. Ranks count from 1; None means "not ranked"."""

    dense: float | None = None
    """Cosine of query and passage, in [-1, 1]."""
    dense_rank: int | None = None
    sparse: float | None = None
    """BM25, 0 where no word is shared."""
    sparse_rank: int | None = None
    indexed: int | None = None
    """Passages in the index, by the logarithm of whose number BM25 grows; None where that is not known."""
    fused: float | None = None
    """Reciprocal rank fusion of the legs."""
    fused_rank: int | None = None
    logit: float | None = None
    """The reranker's raw score, unbounded."""
    relevance: float | None = None
    """The reranker's calibrated score, in [0, 1]; None where it did not read the passage."""
    rerank_rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A passage on its way to the context, with what every stage said of it."""

    chunk: Chunk
    scores: Scores
    truncated: bool = False
    """Whether the reranker saw only its beginning."""
    window: tuple[int, int] | None = None
    """Of a passage too long for one reading: offsets, in its text, of the part that scored best."""
    duplicates: tuple[Chunk, ...] = ()
    """Passages nearly the same as this one that were found too, best first; this one stands for them."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that the store found, with both first-stage scores whichever leg found it."""

    chunk: Chunk
    dense: float
    sparse: float


@dataclass(frozen=True, slots=True)
class Rankings:
    """The two legs of a search, best first, unfused."""

    dense: tuple[Hit, ...]
    sparse: tuple[Hit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """What a reranker says of n passages, in the order in which they were given.

    `relevance` is in [0, 1] and `logit` unbounded; both are NaN where the model gave no finite number
    or the deadline passed first (then `unread` is True).
    """

    relevance: tuple[float, ...]
    logit: tuple[float, ...]
    truncated: tuple[bool, ...]
    unread: tuple[bool, ...]
    query_truncated: bool = False
    layers: tuple[int, ...] = ()
    """How many layers of the model each was read with; empty where a reranker always spends the same."""
    by_exit: tuple[tuple[float, ...], ...] = ()
    """The logits after every exit that each reached; empty where a reranker has none."""
    hurried: bool = False
    """Whether the deadline kept some from being read with all the layers that they should have had."""
    windows: tuple[tuple[int, int] | None, ...] = ()
    """Of a passage too long for one reading: offsets of the window that scored best. Empty: none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking(Sequence[Candidate]):
    """The result of a search: candidates, best first, and what happened on the way."""

    query: str
    candidates: tuple[Candidate, ...]
    degraded: tuple[str, ...] = ()
    """Stages that did not do their work, such as `rerank`."""
    notices: tuple[str, ...] = ()
    """What was cut, skipped or replaced, in words."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage."""

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: Any) -> Any:
        return self.candidates[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)


# --- context -> answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A numbered passage of the context: one chunk, or neighbours merged into one."""

    number: int
    chunk: Chunk
    """The passage itself; for merged neighbours, from the first one's start to the last one's end."""
    relevance: float | None
    chunk_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the generator may use: sources numbered from 1, within a token budget."""

    sources: tuple[Source, ...]
    tokens: int
    dropped: int = 0
    """Passages that were relevant and did not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One earlier message of a conversation that the caller holds."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A `[n]` in the answer. `start` and `end` are its offsets there, in characters."""

    number: int
    start: int
    end: int
    source: str
    """Where it leads, such as `handbook.pdf, page 12`."""
    document_id: str
    passage_start: int
    """Offset of the cited passage in the document's text."""
    passage_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, where it comes from, and what happened on the way."""

    question: str
    text: str
    status: Literal["answered", "no_answer"]
    citations: tuple[Citation, ...]
    context: Context
    ranking: Ranking
    """The passages that were weighed, those below the threshold too: the nearest evidence."""
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """First event of a stream: the context is known, no word has been written."""

    context: Context
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation whose number was found in the context; it follows the text that holds it."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Done:
    """Last event of a stream. A stream that ends without it raised."""

    answer: Answer


Event = Retrieved | Delta | Cited | Done

Where = Mapping[str, Any]
"""A filter on chunk metadata, in the language of `crossrag.filters`, such as `{"year": {"gte": 2020}}`."""
