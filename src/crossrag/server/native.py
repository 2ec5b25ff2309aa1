"""`/api/v1/search`, `/answer`, `/feedback` and `/status`: requests -> the engine -> its values as JSON."""

import uuid
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from crossrag.loading.formats import PARSERS
from crossrag.pipeline import Rag
from crossrag.types import Answer, Event, Ranking, Retrieved, Turn

from . import engine, wire
from .documents import totals
from .errors import reply_of
from .feedback import Feedback
from .observing import server_timing
from .problems import Problem
from .routing import Router, SseResponse
from .running import Stream, opened, run
from .schemas import (
    AnswerReply,
    AnswerRequest,
    FeedbackReply,
    FeedbackRequest,
    SearchReply,
    SearchRequest,
    StatusReply,
)
from .service import DEFAULT, Service
from .sse import EventStream, message
from .tickets import Ticket


class Native:
    """The routes."""

    def __init__(self, service: Service, feedback: Feedback) -> None:
        self._service, self._feedback = service, feedback

    def register(self, router: Router, responses: dict[int | str, Any]) -> None:
        """Add them."""
        router.add(
            "POST", "/api/v1/search", self.search, "read", response_model=SearchReply, responses=responses
        )
        router.add(
            "POST",
            "/api/v1/answer",
            self.answer,
            "read",
            response_model=AnswerReply,
            responses=responses | {200: dict(SseResponse)},
        )
        router.add(
            "POST",
            "/api/v1/feedback",
            self.judge,
            "read",
            response_model=FeedbackReply,
            status_code=201,
            responses=responses,
        )
        router.add(
            "GET", "/api/v1/status", self.status, "read", response_model=StatusReply, responses=responses
        )

    async def search(self, request: Request, response: Response, asked: SearchRequest) -> dict[str, Any]:
        """The best passages for a query, most relevant first."""
        service = self._service
        self._check_question(asked.query)
        rag = await opened(request, service, asked.collection, seconds=asked.timeout)
        top_k = rag.settings.reranking.top_k if asked.top_k is None else asked.top_k
        if top_k > service.limits.top_k:
            raise Problem(422, f"top_k is at most {service.limits.top_k} here")

        def work(ticket: Ticket) -> Ranking:
            return engine.rank(service, rag, asked.query, top_k=top_k, where=asked.where, ticket=ticket)

        found = await run(request, service, work, seconds=asked.timeout)
        response.headers["Server-Timing"] = server_timing(found.timings)
        ranked = wire.ranking(found, top_k=top_k, shown=top_k, explain=asked.explain)
        return ranked | {"collection": asked.collection or DEFAULT}

    async def answer(self, request: Request, response: Response, asked: AnswerRequest) -> Any:
        """An answer with checked citations; with `stream`, its events as they come."""
        service = self._service
        self._check_question(asked.question)
        if len(asked.history) > service.limits.history_turns:
            raise Problem(422, f"At most {service.limits.history_turns} earlier turns are read here")
        for turn in asked.history:
            self._check_question(turn.text)
        rag = await opened(request, service, asked.collection, seconds=asked.timeout)
        history = tuple(Turn(role=turn.role, text=turn.text) for turn in asked.history)
        told = _Told(rag, asked)
        if not asked.stream:

            def work(ticket: Ticket) -> Answer:
                return engine.ask(
                    service, rag, asked.question, history=history, where=asked.where, ticket=ticket
                )

            whole = await run(request, service, work, seconds=asked.timeout)
            response.headers["Server-Timing"] = server_timing(whole.timings)
            return told.answer(whole)

        def events(ticket: Ticket) -> Iterator[Event]:
            return engine.stream(
                service, rag, asked.question, history=history, where=asked.where, ticket=ticket
            )

        stream = Stream(request, service, events, seconds=asked.timeout)
        first = await stream.open()
        timings = first.ranking.timings if isinstance(first, Retrieved) else {}
        return EventStream(
            stream,
            first,
            told.event,
            failed=lambda error: message(
                reply_of(error, request).body(request.state.request_id), event="error"
            ),
            heartbeat=service.limits.heartbeat_seconds,
            headers={"Server-Timing": server_timing(timings)},
        )

    async def judge(self, request: Request, asked: FeedbackRequest) -> dict[str, Any]:
        """Write a thumb down, as a judgement that `crossrag eval` and `crossrag calibrate` read."""
        service = self._service
        self._check_question(asked.question)
        if asked.kind == "passage" and len(asked.passages) != 1:
            raise Problem(422, "Feedback on a passage names exactly one")
        principal = request.state.principal
        self._feedback.check_rate(principal.name)
        rag = await opened(request, service, asked.collection)
        place = self._feedback.place(asked.collection or DEFAULT, principal.tenant)
        written = await run(request, service, lambda _: self._feedback.note(rag, place, asked))
        return {"id": written}

    async def status(self, request: Request) -> dict[str, Any]:
        """What this server is, and how much the caller's collections hold."""
        return await run(request, self._service, lambda _: self._status(request))

    def _status(self, request: Request) -> dict[str, Any]:
        from crossrag import __version__

        service, principal = self._service, request.state.principal
        rags = {name: service.rag(name, principal.tenant) for name in service.collections}
        settings, limits = service.settings, service.limits
        held = {name: totals(rag) for name, rag in rags.items()}
        return {
            "version": __version__,
            "collections": [
                {"name": name, "documents": count, "chunks": chunks} for name, (count, chunks) in held.items()
            ],
            "models": {
                "embedder": settings.embedder.model,
                "reranker": settings.reranking.model,
                "generator": settings.generator.model,
            },
            "threshold": service.threshold(rags[DEFAULT]),
            "top_k": settings.reranking.top_k,
            "limits": {
                "question_characters": limits.question_characters,
                "top_k": limits.top_k,
                "upload_bytes": limits.upload_bytes,
                "upload_files": limits.upload_files,
                "history_turns": limits.history_turns,
            },
            "scope": principal.scope,
            "tenant": principal.tenant,
            "auth": service.keys.required,
            "file_types": sorted(PARSERS),
        }

    def _check_question(self, text: str) -> None:
        most = self._service.limits.question_characters
        if len(text) > most:
            raise Problem(413, f"The question is longer than {most} characters")


class _Told:
    """How one answer is told: under one id, with what its passages were weighed against."""

    def __init__(self, rag: Rag, asked: AnswerRequest) -> None:
        self._rag, self._asked = rag, asked
        self._id = f"a{uuid.uuid4().hex[:24]}"

    def answer(self, whole: Answer) -> dict[str, Any]:
        """`schemas.AnswerReply`."""
        return wire.answer(
            whole,
            self._ranked(whole.ranking),
            answer_id=self._id,
            collection=self._asked.collection or DEFAULT,
        )

    def event(self, happened: Event) -> Iterator[bytes]:
        """One server-sent event."""
        ranking: Ranking | None = getattr(happened, "ranking", None)
        if ranking is None and (whole := getattr(happened, "answer", None)) is not None:
            ranking = whole.ranking
        name, data = wire.event(
            happened,
            ranked={} if ranking is None else self._ranked(ranking),
            answer_id=self._id,
            collection=self._asked.collection or DEFAULT,
        )
        yield message(data, event=name)

    def _ranked(self, found: Ranking) -> dict[str, Any]:
        top_k = self._rag.settings.reranking.top_k
        return wire.ranking(found, top_k=top_k, shown=len(found.candidates), explain=self._asked.explain)
