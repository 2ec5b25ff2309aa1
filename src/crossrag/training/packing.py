"""Mined questions in one gzipped JSON Lines file, to train from on another machine, and back.

{"collection": "squad", "split": "train", "passages": [["id", "title", "text"], …]}
{"id": "q1", "text": "…", "rows": [[passage number, grade, cosine, bm25], …]}      (of the collection above)
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossrag.errors import UsageError

from .judged import Passage
from .mining import Mined, Question


def write_pack(path: Path, parts: Iterable[tuple[str, Mined]]) -> None:
    """Write (split, questions) pairs; the same input gives the same bytes."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        for split, mined in parts:
            passages = [[passage.id, passage.title, passage.text] for passage in mined.passages]
            header = {"collection": mined.name, "split": split, "passages": passages}
            for row in (header | {"searched": mined.searched}, *_rows(mined)):
                packed.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def read_pack(path: Path) -> dict[str, list[Mined]]:
    """Splits and their collections.

    Raises:
        UsageError: The file is not of this form.
    """
    found: dict[str, list[Mined]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for header, questions in _sections(map(json.loads, lines)):
                passages = tuple(Passage(*row) for row in header["passages"])
                searched = int(header.get("searched", 0))
                mined = Mined(header["collection"], passages, tuple(questions), searched)
                found.setdefault(header["split"], []).append(mined)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no packed training data: {error}", hint="Pack it again") from None
    return found


def _rows(mined: Mined) -> Iterator[dict[str, Any]]:
    for question in mined.questions:
        columns = (question.passages.tolist(), question.grades.tolist(), question.first_stage.tolist())
        rows = [
            [number, grade, round(dense, 5), round(sparse, 4)]
            for number, grade, (dense, sparse) in zip(*columns, strict=True)
        ]
        yield {"id": question.id, "text": question.text, "rows": rows}


def _sections(rows: Iterator[Any]) -> Iterator[tuple[Any, list[Question]]]:
    header: Any = None
    questions: list[Question] = []
    for row in rows:
        if "collection" in row:
            if header is not None:
                yield header, questions
            header, questions = row, []
        else:
            table = np.asarray(row["rows"], np.float32).reshape(-1, 4)
            questions.append(
                Question(
                    row["id"],
                    row["text"],
                    table[:, 0].astype(np.int32),
                    table[:, 1].astype(np.int8),
                    np.ascontiguousarray(table[:, 2:]),
                )
            )
    if header is not None:
        yield header, questions
