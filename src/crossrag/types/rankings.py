"""Query -> candidates -> reranked: what is found, and what every stage says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .documents import Chunk, SparseVector


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
    lexical: bool = True
    """Whether the store has a sparse leg; where it has none, `sparse` of a hit means nothing."""


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

    @classmethod
    def of_nothing(cls) -> Relevance:
        """What is said of no passages."""
        return cls(relevance=(), logit=(), truncated=(), unread=())

    @classmethod
    def of_unread(cls, count: int) -> Relevance:
        """What is said of so many passages for which there was no time at all."""
        nothing = (math.nan,) * count
        return cls(
            relevance=nothing,
            logit=nothing,
            truncated=(False,) * count,
            unread=(True,) * count,
            hurried=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A further search that a question led to. At most one of `terms` and `passage` is set."""

    method: str
    """Which option made it, such as `feedback` or `multi-query`."""
    text: str
    """What was looked for, in words."""
    terms: SparseVector | None = None
    """Weighted terms for the sparse leg alone; None where both legs look for the text."""
    passage: bool = False
    """Whether the text is a made-up passage, for the dense leg alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """A question that was too long: how many tokens it had, and how many were looked for."""

    query_tokens: int
    kept: int


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
    expansions: tuple[Expansion, ...] = ()
    """What was looked for beside the question."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Passages that came out of each stage: `dense`, `sparse`, `fused`, `distinct`, `read`, `relevant`."""
    threshold: float | None = None
    """Least relevance for an answer; None where no passage was scored."""
    truncated: Truncated | None = None
    """Set where the question was too long to be looked for as it is."""

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: Any) -> Any:
        return self.candidates[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)


@dataclass(frozen=True, slots=True)
class View:
    """What a search must leave out, and a mark that changes whenever that does."""

    epoch: int | str
    hidden: frozenset[str]
    """Generations of documents that are being written, or are replaced and not yet deleted."""
    nothing: bool = False
    """Whether there is no document yet: all that is there is being written."""
