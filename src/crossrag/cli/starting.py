"""`crossrag eval init`: a file of questions from the index, by a model, from headings, or by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import UsageError
from crossrag.evaluation import starter

from . import show

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

_SHOWN = 5


def begin(rag: Rag, out: Path, *, count: int, by_hand: bool) -> None:
    """Write questions, or ask for them."""
    known = starter.asked_already(out)
    if by_hand:
        _by_hand(rag, out, count=count, known=known)
        return
    written = 0
    with show.counting("asking for questions") as step:
        for row in starter.starter(rag, count=count, known=known):
            # At once: what a model has written is not lost when it cannot be asked any more.
            starter.append(out, [row])
            written += 1
            step(written, count)
    if not written:
        raise UsageError("The index has no passage to ask about", hint="Ingest more documents, or --by-hand")
    how = (
        "by the language model"
        if rag.complete is not None
        else "from headings, as there is no language model"
    )
    print(f"{written} questions, {how}, are in {out}.")
    show.talk(
        "Read them before you trust them: throw away what nobody would ask, and mend the wording. "
        f"Then: crossrag eval {out}"
    )


def _by_hand(rag: Rag, out: Path, *, count: int, known: set[str]) -> None:
    """Show a passage, take a question, show what is found, take judgements. Everything is kept at once."""
    if not sys.stdin.isatty():
        show.talk("Reading questions and judgements from standard input.")
    written = 0
    for number, chunk in enumerate(starter.passages(rag)[:count], start=1):
        print(f"\n--- passage {number} of {count}: {chunk.location}\n{chunk.text}\n")
        question = _asked("A question that this passage answers (empty: next passage, q: stop): ")
        if question == "q":
            break
        if not question or question in known:
            continue
        known.add(question)
        rows = [starter.row(question, chunk)]
        others = [c for c in rag.search(question, top_k=_SHOWN) if c.chunk.id != chunk.id]
        for place, candidate in enumerate(others, start=1):
            print(f"\n[{place}] {candidate.chunk.location}\n{candidate.chunk.text[:400]}")
        if others:
            said = _asked("Which of these answer it, too? Numbers with spaces, empty for none, s to skip: ")
            if said != "s":
                chosen = {int(part) for part in said.split() if part.isdecimal()}
                rows += [
                    starter.judgement(question, candidate, relevant=place in chosen)
                    for place, candidate in enumerate(others, start=1)
                ]
        starter.append(out, rows)
        written += 1
    print(f"\n{written} questions were added to {out}.")


def _asked(prompt: str) -> str:
    """A line; the end of the input ends the session."""
    print(prompt, end="", flush=True)
    line = sys.stdin.readline()
    return line.strip() if line else "q"
