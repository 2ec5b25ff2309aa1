"""The native API's requests and replies, as pydantic models: what `/openapi.json` says and what is checked.

Offsets count characters. Numbers that nobody knows are null, never NaN.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crossrag.types import Status


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Collection = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,63}$")]


class Given(BaseModel):
    """What a caller sends: unknown fields are refused, and numbers in quotes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(Given):
    """A search."""

    query: Text = Field(examples=["How do I restore a backup?"])
    collection: Collection | None = None
    top_k: int | None = Field(None, ge=1, le=1_000)
    where: dict[str, Any] | None = Field(
        None, description="filter, see docs/filters.md", examples=[{"page": 3}]
    )
    timeout: Seconds | None = None
    explain: bool = Field(default=False, description="give the first stage's order too")


class EarlierTurn(Given):
    """One earlier message."""

    role: Literal["user", "assistant"]
    text: str


class AnswerRequest(Given):
    """A question."""

    question: Text = Field(examples=["How do I restore a backup?"])
    collection: Collection | None = None
    history: list[EarlierTurn] = []
    where: dict[str, Any] | None = None
    timeout: Seconds | None = None
    explain: bool = False
    stream: bool = Field(default=False, description="server-sent events instead of one object")


class Passage(BaseModel):
    """A passage of a document."""

    id: str
    document_id: str
    source: str
    title: str
    location: str
    text: str
    start: int
    end: int
    page: int | None
    page_name: str
    title_path: list[str]
    metadata: dict[str, Any]


class StageScores(BaseModel):
    """What every stage said."""

    dense: float | None
    dense_rank: int | None
    sparse: float | None
    sparse_rank: int | None
    fused: float | None
    fused_rank: int | None
    logit: float | None
    relevance: float | None
    rerank_rank: int | None


class Duplicate(BaseModel):
    """A passage that another one stands for."""

    id: str
    document_id: str
    source: str
    location: str


class CandidatePassage(Passage):
    """A passage that was found."""

    rank: int
    scores: StageScores
    kept: bool
    truncated: bool
    window: tuple[int, int] | None
    duplicates: list[Duplicate]


class Truncated(BaseModel):
    """How much of a long question was searched by."""

    query_tokens: int
    kept: int


class RankingReply(BaseModel):
    """What a search found, best first."""

    query: str
    threshold: float | None
    candidates: list[CandidatePassage]
    first_stage: list[CandidatePassage] | None
    degraded: list[str]
    notices: list[str]
    timings: dict[str, float]
    total_candidates: int | None
    truncated: Truncated | None


class SearchReply(RankingReply):
    """The same with its collection."""

    collection: str


class SourcePassage(Passage):
    """A numbered source."""

    number: int
    relevance: float | None
    chunk_ids: list[str]


class CitationReply(BaseModel):
    """A `[n]` of the answer."""

    number: int
    start: int
    end: int
    source: str
    document_id: str
    passage_start: int
    passage_end: int
    quote: str
    quote_start: int | None
    supported: bool | None
    support: float | None


class ClaimReply(BaseModel):
    """A sentence of the answer."""

    start: int
    end: int
    text: str
    citations: list[int]
    supported: bool | None
    support: float | None
    verbatim: bool


class AnswerReply(BaseModel):
    """An answer, where it comes from, and what was checked."""

    id: str
    question: str
    text: str
    status: Status
    citations: list[CitationReply]
    claims: list[ClaimReply]
    reasons: list[str]
    degraded: list[str]
    notices: list[str]
    sources: list[SourcePassage]
    dropped: int
    context_tokens: int
    ranking: RankingReply
    timings: dict[str, float]
    collection: str


class DocumentReply(BaseModel):
    """A document of a collection."""

    id: str
    source: str
    chunks: int
    metadata: dict[str, Any]
    uploaded: bool


class DocumentsReply(BaseModel):
    """Some of them, by source."""

    documents: list[DocumentReply]
    total: int
    next_cursor: str | None


class UploadedFile(BaseModel):
    """What became of one file."""

    name: str
    status: Literal["added", "updated", "unchanged", "failed", "skipped"]
    document_id: str | None
    chunks: int
    reason: str | None


class UploadReply(BaseModel):
    """What became of an upload."""

    files: list[UploadedFile]
    seconds: float
    notices: list[str]


class PassagePlace(BaseModel):
    """Where a passage stands in its document."""

    id: str
    start: int
    end: int
    page: int | None
    page_name: str
    title_path: list[str]


class TextReply(BaseModel):
    """A part of a document's text."""

    id: str
    source: str
    title: str
    length: int
    start: int
    end: int
    text: str
    passages: list[PassagePlace]


class JudgedPassage(Given):
    """A passage that somebody found good or bad."""

    document_id: str = Field(pattern="^d[0-9a-f]{24}$")
    start: int = Field(ge=0, le=2**53)
    end: int = Field(ge=0, le=2**53)
    quote: str = Field("", max_length=2_000)


class FeedbackRequest(Given):
    """A thumb, up or down."""

    question: Text
    verdict: Literal["up", "down"]
    kind: Literal["passage", "answer"]
    collection: Collection | None = None
    answer_id: str | None = Field(None, max_length=64)
    reason: str = Field("", max_length=2_000)
    passages: list[JudgedPassage] = Field([], max_length=64)


class FeedbackReply(BaseModel):
    """It was written down."""

    id: str


class CollectionReply(BaseModel):
    """How much a collection holds."""

    name: str
    documents: int
    chunks: int


class StatusReply(BaseModel):
    """What this server is and holds, for the one who asks."""

    version: str
    collections: list[CollectionReply]
    models: dict[str, str]
    threshold: float | None
    top_k: int
    limits: dict[str, int]
    scope: Literal["read", "write", "admin"]
    tenant: str
    auth: bool
    file_types: list[str]


class ProblemReply(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    code: str
    request_id: str
