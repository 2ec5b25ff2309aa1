"""What the routes ask of a `Rag`, for a ticket: its time is the deadline; who left is not worked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag import asking
from crossrag.types import Answer, Done, Event, Ranking, Turn, Where

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

    from .tickets import Ticket


def rank(rag: Rag, query: str, *, top_k: int, where: Where | None, ticket: Ticket) -> Ranking:
    """All candidates, reranked."""
    return asking.rank(rag, query, top_k=top_k, where=where, deadline=ticket.remaining)


def stream(
    rag: Rag, question: str, *, history: Sequence[Turn], where: Where | None, ticket: Ticket
) -> Iterator[Event]:
    """The events of an answer, as long as somebody waits for them."""
    for event in rag.stream(question, history=history, where=where):
        ticket.check()
        yield event


def ask(rag: Rag, question: str, *, history: Sequence[Turn], where: Where | None, ticket: Ticket) -> Answer:
    """The answer, whole."""
    for event in stream(rag, question, history=history, where=where, ticket=ticket):
        if isinstance(event, Done):
            return event.answer
    raise AssertionError("a stream ended without Done")
