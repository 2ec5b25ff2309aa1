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

_LOG, _JUDGEMENTS = "feedback.jsonl", "judgements.jsonl"
_MINUTE = 60.0
_QUOTE = 200
"""Characters of a passage that name it, in an index that may be cut anew."""


class Feedback:
    """The files of a service; threads take turns."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._minutes: dict[str, tuple[float, int]] = {}
        """By key: when its minute began, and how many thumbs it has had since."""

    def place(self, collection: str, tenant: str) -> Path:
        """The folder for a collection and a tenant; both names are the settings', never a request's."""
        root = self._service.limits.feedback or self._service.folder(collection) / "feedback"
        shared = root / collection if self._service.limits.feedback else root
        return shared / f"tenant-{tenant}" if tenant else shared

    def check_rate(self, key: str) -> None:
        """Count one more thumb of this key; on the event loop, as nothing waits here.

        Raises:
            Problem: 429, it has had as many as a minute may have.
        """
        now, most = time.monotonic(), self._service.limits.feedback_per_minute
        self._minutes = {name: one for name, one in self._minutes.items() if now < one[0] + _MINUTE}
        began, count = self._minutes.get(key, (now, 0))
        if count >= most:
            raise Problem(
                429,
                f"More than {most} thumbs in a minute",
                hint="Try again later, or raise server.feedback_per_minute",
                retry_after=began + _MINUTE - now,
            )
        self._minutes[key] = began, count + 1

    def note(self, rag: Rag, place: Path, given: FeedbackRequest) -> str:
        """Write it down; the id under which it is in the log.

        Raises:
            Problem: A passage is not in the index; or 413, there is no room for more.
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
        line = _line(entry)
        stands = [{"question": question, **one} for one in judged] if given.verdict == "up" else []
        with self._lock:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_room(place, sum(len(text.encode()) for text in (line, *map(_line, stands))))
            with (place / _LOG).open("a", encoding="utf-8") as log:
                log.write(line)
            # A bad answer does not make its passages bad: only a thumb on the passage itself takes one back.
            if judged and (given.verdict == "up" or given.kind == "passage"):
                _judge(place / _JUDGEMENTS, question, judged, stands)
        return written

    def _check_room(self, place: Path, more: int) -> None:
        files = (place / _LOG, place / _JUDGEMENTS)
        size = sum(file.stat().st_size for file in files if file.is_file())
        if size + more > self._service.limits.feedback_bytes:
            raise Problem(
                413,
                "There is no room for more feedback",
                hint=f"Move {_LOG} away, or raise server.feedback_bytes",
                code="feedback_full",
            )


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _judge(file: Path, question: str, judged: list[dict[str, str]], stands: list[dict[str, str]]) -> None:
    """What stands afterwards, written in one step."""
    rows = _rows(file)
    named = {(question, one["source"], one["quote"]) for one in judged}
    rows = [row for row in rows if (row["question"], row["source"], row.get("quote", "")) not in named]
    rows += stands
    partial = file.with_suffix(".partial")
    partial.write_text("".join(map(_line, rows)), encoding="utf-8")
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
