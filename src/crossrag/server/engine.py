"""What the routes ask of a `Rag`, for a ticket: its time is the deadline; who left is not worked for.

Tells the service what was ranked, and OpenTelemetry what was done, by names of its GenAI conventions. No text
is in either.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from crossrag import searching
from crossrag.types import Answer, Done, Event, Ranking, Retrieved, Turn, Where

from .observing import span

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

    from .service import Service
    from .tickets import Ticket


_NO_LIMIT = 86_400.0


def rank(
    service: Service, rag: Rag, query: str, *, top_k: int, where: Where | None, ticket: Ticket
) -> Ranking:
    """All candidates, the chosen ones first."""
    with span("retrieval", **_about(rag, "retrieval"), **{"gen_ai.request.top_k": top_k}):
        until = time.monotonic() + _seconds(ticket)
        prepared = searching.prepare(rag, query, until=until)
        ranking = searching.rank(rag, prepared, top_k=top_k, where=where, until=until)
        chosen = searching.choose(rag, ranking, top_k=top_k, relevant=False, until=until)
    service.ranked(ranking)
    first = {one.chunk.id for one in chosen.candidates}
    return replace(
        ranking,
        candidates=(*chosen.candidates, *(one for one in ranking.candidates if one.chunk.id not in first)),
        degraded=(*ranking.degraded, *chosen.degraded),
        notices=(*ranking.notices, *chosen.notices),
    )


def stream(
    service: Service,
    rag: Rag,
    question: str,
    *,
    history: Sequence[Turn],
    where: Where | None,
    ticket: Ticket,
) -> Iterator[Event]:
    """The events of an answer, as long as somebody waits for them."""
    with span("chat", **_about(rag, "chat")):
        own = rag.settings.generator.deadline
        deadline = _seconds(ticket) if own is None else min(own, _seconds(ticket))
        for event in rag.stream(question, history=history, where=where, deadline=deadline):
            if isinstance(event, Retrieved):
                service.ranked(event.ranking)
            ticket.check()
            yield event


def ask(
    service: Service,
    rag: Rag,
    question: str,
    *,
    history: Sequence[Turn],
    where: Where | None,
    ticket: Ticket,
) -> Answer:
    """The answer, whole."""
    events = stream(service, rag, question, history=history, where=where, ticket=ticket)
    for event in events:
        if isinstance(event, Done):
            return event.answer
    raise AssertionError("a stream ended without Done")


def _about(rag: Rag, operation: str) -> dict[str, str | int]:
    models = rag.settings.generator.model if operation == "chat" else rag.settings.reranking.model
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "crossrag",
        "gen_ai.request.model": models,
    }


def _seconds(ticket: Ticket) -> float:
    """What the engine may take of the time that is left: a little less, so that what it has still arrives."""
    remaining = ticket.remaining
    return _NO_LIMIT if remaining is None else 0.95 * remaining
