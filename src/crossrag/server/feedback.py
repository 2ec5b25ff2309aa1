"""Thumbs up and down -> JSON Lines beside the index: a log of all, and the judgements that stand.

`judgements.jsonl` is what `calibrating.read_judgements` reads: one relevant place per line.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .documents import find_entry, reassembled
from .problems import Problem

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

    from .schemas import FeedbackRequest, JudgedPassage
    from .service import Service

_QUOTE = 200
"""Characters of a passage that name it, in an index that may be cut anew."""


class Feedback:
    """The files of a service; threads take turns."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()

    def place(self, collection: str, tenant: str) -> Path:
        """The folder for a collection and a tenant; both names are the settings', never a request's."""
        root = self._service.limits.feedback or self._service.folder(collection) / "feedback"
        shared = root / collection if self._service.limits.feedback else root
        return shared / f"tenant-{tenant}" if tenant else shared

    def note(self, rag: Rag, place: Path, given: FeedbackRequest) -> str:
        """Write it down; the id under which it is in the log.

        Raises:
            Problem: A passage is not in the index.
        """
        judged = [_place_of(rag, passage) for passage in given.passages]
        written = f"f{uuid.uuid4().hex[:24]}"
        question = given.question.strip()
        entry = {
            "id": written,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "question": question,
            "verdict": given.verdict,
            "kind": given.kind,
            "answer_id": given.answer_id,
            "reason": given.reason,
            "passages": judged,
        }
        with self._lock:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (place / "feedback.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")
            # A bad answer does not make its passages bad: only a thumb on the passage itself takes one back.
            if judged and (given.verdict == "up" or given.kind == "passage"):
                _judge(place / "judgements.jsonl", question, judged, up=given.verdict == "up")
        return written


def _judge(file: Path, question: str, judged: list[dict[str, str]], *, up: bool) -> None:
    """What stands afterwards, written in one step."""
    rows = _rows(file)
    named = {(question, one["source"], one["quote"]) for one in judged}
    rows = [row for row in rows if (row["question"], row["source"], row.get("quote", "")) not in named]
    if up:
        rows += [{"question": question, **one} for one in judged]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(file)


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line.strip()]


def _place_of(rag: Rag, passage: JudgedPassage) -> dict[str, str]:
    """Source and quote, as a judgement names a place."""
    entry = find_entry(rag, passage.document_id)
    text = reassembled(rag, entry)
    if not passage.start < passage.end <= text.length:
        raise Problem(422, "The passage is not in that document")
    words = text.between(passage.start, passage.end)
    if passage.quote and " ".join(passage.quote.split()) in " ".join(words.split()):
        return {"source": entry.source, "quote": " ".join(passage.quote.split())}
    flat = " ".join(words.split())
    short = flat if len(flat) <= _QUOTE else flat[:_QUOTE].rsplit(" ", 1)[0]
    return {"source": entry.source, "quote": short}
