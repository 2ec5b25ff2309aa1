"""Requests in the dialects of OpenAI, Cohere, Jina, vLLM and TEI. Unknown fields are ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crossrag.types import Status

from .schemas import Text


class Asked(BaseModel):
    """What a client sends: of the types that the description says."""

    model_config = ConfigDict(strict=True)


class ContentPart(Asked):
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class ChatMessage(Asked):
    """A message. Those of the system are the operator's business here, and not read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """All its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(Asked):
    """Of a streamed completion."""

    include_usage: bool | None = False


class RagOptions(Asked):
    """What no other server knows: `extra_body={"rag": {…}}`."""

    collection: str | None = Field(None, max_length=63)
    filter: dict[str, Any] | None = None
    timeout: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)


class ChatRequest(Asked):
    """`POST /v1/chat/completions`."""

    model: str = Field("rag", max_length=128, examples=["rag"])
    messages: list[ChatMessage] = Field(min_length=1, examples=[[{"role": "user", "content": "What is it?"}]])
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    rag: RagOptions | None = None


class EmbeddingsRequest(Asked):
    """`POST /v1/embeddings`."""

    input: str | list[str] = Field(examples=["A text."])
    model: str = Field(max_length=256, examples=["embedder"])
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None
    input_type: Literal["query", "document"] | None = None


class RerankDocument(Asked):
    """A document as an object."""

    text: str


Count = Annotated[int, Field(ge=0, le=2**31)]


class RerankRequest(Asked):
    """`POST /v1/rerank`, `/v2/rerank`: what Cohere, Jina and vLLM ask, together."""

    model: str = Field("", max_length=256)
    query: Text
    documents: list[str | RerankDocument]
    top_n: Count | None = Field(None, description="0 or nothing: all")
    return_documents: bool | None = False
    raw_scores: bool | None = Field(default=False, description="logits in place of relevance from 0 to 1")


class TeiRequest(Asked):
    """`POST /rerank` in TEI's way, or in Cohere's where it has `documents`."""

    query: Text
    texts: list[str] | None = None
    documents: list[str | RerankDocument] | None = None
    model: str = Field("", max_length=256)
    top_n: Count | None = None
    raw_scores: bool | None = False
    return_text: bool | None = False
    return_documents: bool | None = False
    truncate: bool | None = None


class Annotation(BaseModel):
    """A citation as OpenAI writes it."""

    type: Literal["url_citation"]
    url_citation: dict[str, Any]


class RerankResult(BaseModel):
    """A document's place."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankReply(BaseModel):
    """What clients of all three read."""

    id: str
    object: Literal["rerank"]
    model: str
    results: list[RerankResult]
    usage: dict[str, int]
    meta: dict[str, Any]


class TeiResult(BaseModel):
    """A text's place."""

    index: int
    score: float
    text: str | None = None


class Embedding(BaseModel):
    """A vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsReply(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class Model(BaseModel):
    """What the field `model` may name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsReply(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class AnswerNotes(BaseModel):
    """How an answer came about."""

    status: Status
    reasons: list[str]
    degraded: list[str]
    notices: list[str]


class ChatReply(BaseModel):
    """A completion; `sources` is in the form that Open WebUI reads, `rag` says how the answer came about."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    sources: list[dict[str, Any]]
    rag: AnswerNotes


class ErrorObject(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """Of `/v1/` routes."""

    error: ErrorObject


class RerankError(OpenAIError):
    """Of `/v1/rerank` and `/v2/rerank`: what clients of Cohere, Jina and vLLM look for."""

    message: str
    detail: str


class TeiError(BaseModel):
    """Of `/rerank`."""

    error: str
    error_type: str
