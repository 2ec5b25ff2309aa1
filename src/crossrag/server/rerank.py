"""`/v1/rerank`, `/v2/rerank` (Cohere, Jina, vLLM together) and `/rerank` (TEI): documents by relevance."""

import math
import uuid
from typing import Any

from starlette.requests import Request

from crossrag.types import Relevance

from .dialects import RerankDocument, RerankReply, RerankRequest, TeiRequest, TeiResult
from .problems import Problem
from .routing import Router
from .running import opened, run
from .service import DEFAULT, Service
from .tickets import Ticket

_LOWEST_LOGIT = -1e4
"""What a document without a finite score gets: clients sort numbers, and null is none."""


class Rerank:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def register(self, router: Router, responses: dict[int | str, Any], tei: dict[int | str, Any]) -> None:
        """Add them."""
        for path in ("/v1/rerank", "/v2/rerank"):
            router.add(
                "POST",
                path,
                self.cohere,
                "read",
                response_model=RerankReply,
                response_model_exclude_none=True,
                responses=responses,
            )
        router.add(
            "POST",
            "/rerank",
            self.tei,
            "read",
            response_model=list[TeiResult] | RerankReply,
            response_model_exclude_none=True,
            responses=tei,
        )

    async def cohere(self, request: Request, asked: RerankRequest) -> dict[str, Any]:
        """Documents, most relevant first."""
        texts = [one.text if isinstance(one, RerankDocument) else one for one in asked.documents]
        said = await self._said(request, asked.query, texts)
        scores, broken = _scores(said, raw=bool(asked.raw_scores))
        tokens = sum(-(-len(text) // 4) for text in (asked.query, *texts))
        meta: dict[str, Any] = {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens},
        }
        if warnings := _warnings(said, broken):
            meta["warnings"] = warnings
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "object": "rerank",
            "model": self._service.settings.reranking.model,
            "results": [
                {"index": index, "relevance_score": scores[index]}
                | ({"document": {"text": texts[index]}} if asked.return_documents else {})
                for index in _order(scores)[: asked.top_n or len(scores)]
            ],
            "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
            "meta": meta,
        }

    async def tei(self, request: Request, asked: TeiRequest) -> Any:
        """Texts, most relevant first, as a bare list; with `documents`, as `/v1/rerank`."""
        if asked.texts is None:
            if asked.documents is None:
                raise Problem(422, "texts: Field required")
            fields = asked.model_dump(exclude={"texts", "truncate", "return_text"})
            return await self.cohere(request, RerankRequest.model_validate(fields))
        said = await self._said(request, asked.query, asked.texts)
        scores, _ = _scores(said, raw=bool(asked.raw_scores))
        return [
            {"index": index, "score": scores[index]}
            | ({"text": asked.texts[index]} if asked.return_text else {})
            for index in _order(scores)
        ]

    async def _said(self, request: Request, query: str, texts: list[str]) -> Relevance:
        limits = self._service.limits
        if not texts:
            raise Problem(422, "There are no documents to rerank")
        if len(texts) > limits.rerank_documents:
            raise Problem(413, f"More than {limits.rerank_documents} documents", hint="Send fewer at once")
        if len(query) > limits.question_characters:
            raise Problem(413, f"The query is longer than {limits.question_characters} characters")
        rag = await opened(request, self._service, DEFAULT)
        if rag.reranker is None:
            raise Problem(503, "This server has no reranker")

        def work(ticket: Ticket) -> Relevance:
            return rag.rerank(query, texts, deadline=ticket.remaining)

        return await run(request, self._service, work)


def _scores(said: Relevance, *, raw: bool) -> tuple[list[float], int]:
    """A finite number for each, and how many had none."""
    floor = _LOWEST_LOGIT if raw else 0.0
    numbers = said.logit if raw else said.relevance
    return [number if math.isfinite(number) else floor for number in numbers], sum(
        not math.isfinite(number) for number in numbers
    )


def _order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def _warnings(said: Relevance, broken: int) -> list[str]:
    counts = (
        (broken, f"{broken} documents got no score and rank last"),
        (sum(said.truncated), f"{sum(said.truncated)} documents were cut to the reranker's length"),
        (said.query_truncated, "the query was cut to the reranker's length"),
        (said.hurried, "time was up: some scores are estimates"),
    )
    return [text for happened, text in counts if happened]
