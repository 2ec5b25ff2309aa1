"""`/v1/chat/completions`, `/v1/models` and `/v1/embeddings`, as clients of OpenAI expect them."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
from starlette.requests import Request

from crossrag.types import Answer, Event, Turn

from . import engine
from .completions import Completion
from .dialects import ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, ModelsReply
from .errors import reply_of
from .problems import Problem
from .routing import Router, SseResponse
from .running import Stream, opened, run
from .service import DEFAULT, Service
from .sse import EventStream, message
from .tickets import Ticket

_DONE = b"data: [DONE]\n\n"
_PIPELINE, _EMBEDDER = "rag", "embedder"


class OpenAI:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def register(self, router: Router, responses: dict[int | str, Any]) -> None:
        """Add them."""
        router.add(
            "POST",
            "/v1/chat/completions",
            self.chat,
            "read",
            response_model=ChatReply,
            responses=responses | {200: dict(SseResponse)},
        )
        router.add(
            "POST",
            "/v1/embeddings",
            self.embeddings,
            "read",
            response_model=EmbeddingsReply,
            responses=responses,
        )
        router.add("GET", "/v1/models", self.models, "read", response_model=ModelsReply, responses=responses)

    async def models(self) -> dict[str, Any]:
        """What the field `model` may name: a collection to answer from, or the embedder."""
        names = [self._name(collection) for collection in self._service.collections]
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "crossrag"}
                for name in (*names, _EMBEDDER)
            ],
        }

    async def chat(self, request: Request, asked: ChatRequest) -> Any:
        """An answer to the last message of the user; citations are `annotations`."""
        service = self._service
        question, history = self._conversation(asked)
        options = asked.rag
        where = options.filter if options else None
        seconds = options.timeout if options else None
        collection = self._collection(asked)
        rag = await opened(request, service, collection, seconds=seconds)
        completion = Completion(
            model=asked.model,
            base_url=str(request.base_url),
            collection=collection,
            include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        )
        if not asked.stream:

            def work(ticket: Ticket) -> Answer:
                return engine.ask(service, rag, question, history=history, where=where, ticket=ticket)

            return completion.whole(await run(request, service, work, seconds=seconds))

        def events(ticket: Ticket) -> Iterator[Event]:
            return engine.stream(service, rag, question, history=history, where=where, ticket=ticket)

        stream = Stream(request, service, events, seconds=seconds)
        first = await stream.open()
        return EventStream(
            stream,
            first,
            completion.chunks,
            failed=lambda error: message(reply_of(error, request).openai()),
            heartbeat=service.limits.heartbeat_seconds,
            headers={},
            last=_DONE,
        )

    async def embeddings(self, request: Request, asked: EmbeddingsRequest) -> dict[str, Any]:
        """The vectors that the index is made of."""
        service = self._service
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not texts or not all(text.strip() for text in texts):
            raise Problem(422, "input holds no text, or an empty one")
        if len(texts) > service.limits.embedding_inputs:
            raise Problem(413, f"More than {service.limits.embedding_inputs} texts")
        embedder = (await opened(request, service, DEFAULT)).embedder
        if asked.model not in {_EMBEDDER, service.settings.embedder.model}:
            raise Problem(404, "There is no such model here", hint=f"Write {_EMBEDDER}")
        if asked.dimensions not in {None, embedder.dimension}:
            raise Problem(422, f"The vectors have {embedder.dimension} dimensions")

        def work(_: Ticket) -> Any:
            if asked.input_type == "query":
                return np.stack([embedder.embed_query(text) for text in texts])
            return embedder.embed_documents(texts)

        vectors = np.asarray(await run(request, service, work), "<f4")
        tokens = sum(-(-len(text) // 4) for text in texts)
        return {
            "object": "list",
            "model": asked.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [
                {
                    "object": "embedding",
                    "index": row,
                    "embedding": base64.b64encode(vector.tobytes()).decode("ascii")
                    if asked.encoding_format == "base64"
                    else [float(number) for number in vector],
                }
                for row, vector in enumerate(vectors)
            ],
        }

    def _conversation(self, asked: ChatRequest) -> tuple[str, tuple[Turn, ...]]:
        """The last message of the user, and what was said before it."""
        limits = self._service.limits
        said = [one for one in asked.messages if one.role in {"user", "assistant"} and one.text.strip()]
        if not said or said[-1].role != "user":
            raise Problem(422, "The last message must be the user's, and hold text")
        if any(len(one.text) > limits.question_characters for one in said):
            raise Problem(413, f"A message is longer than {limits.question_characters} characters")
        turns = [Turn(role="user" if one.role == "user" else "assistant", text=one.text) for one in said[:-1]]
        # Clients send whole conversations, however long: what lies far back is left out.
        return said[-1].text, tuple(turns[-limits.history_turns :] if limits.history_turns else ())

    def _collection(self, asked: ChatRequest) -> str:
        """Which one is to answer: the one that is said, or else the model's.

        Raises:
            Problem: There is no such model.
        """
        wanted = asked.rag.collection if asked.rag and asked.rag.collection else None
        if wanted is None:
            by_name = {self._name(collection): collection for collection in self._service.collections}
            if asked.model not in by_name:
                raise Problem(
                    404, "There is no such model here", hint="See /v1/models", code="model_not_found"
                )
            wanted = by_name[asked.model]
        return wanted

    @staticmethod
    def _name(collection: str) -> str:
        return _PIPELINE if collection == DEFAULT else f"{_PIPELINE}/{collection}"
