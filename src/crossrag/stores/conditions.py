"""The tree of a filter -> the conditions of an engine. What no engine can do exactly is not in the language.

Every number is compared as a range: so 1 and 1.0 are one, and the index over numbers serves all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Protocol

from crossrag.filters import And, AnyOf, DateRange, Equals, Filter, Not, Or, Prefix, Range

from .points import flag, number_path


class Dialect(Protocol):
    """How an engine writes conditions. `path` is that of the payload, such as `metadata.team`."""

    def match(self, path: str, value: str) -> Any:
        """The value itself, or an element."""
        ...

    def match_any(self, path: str, values: Sequence[str]) -> Any:
        """One of these."""
        ...

    def prefix(self, path: str, text: str) -> Any:
        """Text that begins so."""
        ...

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        """A number within gt, gte, lt, lte."""
        ...

    def dates(self, path: str, bounds: Mapping[str, datetime]) -> Any:
        """A date within them."""
        ...

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        """Conditions as one."""
        ...


def translate(tree: Filter, dialect: Dialect) -> Any:  # noqa: PLR0911 - one line for each kind of node
    """One condition that holds where the tree does."""
    match tree:
        case And(parts):
            return dialect.group(must=[translate(part, dialect) for part in parts])
        case Or(parts):
            return dialect.group(should=[translate(part, dialect) for part in parts])
        case Not(part):
            return dialect.group(must_not=[translate(part, dialect)])
        case Equals(key, value):
            return _equals(key, value, dialect)
        case AnyOf(key, values):
            texts = [value for value in values if isinstance(value, str)]
            if texts:
                return dialect.match_any(f"metadata.{key}", texts)
            return dialect.group(should=[_equals(key, value, dialect) for value in values])
        case Prefix(key, text):
            return dialect.prefix(f"metadata.{key}", text)
        case Range(key=key):
            return dialect.numbers(number_path(key), _bounds(tree))
        case DateRange(key=key):
            return dialect.dates(f"dates.{key}", _bounds(tree))


def _equals(key: str, value: str | float | bool, dialect: Dialect) -> Any:  # noqa: FBT001 - a value
    if isinstance(value, bool):
        return dialect.match("flags", flag(key, value))
    if isinstance(value, str):
        return dialect.match(f"metadata.{key}", value)
    return dialect.numbers(number_path(key), {"gte": value, "lte": value})


def _bounds(tree: Range | DateRange) -> dict[str, Any]:
    given = {part.name: getattr(tree, part.name) for part in fields(tree) if part.name != "key"}
    return {name: bound for name, bound in given.items() if bound is not None}
