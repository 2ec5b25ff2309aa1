"""Files of questions -> `Dataset`: JSON Lines, CSV, folders of BEIR, folders with TREC's qrels.

One row is a question or one judgement about it; rows of the same question are put together. Known columns:

    question (query, text, user_input)          what is asked; the only one that must be there
    id (_id, query_id)                          else made from the question
    source, sources                             documents that answer it
    quote, quotes, evidence                     words in them
    grade (relevance, score)                    0 judged irrelevant, above it relevant; 1 if missing
    answer, answers, reference, ground_truth    right answers
    answerable                                  false where the documents hold no answer; so are both
                                                `answers` and `evidence` if they are there and empty

So the file of `crossrag calibrate` is one, and so is what people say of answers on the page.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrag.errors import UsageError

from . import trec
from .dataset import Dataset, Place, Question, graded, merged

_TEXT = ("question", "query", "text", "user_input")
_ID = ("id", "_id", "query_id")
_SOURCES = ("source", "sources")
_QUOTES = ("quote", "quotes", "evidence")
_GRADE = ("grade", "relevance", "score")
_ANSWERS = ("answer", "answers", "reference", "ground_truth")
_QUESTIONS = (
    "questions.jsonl",
    "questions.jsonl.gz",
    "questions.csv",
    "questions.csv.gz",
    "judgements.jsonl",  # as the server's folder of feedback has it
)
_LARGEST = 1 << 28
_HINT = 'Write one question a line: {"question": "…", "source": "…", "quote": "…", "answer": "…"}'


def read_dataset(path: Path, *, relevant_from: int = 1) -> Dataset:
    """Read a file or folder of questions.

    Args:
        path: A `.jsonl`, `.csv` or `.tsv` file of questions, gzipped or not; a folder with such a file
            called `questions`, or with the `judgements.jsonl` of a server's feedback; a folder with
            `queries.jsonl` and `qrels/NAME.tsv` (BEIR), or with `queries.jsonl` or `queries.tsv` and one
            `*qrels*` file (TREC), whose documents are named by their source.
        relevant_from: Least grade that is relevant.

    Raises:
        UsageError: It is none of these, or a line is broken; the message names the line.
    """
    if path.is_dir():
        questions = _of_folder(path)
    elif path.is_file():
        questions = _of_file(path)
    else:
        raise UsageError(f"{path} does not exist", hint="Name a file or folder of questions")
    if not questions:
        raise UsageError(f"{path} holds no questions", hint=_HINT)
    return Dataset(
        name=_stem(path.parent if _stem(path) == "questions" else path),
        questions=merged(questions),
        relevant_from=relevant_from,
    )


def is_corpus(path: Path) -> bool:
    """Whether the folder brings its own passages to search, as BEIR's do."""
    return path.is_dir() and any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def _of_folder(folder: Path) -> list[Question]:
    if file := _first(folder, *_QUESTIONS):
        return _of_file(file)
    file = _first(folder, "queries.jsonl", "queries.jsonl.gz", "queries.tsv", "queries.tsv.gz")
    if file is None:
        raise UsageError(
            f"{folder} has no file of questions", hint="It needs questions.jsonl, or queries.jsonl and qrels"
        )
    texts = dict(_queries(file))
    judged = trec.read_qrels(_qrels(folder))
    if unknown := sorted(judged.keys() - texts.keys()):
        raise UsageError(
            f"{_qrels(folder)} judges {unknown[0]!r}, which is no question of {file}",
            hint="Ids in both files must be the same",
        )
    return [Question(id=query, text=texts[query], places=graded(rows)) for query, rows in judged.items()]


def _qrels(folder: Path) -> Path:
    """`qrels/test.tsv`, the only file of judgements, or the only one that is called so."""
    for pattern in ("qrels/test.tsv*", "qrels/*.tsv*", "*qrels*"):
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{folder} has several files of judgements: {', '.join(path.name for path in found)}",
                hint="Call the one to use qrels/test.tsv",
            )
    raise UsageError(f"{folder} has no judgements", hint="Put them in qrels/test.tsv")


