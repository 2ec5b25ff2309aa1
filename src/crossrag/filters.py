"""A filter as a mapping or JSON -> a frozen tree; whatever is not in this closed language is refused.

    {"team": "blue"}    {"team": ["blue", "red"]}    {"year": {"gte": 2020, "lt": 2024}}
    {"date": {"gte": "2024-01-01"}}    {"source": {"prefix": "handbook/"}}
    {"and": [...]}    {"or": [...]}    {"not": {...}}

Keys of one mapping hold together. Stores translate the tree; nothing else reaches them. Knows no store.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from .errors import UsageError, did_you_mean

Scalar = str | int | float | bool

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z_][A-Za-z0-9_-]{0,63}){0,4}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?)?)?")
_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = (*_BOUNDS, "prefix")
_WORDS = ("and", "or", "not")
_EXACT = 2**53
_DEEPEST, _MOST, _LONGEST = 16, 1_000, 4_096


@dataclass(frozen=True, slots=True)
class Equals:
    """The value, or one element of a list, is this; 1 and 1.0 are one number, True is none."""

    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The value, or one element of a list, is one of these: all text, or all numbers."""

    key: str
    values: tuple[str, ...] | tuple[int | float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A number within bounds; True and False are no numbers, and neither is text."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRange:
    """Text that is a date (`is_date`) within bounds; a day is its first moment, UTC if it names no zone."""

    key: str
    gt: datetime | None = None
    gte: datetime | None = None
    lt: datetime | None = None
    lte: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """Text that begins so, case and all."""

    key: str
    prefix: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them; with none, everything."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Everything else, what lacks the key too."""

    part: Filter


Filter = Equals | AnyOf | Range | DateRange | Prefix | And | Or | Not


def parse(where: Mapping[str, Any] | None) -> Filter | None:
    """The tree of a filter; None where it leaves nothing out.

    Raises:
        UsageError: A key, an operator or a value is not of this language.
    """
    if where is None:
        return None
    # One count for the whole tree: what is refused costs no more than what is not.
    tree = _Parser().mapping(where, depth=0)
    return None if tree == And(()) else tree


def parse_json(text: str) -> Filter | None:
    """The same from JSON, which must be an object.

    Raises:
        UsageError: It is no JSON, or `parse` refuses it.
    """
    return parse(read_json(text))


def read_json(text: str) -> dict[str, Any]:
    """JSON text -> the mapping that `parse` takes.

    Raises:
        UsageError: It is no JSON object, or names a key twice.
    """
    try:
        where = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"The filter is no JSON: {error}") from None
    if not isinstance(where, dict):
        raise _wrong(f"A filter is a JSON object, not {_shown(where)}")
    return where


def is_key(name: object) -> bool:
    """Whether metadata under this name can be asked for: `team`, `team.name`; no `and`, `or` or `not`."""
    return isinstance(name, str) and name not in _WORDS and _KEY.fullmatch(name) is not None


def is_date(text: str) -> bool:
    """Whether text is a date that ranges find, such as `2024-01-31` or `2024-01-31T10:00:00Z`."""
    try:
        moment(text)
    except ValueError:
        return False
    return True


def moment(text: str) -> datetime:
    """`YYYY-MM-DD`, with `HH:MM`, seconds and a zone if need be -> a moment in UTC.

    Raises:
        ValueError: It is written otherwise, or is not in the calendar.
    """
    if not _DATE.fullmatch(text) or not text.isascii():
        raise ValueError(f"{text!r} is no date")
    found = datetime.fromisoformat(text)
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is before or after all dates") from None


