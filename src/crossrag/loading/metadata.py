"""What may be known of a document besides its text: names with plain values, and `metadata.jsonl` with them.

Values are text, whole and other numbers, true and false, and lists of these: what a store can filter by.
"""

from __future__ import annotations

import datetime
import json
import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .repair import clean_text

SIDECAR = "metadata.jsonl"
"""The file of this name describes the documents in its folder and below; it is no document itself."""

RESERVED = frozenset(
    (
        *(
            "source",
            "document_id",
            "chunk_id",
            "chunk_length",
            "variant",
            "start",
            "end",
            "title",
            "title_path",
        ),
        *("page", "page_name", "generation", "tenant"),
    )
)
"""Names that a chunk's own payload uses; metadata of a user can not replace them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_WORDS = frozenset(("and", "or", "not"))
"""What a filter joins conditions with."""
_LONGEST_VALUE = 4_096
_LONGEST_LIST = 256
_LONGEST_LINE = 1_000_000
_EXACT = 2**53
"""Beyond it, neighbouring whole numbers are one to a store."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The content of a `metadata.jsonl`: metadata by path below its folder, and what is wrong with it."""

    by_path: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    """On which line each path stands."""
    notices: tuple[str, ...] = ()


def checked_value(key: str, value: Any) -> tuple[Any, str]:
    """The value as it can be stored, None for none, and the reason why it cannot be, if it cannot."""
    if not _NAME.fullmatch(key) or key in _WORDS:
        return (
            None,
            f"{key[:40]!r} is no name to filter by: one to 64 of A-Z, a-z, 0-9, _ and -",
        )
    if key in RESERVED:
        return None, f"{key!r} is a name that crossrag uses itself"
    if isinstance(value, list | tuple):
        if len(value) > _LONGEST_LIST:
            return None, f"{key!r} has more than {_LONGEST_LIST} values"
        scalars = [_scalar(each) for each in value]
        wrong = next((reason for _, reason in scalars if reason), "")
        return [each for each, _ in scalars if each is not None], wrong and f"{key!r} {wrong}"
    scalar, wrong = _scalar(value)
    return scalar, wrong and f"{key!r} {wrong}"


def _scalar(value: Any) -> tuple[Any, str]:
    if isinstance(value, str):
        text = clean_text(value)
        return (
            (None, f"is longer than {_LONGEST_VALUE} characters")
            if len(text) > _LONGEST_VALUE
            else (text, "")
        )
    if value is None or isinstance(value, bool):
        return value, ""
    if isinstance(value, int):
        return (value, "") if abs(value) <= _EXACT else (None, "is a number beyond 2^53; write it as text")
    if isinstance(value, float):
        return (value, "") if math.isfinite(value) else (None, "is no finite number")
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date too
        return value.isoformat(), ""
    kinds: dict[type, str] = {dict: "is a group of values", list: "is a list within a list"}
    kind = kinds.get(type(value), "has no plain value")
    return None, f"{kind}; text, numbers, true, false and lists of them are kept"


def read_sidecar(data: bytes) -> Sidecar:
    """Each line is an object whose `source` is a path below the folder, such as `handbook/leave.md`.

    `title` becomes the document's; the rest is metadata. A later line adds to an earlier one of the same
    source. What cannot be kept is a notice with its line.
    """
    by_path: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    notices: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        record, wrong = _record(line)
        if wrong:
            notices.append(f"{SIDECAR}, line {number}: {wrong}")
            continue
        path = posixpath.normpath(str(record.pop("source")))
        lines.setdefault(path, number)
        known = by_path.setdefault(path, {})
        for key, value in record.items():
            # A title is the document's own, and can be given here.
            kept, wrong = (
                (value, "") if key == "title" and isinstance(value, str) else checked_value(key, value)
            )
            if wrong:
                notices.append(f"{SIDECAR}, line {number}: {wrong}")
            elif kept is not None:
                known[key] = kept
    return Sidecar(by_path, lines, tuple(notices))


def _record(line: bytes) -> tuple[dict[str, Any], str]:
    if len(line) > _LONGEST_LINE:
        return {}, f"is longer than {_LONGEST_LINE} bytes"
    try:
        record = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except RecursionError:
        return {}, "is nested too deeply"
    except ValueError as error:  # wrong UTF-8 and wrong JSON both are
        return {}, f"is no JSON: {str(error)[:120]}"
    if not isinstance(record, dict) or not isinstance(record.get("source"), str) or not record["source"]:
        return {}, 'is no object with a "source", the path of a document below this folder'
    return record, ""
