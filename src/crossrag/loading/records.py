"""JSON and JSON Lines -> text: one block per record, one line per value, `author.name: Anna`.

A record's title and its main text, known by their names, stand without a label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossrag.errors import LoadError

from .decoding import decode
from .parsed import Parsed
from .repair import clean_text

_TITLES = ("title", "name", "question", "subject", "heading")
_TEXTS = ("text", "content", "body", "page_content", "passage", "answer", "description", "abstract")
_LONGEST_NUMBERS = 8
"""A longer list of numbers is a vector or a series, not text."""
_DEEPEST = 100


def parse_json(data: bytes, *, fields: Sequence[str] = ()) -> Parsed:
    """One document: a list is a list of records, anything else one record.

    Args:
        data: JSON in any encoding of Unicode.
        fields: Dotted names such as `author.name`, to keep these alone, in order; all where no record has
            any of them.
    """
    value = _decoded(decode(data), "is")
    records = value if isinstance(value, list) else [value]
    title = _text(value.get("title")) if isinstance(value, dict) else ""
    return Parsed(text=_joined(records, fields), title=title)


def parse_json_lines(data: bytes, *, fields: Sequence[str] = ()) -> Parsed:
    """One record a line; blank lines count as lines.

    Raises:
        LoadError: A line is no JSON; the message says which.
    """
    lines = decode(data).split("\n")
    records = [_decoded(line, f"line {at} is") for at, line in enumerate(lines, 1) if line.strip()]
    return Parsed(text=_joined(records, fields))


def _decoded(text: str, what: str) -> Any:
    try:
        # Numbers stay as they are written: 1.10 is a version as often as a number.
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except RecursionError:
        raise LoadError(f"{what} nested too deeply", hint="Flatten it, or choose another format") from None
    except ValueError as error:
        raise LoadError(f"{what} no JSON: {str(error)[:120]}", hint="Export it again") from None


def _joined(records: Sequence[Any], fields: Sequence[str]) -> str:
    blocks = (clean_text("\n".join(_lines(record, fields))).strip() for record in records)
    text = "\n\n".join(filter(None, blocks))
    return text if text or not fields else _joined(records, ())


def _lines(record: Any, fields: Sequence[str]) -> Iterator[str]:
    if not isinstance(record, dict):
        yield from (text for _, text in _leaves(record, "", 0))
        return
    if fields:
        for field in fields:
            yield from _labelled(_leaves(_at(record, field), field, 0))
        return
    plain = [next((key for key in names if _text(record.get(key))), "") for names in (_TITLES, _TEXTS)]
    yield from (_text(record[key]) for key in plain if key)
    rest = {key: value for key, value in record.items() if key not in plain}
    yield from _labelled(_leaves(rest, "", 0))


def _labelled(leaves: Iterator[tuple[str, str]]) -> Iterator[str]:
    return (f"{path}: {text}" if path else text for path, text in leaves)


def _at(value: Any, path: str) -> Any:
    """What a dotted name leads to; within a list, what it leads to in each element."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    if isinstance(value, list):
        return [found for each in value if (found := _at(each, path)) is not None]
    first, _, rest = path.partition(".")
    return _at(value[first], rest) if rest and isinstance(value, Mapping) and first in value else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Dotted path and text of everything that is written, in order; null and long rows of numbers are not."""
    if depth > _DEEPEST:
        raise LoadError("is nested too deeply", hint="Flatten it, or choose another format")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        if all(isinstance(each, str | bool) or each is None for each in value):
            words = [_leaf(each) for each in value]
            if text := "" if _is_series(value) else ", ".join(filter(None, words)):
                yield path, text
        else:
            for inner in value:
                yield from _leaves(inner, path, depth + 1)
    elif text := _leaf(value):
        yield path, text


def _leaf(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() if value is not None else ""


def _is_series(values: Sequence[Any]) -> bool:
    def is_number(value: Any) -> bool:
        return isinstance(value, str) and value[:1] in "-0123456789" and value.replace("e", "")[-1:].isdigit()

    return len(values) > _LONGEST_NUMBERS and all(is_number(value) for value in values)
