"""What the routes ask of a `Rag`, for a ticket: its time is the deadline; who left is not worked for.

Tells the service what was ranked, and OpenTelemetry what was done, by names of its GenAI conventions. No text
is in either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag import searching
from crossrag.types import Answer, Done, Event, Ranking, Retrieved, Turn, Where

from .observing import span

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

    from .service import Service
    from .tickets import Ticket


def rank(
    service: Service, rag: Rag, query: str, *, top_k: int, where: Where | None, ticket: Ticket
) -> Ranking:
    """All candidates, reranked."""
    with span("retrieval", **_about(rag, "retrieval"), **{"gen_ai.request.top_k": top_k}):
        until = ticket.deadline
        prepared = searching.prepare(rag, query, until=until)
        ranking = searching.rank(rag, prepared, top_k=top_k, where=where, until=until)
    service.ranked(ranking)
    return ranking


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
        for event in rag.stream(question, history=history, where=where, deadline=ticket.remaining):
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
