"""Filters for collections that crossrag did not make: metadata stands there once, as it came.

What `points.payload` stores by type for exactness is not there, so it is the engine that compares: a date is
found in text that the engine reads as one, and an index over one type finds nothing of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from qdrant_client import models

from crossrag import filters

from .conditions import translate
from .qdrant_points import ClientDialect


class PlainDialect(ClientDialect):
    """Conditions on the metadata itself.

    Args:
        metadata: Key of the payload that holds it; empty where it is the payload itself.
    """

    def __init__(self, metadata: str = "metadata") -> None:
        self._above = f"{metadata}." if metadata else ""

    def match(self, path: str, value: str) -> models.FieldCondition:
        """The value itself, or an element; a flag is true or false there."""
        if path == "flags":
            key, _, said = value.partition("=")
            return models.FieldCondition(
                key=f"{self._above}{key}", match=models.MatchValue(value=said == "true")
            )
        return super().match(self._path(path), value)

    def match_any(self, path: str, values: Any) -> models.FieldCondition:
        """One of these."""
        return super().match_any(self._path(path), values)

    def prefix(self, path: str, text: str) -> models.FieldCondition:
        """Text that begins so."""
        return super().prefix(self._path(path), text)

    def numbers(self, path: str, bounds: Mapping[str, float]) -> models.FieldCondition:
        """A number within bounds."""
        return super().numbers(self._path(path), bounds)

    def dates(self, path: str, bounds: Mapping[str, datetime]) -> models.FieldCondition:
        """A date within bounds."""
        return super().dates(self._path(path), bounds)

    def _path(self, path: str) -> str:
        return self._above + path.partition(".")[2]


def plain_filter(where: Mapping[str, Any] | None, *, metadata: str = "metadata") -> models.Filter | None:
    """A filter in crossrag's language -> one for such a collection; None where it leaves nothing out.

    Raises:
        UsageError: It is not in the language.
    """
    tree = filters.parse(where)
    return None if tree is None else models.Filter(must=[translate(tree, PlainDialect(metadata))])
