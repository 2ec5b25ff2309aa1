"""Context -> answer: what a generator may use, what it wrote, and what was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .documents import Chunk
    from .rankings import Ranking


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
    quote: str = ""
    """Words of the claim that stand verbatim in the passage, at `quote_start`; empty where none do."""
    quote_start: int | None = None
    """Offset of the quote in the document's text."""
    supported: bool | None = None
    """Whether the passage supports the claim that it is cited for; None where that was not checked."""
    support: float | None = None
    """Probability of that, in [0, 1], as the grounding model says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence of the answer with what was found out about it. `answer.text[start:end] == text`."""

    start: int
    end: int
    text: str
    """The sentence with its citation marks."""
    citations: tuple[int, ...] = ()
    """Numbers of the sources that it cites."""
    supported: bool | None = None
    """Whether its sources, taken together, support it; None where that was not checked."""
    support: float | None = None
    """Probability of that, in [0, 1], as the grounding model says."""
    verbatim: bool = False
    """Whether it stands word for word in a source that it cites."""


Status = Literal["answered", "partial", "no_answer"]
"""`partial`: some of what was asked, or of what was written, is not supported by the documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, where it comes from, and what happened on the way."""

    question: str
    text: str
    status: Status
    citations: tuple[Citation, ...]
    context: Context
    ranking: Ranking
    """The passages that were weighed, those below the threshold too: the nearest evidence."""
    claims: tuple[Claim, ...] = ()
    """Every sentence of the text, in order."""
    reasons: tuple[str, ...] = ()
    """Why the status is not `answered`, in words."""
    degraded: tuple[str, ...] = ()
    """Stages that did not do their work, such as `dense`, `rerank`, `llm`, `grounding`."""
    notices: tuple[str, ...] = ()
    """What was cut, skipped or replaced, in words."""
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
    """A citation whose number was found in the context and whose support was checked; follows its claim."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Claimed:
    """A sentence is complete and was checked; follows its text, before its citations."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A claim that its sources do not support; follows `Claimed`, whatever becomes of the sentence."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Done:
    """Last event of a stream. A stream that ends without it raised."""

    answer: Answer


Event = Retrieved | Delta | Claimed | Cited | Unsupported | Done
