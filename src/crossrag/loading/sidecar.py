"""`metadata.jsonl`, a file beside documents that says what else is known of them -> metadata by path."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .metadata import Gathering, Notices
from .repair import clean_text

SIDECAR = "metadata.jsonl"
"""The file of this name describes the documents in its folder and below; it is no document itself."""

_LONGEST_LINE = 1_000_000
_LONGEST_TITLE = 1_000


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Metadata by path below the file's folder, and what is wrong with it."""

    by_path: Mapping[str, Mapping[str, Any]]
    notices: tuple[str, ...]


def read_sidecar(data: bytes, *, is_document: Callable[[str], bool], others: bool = False) -> Sidecar:
    """Each line is an object whose `source` is a path below the folder, such as `handbook/leave.md`.

    `title` becomes the document's; the rest is metadata. A later line adds to an earlier one of the same
    source. What cannot be kept is a notice with its line.

    Args:
        data: The file.
        is_document: Whether a path below the folder is a document that can be described.
        others: Whether it is no matter that lines describe others.
    """
    by_path: dict[str, Gathering] = {}
    titles: dict[str, dict[str, str]] = {}
    notices = Notices()
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        record, wrong = _record(line)
        path = posixpath.normpath(record.pop("source", ""))
        if not wrong and not is_document(path):
            if others:
                continue
            wrong = f"there is no document {path[:80]!r} to describe"
        if wrong:
            notices.add(f"line {number}: {wrong}")
            continue
        if isinstance(record.get("title"), str):
            titles[path] = {"title": clean_text(record.pop("title")[:_LONGEST_TITLE])}
        known = by_path.setdefault(path, Gathering())
        for key, value in record.items():
            if wrong := known.add(key, value):
                notices.add(f"line {number}: {wrong}")
    metadata = {path: {**titles.get(path, {}), **known.values} for path, known in by_path.items()}
    return Sidecar(metadata, notices.told())


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
