"""Runs and judgements in TREC's formats, and BEIR's judgements, to and from mappings.

run     query  Q0  document  rank  score  tag
qrels   query  0   document  grade             (TREC)
        query-id  corpus-id  score             (BEIR, tab-separated, with this header)
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossrag.errors import UsageError

Run = Mapping[str, Sequence[str]]
"""Query -> documents, best first, each once."""
Qrels = Mapping[str, Mapping[str, int]]
"""Query -> document -> grade."""


def write_run(run: Run, path: Path, *, tag: str) -> None:
    """Write documents in their order. Scores fall strictly: tools break ties in different ways."""
    lines = [
        f"{query} Q0 {document} {rank} {len(documents) - rank + 1} {tag}"
        for query, documents in run.items()
        for rank, document in enumerate(documents, start=1)
    ]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def read_run(path: Path) -> dict[str, list[str]]:
    """Read a run, ordered by score, then by rank; what is repeated counts once, where it stands best.

    Raises:
        UsageError: A line is broken; the message names it.
    """
    scored: dict[str, list[tuple[float, float, str]]] = {}
    for number, parts in _lines(path):
        try:
            query, _, document, rank, score = parts[:5]
            value = float(score)
            if math.isnan(value):
                raise ValueError("the score is no number")
            scored.setdefault(query, []).append((-value, float(rank), document))
        except ValueError as error:
            raise UsageError(
                f"{path}, line {number}: {error}", hint="Write query, Q0, document, rank, score, tag"
            ) from None
    return {
        query: list(dict.fromkeys(document for *_, document in sorted(rows)))
        for query, rows in scored.items()
    }


def write_qrels(qrels: Qrels, path: Path) -> None:
    """Write judgements in TREC's format."""
    lines = [
        f"{query} 0 {document} {grade}" for query, rows in qrels.items() for document, grade in rows.items()
    ]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements in TREC's or BEIR's format.

    Raises:
        UsageError: A line is broken; the message names it.
    """
    found: dict[str, dict[str, int]] = {}
    for number, parts in _lines(path, tabs=True):
        if number == 1 and parts[0] in {"query-id", "query_id"}:
            continue
        try:
            query, document, grade = parts if len(parts) == 3 else (parts[0], parts[2], parts[3])
            found.setdefault(query, {})[document] = _whole(grade)
        except (ValueError, IndexError):
            raise UsageError(
                f"{path}, line {number}: no judgement",
                hint="Write query, 0, document, grade; grades are whole numbers",
            ) from None
    return found


def _whole(grade: str) -> int:
    """Also `1.0`, as some write it."""
    value = float(grade)
    if not value.is_integer():
        raise ValueError("the grade is no whole number")
    return int(value)


def _lines(path: Path, *, tabs: bool = False) -> Iterator[tuple[int, list[str]]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = line.rstrip("\r\n")
                    yield number, row.split("\t") if tabs and "\t" in row else row.split()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="It must be UTF-8 text") from None
