"""A filter of `qdrant_client` -> crossrag's language, and back.

What that cannot say is refused, never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from crossrag.errors import UsageError
from crossrag.filters import parse

_METADATA = "metadata."
_BOUNDS = ("gt", "gte", "lt", "lte")
_HINT = "See docs/filters.md for what a filter can say, or give it as a mapping: {'team': 'blue'}"


def where_of(wanted: Any) -> Mapping[str, Any] | None:
    """A mapping in crossrag's language, whatever of both was given.

    Args:
        wanted: A mapping, `qdrant_client.models.Filter`, or None.

    Raises:
        UsageError: It says something that the language has no word for.
    """
    where = wanted if wanted is None or isinstance(wanted, Mapping) else _group(wanted)
    parse(where)
    return where


def for_qdrant(where: Mapping[str, Any], *, metadata: str) -> Any:
    """A filter in crossrag's language as `qdrant_client` has it; `metadata` is the payload's key for that.

    Raises:
        UsageError: It is not in the language.
    """
    from crossrag.stores.plain import plain_filter

    return plain_filter(where, metadata=metadata)


def _group(wanted: Any) -> Mapping[str, Any]:
    if type(wanted).__name__ != "Filter" or not type(wanted).__module__.startswith("qdrant_client"):
        raise UsageError(f"A {type(wanted).__name__} is no filter", hint=_HINT)
    if wanted.min_should is not None:
        raise _beyond("min_should")
    parts = [_condition(one) for one in _listed(wanted.must)]
    if should := [_condition(one) for one in _listed(wanted.should)]:
        parts.append({"or": should})
    parts += [{"not": _condition(one)} for one in _listed(wanted.must_not)]
    return {"and": parts} if parts else {}


def _listed(conditions: Any) -> Iterable[Any]:
    if conditions is None:
        return ()
    return conditions if isinstance(conditions, list) else (conditions,)


def _condition(condition: Any) -> Mapping[str, Any]:
    kind = type(condition).__name__
    if kind == "Filter":
        return _group(condition)
    if kind != "FieldCondition":
        raise _beyond(kind)
    key = str(condition.key)
    if not key.startswith(_METADATA):
        raise UsageError(f"A filter looks at metadata, and {key!r} is none", hint=f"Write {_METADATA}{key}")
    key = key.removeprefix(_METADATA)
    said = {name for name in type(condition).model_fields if name != "key"}
    given = {name: value for name in said if (value := getattr(condition, name)) is not None}
    if given.keys() == {"match"}:
        return _match(key, given["match"])
    if given.keys() == {"range"}:
        return {key: _bounds(given["range"])}
    raise _beyond(", ".join(sorted(given)) or "a condition without one")


def _match(key: str, match: Any) -> Mapping[str, Any]:
    match type(match).__name__:
        case "MatchValue":
            return {key: match.value}
        case "MatchAny":
            return {key: list(match.any)}
        case "MatchPrefix":
            return {key: {"prefix": match.prefix}}
        case other:
            raise _beyond(other)


def _bounds(wanted: Any) -> dict[str, Any]:
    given = {name: value for name in _BOUNDS if (value := getattr(wanted, name)) is not None}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in given.items()}


def _beyond(what: str) -> UsageError:
    return UsageError(f"A filter of crossrag's cannot say {what}", hint=_HINT)