class _Parser:
    def __init__(self) -> None:
        self._count = 0

    def mapping(self, where: object, *, depth: int) -> Filter:
        if not isinstance(where, Mapping):
            raise _wrong(f"A filter is a mapping, not {_shown(where)}")
        if depth > _DEEPEST:
            raise _wrong(f"The filter is nested more than {_DEEPEST} deep")
        parts = tuple(self._entry(key, value, depth) for key, value in where.items())
        return parts[0] if len(parts) == 1 else And(parts)

    def _entry(self, key: object, value: object, depth: int) -> Filter:
        self._count += 1
        if self._count > _MOST:
            raise _wrong(f"The filter has more than {_MOST} conditions")
        if key == "not":
            return Not(self._inner(value, depth))
        if key in {"and", "or"}:
            if not isinstance(value, (list, tuple)) or not value:
                raise _wrong(f"{key!r} takes a list of filters, not {_shown(value)}")
            parts = tuple(self._inner(part, depth) for part in value)
            return And(parts) if key == "and" else Or(parts)
        if not isinstance(key, str) or not is_key(key):
            raise UsageError(
                f"{_shown(key)} cannot be a filter key",
                hint="Use letters, digits, _, - and dots: source, team.name",
            )
        return _condition(key, value)

    def _inner(self, where: object, depth: int) -> Filter:
        if isinstance(where, Mapping) and not where:
            raise _wrong("A filter within a filter is empty")
        return self.mapping(where, depth=depth + 1)


def _condition(key: str, value: object) -> Filter:
    if isinstance(value, Mapping):
        return _operators(key, value)
    if isinstance(value, (list, tuple)):
        return _any_of(key, value)
    return Equals(key, _scalar(key, value))


def _any_of(key: str, values: Collection[object]) -> Filter:
    if any(isinstance(value, Mapping) for value in values):
        near = get_close_matches(key, _WORDS, n=1, cutoff=0.5)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"{key!r} is given filters", hint=f"{guess}Only 'and' and 'or' take a list of them")
    if not 0 < len(values) <= _MOST:
        raise _wrong(f"{key!r} takes 1 to {_MOST} alternatives, not {len(values)}")
    found = tuple(_scalar(key, value) for value in values)
    texts = tuple(value for value in found if isinstance(value, str))
    numbers = tuple(value for value in found if not isinstance(value, (str, bool)))
    if len(texts) == len(found):
        return AnyOf(key, texts)
    if len(numbers) == len(found):
        return AnyOf(key, numbers)
    raise _wrong(f"The alternatives of {key!r} must be all text or all numbers")


def _operators(key: str, operators: Mapping[object, object]) -> Filter:
    if not operators:
        raise _wrong(f"{key!r} is given no operator")
    for name in operators:
        if name not in _OPERATORS:
            raise UsageError(
                f"{_shown(name)} is no operator ({key})", hint=did_you_mean(str(name)[:40], _OPERATORS)
            )
    if "prefix" in operators:
        prefix = _scalar(key, operators["prefix"])
        if len(operators) > 1 or not isinstance(prefix, str) or not prefix:
            raise _wrong(f"The prefix of {key!r} must be text, and stand alone")
        return Prefix(key, prefix)
    bounds = {str(name): _scalar(key, bound) for name, bound in operators.items()}
    if all(isinstance(bound, str) for bound in bounds.values()):
        return DateRange(key=key, **{name: _moment(key, str(bound)) for name, bound in bounds.items()})
    if any(isinstance(bound, (str, bool)) for bound in bounds.values()):
        raise _wrong(f"The bounds of {key!r} must be all numbers or all dates")
    return Range(key=key, **{name: float(bound) for name, bound in bounds.items()})


def _moment(key: str, text: str) -> datetime:
    try:
        return moment(text)
    except ValueError:
        raise _wrong(f"{_shown(text)} is no date ({key}); write 2024-01-31 or 2024-01-31T10:00:00Z") from None


def _scalar(key: str, value: object) -> Scalar:
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise _wrong(f"The text for {key!r} is longer than {_LONGEST} characters")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _wrong(f"The text for {key!r} is no valid Unicode")
        return value
    if isinstance(value, (bool, int, float)):
        if not isinstance(value, bool) and not abs(value) <= _EXACT:
            raise _wrong(f"{_shown(value)} is no number that is stored exactly ({key})")
        return value
    raise _wrong(f"{key!r} takes text, a number, true or false, not {_shown(value)}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:
        # A number of thousands of digits.
        return f"this {type(value).__name__}"


def _wrong(message: str) -> UsageError:
    return UsageError(message, hint='Examples: {"team": "blue"}, {"year": {"gte": 2020}}; docs/filters.md')
