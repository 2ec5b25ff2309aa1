"""The engine's events -> OpenAI's chat completions, whole or in chunks, with citations and sources. Pure."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crossrag.types import Cited, Delta, Done, Retrieved

from .service import DEFAULT
from .sse import message
from .wire import document_id, page_address

if TYPE_CHECKING:
    from crossrag.types import Answer, Citation, Context, Event, Source

_CHARACTERS_PER_TOKEN = 4


class Completion:
    """One completion: every chunk of it has the same id, time and model.

    Args:
        model: As it was asked for.
        base_url: Where the page is; citations lead there.
        collection: The one that is asked.
        include_usage: Whether a stream ends with the usage.
    """

    def __init__(
        self, *, model: str, base_url: str, collection: str = DEFAULT, include_usage: bool = False
    ) -> None:
        self._model, self._base, self._include_usage = model, base_url.rstrip("/"), include_usage
        self._collection = collection
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, answer: Answer) -> dict[str, Any]:
        """`chat.completion`."""
        said = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": [self._annotation(citation) for citation in answer.citations],
        }
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "message": said, "finish_reason": _end(answer), "logprobs": None}],
            "usage": _usage(answer),
            "sources": self._sources(answer.context),
            "rag": _told(answer),
        }

    def chunks(self, event: Event) -> Iterator[bytes]:
        """The `chat.completion.chunk`s of an event."""
        match event:
            case Retrieved():
                yield self._chunk({"role": "assistant", "content": ""})
                # In a chunk that says nothing: Open WebUI reads nothing else of the object that has them.
                yield self._chunk({}, sources=self._sources(event.context))
            case Delta():
                yield self._chunk({"content": event.text})
            case Cited():
                yield self._chunk({"annotations": [self._annotation(event.citation)]})
            case Done():
                yield self._chunk({}, finish=_end(event.answer), rag=_told(event.answer))
                if self._include_usage:
                    yield self._object(choices=[], usage=_usage(event.answer))

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._object(choices=[choice], **more)

    def _object(self, **rest: Any) -> bytes:
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }
        usage = {"usage": None} if self._include_usage else {}
        return message(head | usage | rest)

    def _annotation(self, citation: Citation) -> dict[str, Any]:
        return {
            "type": "url_citation",
            "url_citation": {
                "url": self._url(citation.document_id, citation.passage_start, citation.passage_end),
                "title": citation.source,
                "start_index": citation.start,
                "end_index": citation.end,
            },
        }

    def _sources(self, context: Context) -> list[dict[str, Any]]:
        return [self._source(source) for source in context.sources]

    def _source(self, source: Source) -> dict[str, Any]:
        chunk = source.chunk
        url = self._url(chunk.document_id, chunk.start, chunk.end)
        name = f"[{source.number}] {chunk.location}"
        return {
            "source": {"name": name, "url": url},
            "document": [chunk.text],
            "metadata": [{"source": url, "name": name, "number": source.number}],
            "distances": [source.relevance if source.relevance is not None else 0.0],
        }

    def _url(self, identity: str, start: int, end: int) -> str:
        place = page_address(document_id(identity), f"{start}-{end}", collection=self._collection)
        return f"{self._base}{place}"


def _end(answer: Answer) -> str:
    """Why it ends, as OpenAI calls that: `length` where its time was up."""
    return "length" if "answer" in answer.degraded else "stop"


def _told(answer: Answer) -> dict[str, Any]:
    """What OpenAI's form has no place for."""
    return {
        "status": answer.status,
        "reasons": list(answer.reasons),
        "degraded": list(answer.degraded),
        "notices": list(answer.notices),
    }


def _usage(answer: Answer) -> dict[str, int]:
    """Estimated: whoever wrote the answer may count otherwise, or not at all."""
    asked = answer.context.tokens + -(-len(answer.question) // _CHARACTERS_PER_TOKEN)
    said = -(-len(answer.text) // _CHARACTERS_PER_TOKEN)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
