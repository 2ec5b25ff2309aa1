"""Folders of judged pairs (BEIR's layout) -> collections.

    corpus.jsonl[.gz]    {"_id": "d1", "title": "…", "text": "…"}
    queries.jsonl[.gz]   {"_id": "q1", "text": "…"}
    qrels/NAME.tsv[.gz]  query-id  corpus-id  score   (header; above 0 relevant, 0 judged irrelevant)

Where several sets share a folder, their ids have the form `set:id` and `by_prefix` tells them apart: they
become collections of their own, which never see each other's passages.

Thakur et al. (2021), "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval
Models".
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossrag.errors import UsageError


@dataclass(frozen=True, slots=True)
class Passage:
    """One entry of a corpus."""

    id: str
    title: str
    text: str

    @property
    def described(self) -> str:
        """Title and text: what is embedded, indexed and read."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Collection:
    """A corpus with questions about it and judgements per split."""

    name: str
    passages: tuple[Passage, ...]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """split -> query id -> passage id -> grade."""


def read_collections(
    folder: Path, *, splits: Sequence[str] | None = None, by_prefix: bool = False
) -> list[Collection]:
    """Read one folder.

    Args:
        folder: With `corpus.jsonl`, `queries.jsonl` and `qrels/`, each plain or gzipped.
        splits: Names of the qrels files to read; all of them if None.
        by_prefix: Whether ids are `set:id` and each set is a collection of its own.

    Raises:
        UsageError: A file is missing, a line is broken, or a judgement is of an unknown question.
    """
    set_of = _prefix if by_prefix else _one
    passages: dict[str, list[Passage]] = {}
    for row in _rows(_existing(folder, "corpus.jsonl")):
        passage = Passage(str(row["_id"]), str(row.get("title") or "").strip(), str(row["text"]))
        passages.setdefault(set_of(passage.id), []).append(passage)
    queries: dict[str, dict[str, str]] = {}
    for row in _rows(_existing(folder, "queries.jsonl")):
        queries.setdefault(set_of(str(row["_id"])), {})[str(row["_id"])] = str(row["text"])
    judgements: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for split, path in _qrels(folder, splits):
        for query, passage_id, grade in _judged(path):
            of_set = judgements.setdefault(set_of(query), {}).setdefault(split, {})
            of_set.setdefault(query, {})[passage_id] = grade
    found = [
        Collection(name or folder.name, tuple(rows), queries.get(name, {}), judgements.get(name, {}))
        for name, rows in sorted(passages.items())
    ]
    _check(found, folder)
    return found


def check_folder(folder: Path) -> None:
    """Raise UsageError where a folder is not of that layout, without reading it."""
    for name in ("corpus.jsonl", "queries.jsonl"):
        _existing(folder, name)
    if not _qrels(folder, None):
        raise UsageError(f"{folder / 'qrels'} has no judgements", hint="Put NAME.tsv files there")


def _check(collections: Sequence[Collection], folder: Path) -> None:
    # Judged passages that are missing are common, where a corpus is a selection; questions are not.
    for collection in collections:
        for split, judged in collection.judgements.items():
            for query in judged:
                if query not in collection.queries:
                    raise UsageError(
                        f"{folder}/qrels/{split}: {query!r} is no question",
                        hint="Every first column must stand in queries.jsonl",
                    )


def _prefix(identifier: str) -> str:
    name, colon, _ = identifier.partition(":")
    if not colon:
        raise UsageError(f"The id {identifier!r} names no set", hint="Write set:id, or leave out by_prefix")
    return name


def _one(_: str) -> str:
    return ""


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UsageError(
        f"{folder / name} is missing", hint="A folder of judged pairs has corpus.jsonl, queries.jsonl, qrels/"
    )


def _qrels(folder: Path, splits: Sequence[str] | None) -> list[tuple[str, Path]]:
    found = {path.name.split(".tsv")[0]: path for path in sorted((folder / "qrels").glob("*.tsv*"))}
    for split in splits or ():
        if split not in found:
            raise UsageError(
                f"{folder / 'qrels' / split}.tsv is missing", hint=f"There is: {', '.join(found)}"
            )
    return [(split, path) for split, path in found.items() if splits is None or split in splits]


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason}", hint="Convert it to UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="The file may be cut: copy it again"
        ) from None


def _rows(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line)
            if not {"_id", "text"} <= row.keys():
                raise ValueError("it needs _id and text")
            if not isinstance(row["text"], str):
                raise TypeError("text must be a string")
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}, line {number}: {error}", hint="One JSON object per line") from None
        yield row


def _judged(path: Path) -> Iterator[tuple[str, str, int]]:
    for number, row in enumerate(csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if number == 1 and not _is_number(row[-1] if row else ""):
            continue  # the header, which some folders lack
        try:
            query, passage, grade = row[:3]
            yield query, passage, int(float(grade))
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"{path}, line {number}: {error}", hint="Three columns: query-id, corpus-id, score"
            ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
