"""What travels between driver and workers: changes and prepared documents, as rows of text and bytes.

A row is a shelf: some files whose order is the plan's, read, cut and embedded together. Knows nothing of Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag import errors
from crossrag.errors import CrossragError
from crossrag.files import File, Look
from crossrag.manifest import Entry
from crossrag.planning import Change
from crossrag.preparing import Prepared
from crossrag.types import Chunk, SparseVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.preparing import Vectors

_SHELF_BYTES, _SHELF_FILES = 262_144, 64
"""A shelf is a few hundred chunks: seconds of embedding, which is what the loss of a worker costs."""

Row = dict[str, Any]
_CHUNK = tuple(field.name for field in fields(Chunk))


@dataclass(frozen=True, slots=True)
class Shelf:
    """Files that travel together."""

    number: int
    changes: Sequence[Change]


def shelves(changes: Sequence[Change]) -> Iterator[Shelf]:
    """Changes in their order, cut by the size and number of their files: the same plan, the same shelves."""
    number, start, size = 0, 0, 0
    for end, change in enumerate(changes):
        if end > start and (size + change.look.size > _SHELF_BYTES or end - start == _SHELF_FILES):
            yield Shelf(number, changes[start:end])
            number, start, size = number + 1, end, 0
        size += change.look.size
    if start < len(changes):
        yield Shelf(number, changes[start:])


def mark(text: str) -> str:
    """Stands for a text in a row. Two texts of one mark cost an embedding by the driver, nothing else."""
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


# --- driver -> reader


def asked(shelf: Shelf, known: Sequence[Sequence[str]]) -> Row:
    """Changes as a row, each with the marks of the texts that need no vector."""
    told = [
        {
            "kind": change.kind,
            "file": asdict(change.file) | {"path": str(change.file.path)},
            "content_hash": change.content_hash,
            "look": asdict(change.look),
            "previous": asdict(change.previous) if change.previous else None,
            "known": list(marks),
        }
        for change, marks in zip(shelf.changes, known, strict=True)
    ]
    # Surrogates, which come from names that are no UTF-8, are written out in ASCII.
    return {"number": shelf.number, "told": json.dumps(told)}


def changes_of(row: Row) -> list[tuple[Change, list[str]]]:
    """The inverse of `asked`; the twin stays with the driver."""
    return [
        (
            Change(
                kind=one["kind"],
                file=File(**one["file"] | {"path": Path(one["file"]["path"])}),
                content_hash=one["content_hash"],
                look=Look(**one["look"]),
                previous=Entry(**one["previous"]) if one["previous"] else None,
            ),
            one["known"],
        )
        for one in json.loads(row["told"])
    ]


# --- reader -> embedder


def read(number: int, documents: Sequence[tuple[Prepared, Sequence[str]]]) -> Row:
    """Prepared documents, still without vectors."""
    told = [
        {
            "content_hash": one.change.content_hash,
            "look": asdict(one.change.look),
            "chunks": [{name: getattr(chunk, name) for name in _CHUNK} for chunk in one.chunks],
            "notices": one.notices,
            "failure": one.failure,
            "unchanged": one.unchanged,
            "known": list(marks),
        }
        for one, marks in documents
    ]
    return {"number": number, "told": json.dumps(told), "error": ""}


def texts_of(row: Row) -> list[str]:
    """Described texts of a row that have no vector yet, each once, in order."""
    return _new_texts(json.loads(row["told"]))


def _new_texts(told: Sequence[Mapping[str, Any]]) -> list[str]:
    texts: dict[str, None] = {}
    for one in told:
        known = set(one["known"])
        described = [_chunk(fields_of).described for fields_of in one["chunks"]]
        texts |= dict.fromkeys(text for text in described if not known or mark(text) not in known)
    return list(texts)


# --- embedder -> driver


def embedded(row: Row, dense: NDArray[np.float32], sparse: Sequence[SparseVector]) -> Row:
    """The row with the vectors of its texts: float32[n, d] and terms, as bytes."""
    import numpy as np

    return row | {
        "dense": dense.astype("<f4").tobytes(),
        "lengths": np.array([len(one.indices) for one in sparse], "<i8").tobytes(),
        "terms": np.array([index for one in sparse for index in one.indices], "<i8").tobytes(),
        "weights": np.array([value for one in sparse for value in one.values], "<f8").tobytes(),
    }


def failed(row: Row, error: CrossragError) -> Row:
    """A row for an error that ends the run."""
    told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    return {"number": row["number"], "told": "[]", "error": json.dumps(told)}


def prepared(row: Row, changes: Sequence[Change]) -> Iterator[Prepared]:
    """Documents with chunks and vectors, for the changes that the row was made of.

    Raises:
        CrossragError: What a worker has raised.
    """
    if row["error"]:
        raise _raised(json.loads(row["error"]))
    told = json.loads(row["told"])
    vectors = _vectors(row, _new_texts(told))
    for change, one in zip(changes, told, strict=True):
        chunks = tuple(_chunk(fields_of) for fields_of in one["chunks"])
        described = {chunk.described for chunk in chunks}
        yield Prepared(
            change=replace(change, content_hash=one["content_hash"], look=Look(**one["look"])),
            chunks=chunks,
            notices=tuple(one["notices"]),
            failure=one["failure"],
            unchanged=one["unchanged"],
            vectors={text: vectors[text] for text in described if text in vectors},
        )


def _vectors(row: Row, texts: Sequence[str]) -> dict[str, Vectors]:
    import numpy as np

    if not texts:
        return {}
    dense = np.frombuffer(row["dense"], "<f4").reshape(len(texts), -1)
    lengths = np.frombuffer(row["lengths"], "<i8")
    terms, weights = (np.frombuffer(row[name], kind) for name, kind in (("terms", "<i8"), ("weights", "<f8")))
    ends = np.cumsum(lengths)
    return {
        text: (
            vector,
            SparseVector(
                tuple(terms[end - length : end].tolist()), tuple(weights[end - length : end].tolist())
            ),
        )
        for text, vector, length, end in zip(texts, dense, lengths, ends, strict=True)
    }


def _chunk(told: Mapping[str, Any]) -> Chunk:
    return Chunk(**{**told, "title_path": tuple(told["title_path"])})


def _raised(told: Mapping[str, str]) -> CrossragError:
    kind = getattr(errors, told["kind"], CrossragError)
    error: CrossragError = kind(told["message"], hint=told["hint"])
    return error
