"""Questions at a prompt -> answers, with what was said before; the history is kept here and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crossrag.errors import CrossragError
from crossrag.types import Done, Turn

from . import show

if TYPE_CHECKING:
    from crossrag.pipeline import Rag
    from crossrag.types import Answer

COMMANDS = {
    "/sources": "the passages that the last answer could use",
    "/explain": "the whole path to the last answer",
    "/new": "forget what was said",
    "/help": "this list",
    "/quit": "leave; Ctrl-D does, too",
}
PROMPT = "> "


def talk_over(rag: Rag, *, where: dict[str, Any], deadline: float | None = None) -> None:
    """Until the end of input or `/quit`. An error ends a question, not the conversation.

    Args:
        rag: What answers.
        where: Keep only chunks whose metadata equals this.
        deadline: Seconds for each answer.
    """
    history: list[Turn] = []
    last: Answer | None = None
    if sys.stdin.isatty():
        show.talk("Ask about your documents. /help lists the commands, /quit leaves.")
    for line in _lines():
        if line.startswith("/"):
            if line == "/quit":
                return
            if line == "/new":
                history, last = [], None
            _command(line, rag, last)
            continue
        try:
            events = rag.stream(line, history=history, where=where, deadline=deadline)
            keep: list[Answer] = []
            show.answer_stream(_seen(events, keep), context=False)
        except CrossragError as error:
            show.error(str(error))
            continue
        except KeyboardInterrupt:
            show.talk("\nStopped. The question was forgotten.")
            continue
        last = keep[0]
        history += [Turn(role="user", text=line), Turn(role="assistant", text=last.text)]


def _command(line: str, rag: Rag, last: Answer | None) -> None:
    if line == "/help":
        for name, text in COMMANDS.items():
            print(f"{name:<10}{text}")
    elif line == "/new":
        show.talk("Forgotten.")
    elif line not in COMMANDS:
        show.error(f"There is no command {line}; /help lists them")
    elif last is None:
        show.talk("Nothing was asked yet.")
    elif line == "/explain":
        show.explained(last, rag)
    else:
        show.passages(last.context)


def _lines() -> Iterator[str]:
    """What is typed, or piped in, without empty lines."""
    ask = _ask if sys.stdin.isatty() else _read
    while (line := ask()) is not None:
        if text := line.strip():
            yield text


def _ask() -> str | None:
    with suppress(ImportError):
        import readline  # noqa: F401 - line editing and history of input(), where there is such a thing
    try:
        return input(PROMPT)
    except EOFError:
        print()
        return None


def _read() -> str | None:
    return sys.stdin.readline() or None


def _seen(events: Iterator[Any], keep: list[Answer]) -> Iterator[Any]:
    for event in events:
        if isinstance(event, Done):
            keep.append(event.answer)
        yield event