def _queries(file: Path) -> Iterator[tuple[str, str]]:
    if ".tsv" in file.name:
        for number, line in enumerate(text_of(file).split("\n"), start=1):
            query, tab, text = line.rstrip("\r").partition("\t")
            if tab:
                yield query, text
            elif line.strip():
                raise UsageError(f"{file}, line {number}: no tab", hint="Write id, tab, question")
        return
    for where, row in _rows(file):
        yield _one_of(row, _ID, where), _one_of(row, _TEXT, where)


def _of_file(file: Path) -> list[Question]:
    return [_question(row, where) for where, row in _rows(file)]


def _question(row: Mapping[str, Any], where: str) -> Question:
    text = _one_of(row, _TEXT, where).strip()
    if not text:
        raise UsageError(f"{where}: the question is empty", hint=_HINT)
    given = _first_of(row, _ID)
    if not isinstance(given, (str, int, type(None))):
        raise UsageError(f"{where}: the id is {given!r}, no text", hint=_HINT)
    sources = tuple(_texts(row, _SOURCES, where))
    # A link says nothing about which words of a document are meant.
    quotes = [quote for quote in _texts(row, _QUOTES, where) if "://" not in quote.split()[0]]
    grade = _grade(row, where)
    places: Sequence[Place] = [Place(sources, quote, grade) for quote in quotes]
    answerable = _truth(row.get("answerable"), where)
    if answerable is None and row.get("answers") == [] and row.get("evidence") == []:
        answerable = False
    if not quotes:
        places = [Place((source,), grade=grade) for source in sources]
    if answerable is False:
        places = [Place(place.sources, place.quote, 0) for place in places]
    return Question(
        # Not Python's own hash, which differs between processes.
        id=str(given)
        if given is not None
        else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12],
        text=text,
        places=tuple(dict.fromkeys(places)),
        answers=tuple(dict.fromkeys(_texts(row, _ANSWERS, where))),
        answerable=answerable,
    )


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = text_of(file)
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    if kind in {"csv", "tsv"}:
        rows = csv.DictReader(io.StringIO(text), delimiter="," if kind == "csv" else "\t")
        try:
            for row in rows:
                yield f"{file}, line {rows.line_num}", {str(key): value for key, value in row.items()}
        except csv.Error as error:
            raise UsageError(
                f"{file}, after line {rows.line_num}: {error}", hint="Is a quote left open?"
            ) from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{where}: {error}", hint=_HINT) from None
            if not isinstance(row, dict):
                raise UsageError(f"{where}: not an object", hint=_HINT)
            yield where, row


def text_of(file: Path) -> str:
    """A text file, gzipped or not.

    Raises:
        UsageError: It cannot be read, or is beyond 256 MiB.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(f"{file} is larger than {_LARGEST} bytes", hint="Split it")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}", hint="It must be UTF-8 text") from None


def _texts(row: Mapping[str, Any], names: Sequence[str], where: str) -> Iterator[str]:
    """All texts under these names: one, a list, or a list of objects with `content`."""
    for name in names:
        value = row.get(name)
        for item in value if isinstance(value, list) else [value]:
            text = item.get("content") if isinstance(item, dict) else item
            if text is None:
                continue
            if not isinstance(text, str):
                raise UsageError(f"{where}: {name} is no text", hint=_HINT)
            if text.strip():
                yield text.strip()


def _one_of(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    for name in names:
        if isinstance(value := row.get(name), (str, int)) and not isinstance(value, bool):
            return str(value)
    raise UsageError(f"{where}: there is none of {', '.join(names)}", hint=_HINT)


def _grade(row: Mapping[str, Any], where: str) -> int:
    value = _first_of(row, _GRADE)
    if value is None:
        return 1
    try:
        if float(value) == int(float(value)):
            return int(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"{where}: the grade is {value!r}, no whole number", hint=_HINT)


def _truth(value: Any, where: str) -> bool | None:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value is None or value == "":
        return None
    if str(value).lower() not in known:
        raise UsageError(f"{where}: answerable is {value!r}", hint="Write true or false")
    return known[str(value).lower()]


def _first_of(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of the names that has one."""
    return next((row[name] for name in names if row.get(name) is not None and row[name] != ""), None)


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name if path.is_dir() else name.rpartition(".")[0] or name
