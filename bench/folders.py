"""Real files, end to end: how often the words of the reference answer stand in the text that is cited.

    python bench/folders.py --data ../shared/data/rag --questions 100

Files are ingested by `Rag` with its defaults and asked about. Questions are a fixed sample.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import head, printed, sample, write
from crossrag import Rag


def main() -> None:
    """Measure, print as Markdown, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/rag"), help="folders of files")
    parser.add_argument("--questions", type=int, default=100, help="most questions per folder")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is missing: name a folder with --data")
    write(_report(arguments), arguments.out)


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    yield from printed(head(arguments.questions))
    yield from printed(
        (
            "| folder | files | questions | reference's words cited | answered | ms per question |",
            "|---|---|---|---|---|---|",
        )
    )
    for folder in sorted(arguments.data.iterdir()):
        if not arguments.sets or folder.name in arguments.sets:
            yield from printed((_folder(folder, arguments.questions),))


def _folder(folder: Path, questions: int) -> str:
    rows = [
        row for row in rows_of(folder / "questions.jsonl.gz") if row.get("answers") or row.get("evidence")
    ]
    chosen = sample(rows, min(questions, 100))
    files = [path for path in (folder / "docs").rglob("*") if path.is_file()]
    recalls, answered, seconds = [], 0, []
    with tempfile.TemporaryDirectory() as scratch, Rag.open(Path(scratch) / "index") as rag:
        rag.ingest(*needed(folder / "docs", chosen, files))
        for row in chosen:
            begun = time.perf_counter()
            answer = rag.ask(row["question"])
            seconds.append(time.perf_counter() - begun)
            answered += answer.status == "answered"
            cited = {citation.number for citation in answer.citations}
            text = " ".join(source.chunk.text for source in answer.context.sources if source.number in cited)
            recalls.append(max(words_found(reference, text) for reference in references(row)))
    share = statistics.mean(recalls)
    return (
        f"| {folder.name} | {len(files)} | {len(chosen)} | {share:.3f} | {answered / len(chosen):.2f} "
        f"| {statistics.median(seconds) * 1000:.0f} |"
    )


def needed(docs: Path, rows: Sequence[Any], files: Sequence[Path]) -> list[Path]:
    """The whole folder; of one with hundreds of files, those asked about and fifty others."""
    if len(files) <= 100:
        return [docs]
    named = {source for row in rows for source in row["sources"]}
    others = sample(sorted(path for path in files if path.name not in named), 50)
    return sorted([path for path in files if path.name in named] + others)


def references(row: Any) -> list[str]:
    """The answers of a question, or the evidence where there are none."""
    evidence = [item["content"] if isinstance(item, dict) else item for item in row.get("evidence", [])]
    return row["answers"] or [" ".join(evidence)]


def words_found(reference: str, text: str) -> float:
    """Share of the words of the one that the other has."""
    wanted, there = set(_words(reference)), set(_words(text))
    return len(wanted & there) / len(wanted) if wanted else 1.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def rows_of(path: Path) -> Iterator[Any]:
    """Gzipped JSON Lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
