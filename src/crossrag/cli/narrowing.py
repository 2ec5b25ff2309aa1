"""`--where` as people write it -> a filter; and why one may have let nothing through."""

from __future__ import annotations

import json
from typing import Any

from crossrag.errors import UsageError
from crossrag.filters import read_json

from . import show

_NUMBERS = {"page", "chunk_id", "chunk_length", "start", "end"}


def read(texts: list[str] | None) -> dict[str, Any]:
    """Filters given together hold together; a repeated KEY=VALUE names an alternative."""
    pairs: dict[str, list[Any]] = {}
    written = []
    for text in texts or []:
        if text.lstrip().startswith("{"):
            written.append(read_json(text))
            continue
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"--where {text!r} is neither KEY=VALUE nor JSON",
                hint='Examples: --where source=guide/backup.md, --where \'{"year": {"gte": 2020}}\'',
            )
        if key in _NUMBERS and not value.isdecimal():
            raise UsageError(
                f"--where {key} takes a number, got {value!r}", hint=f"Example: --where {key}=12"
            )
        # What crossrag itself stores as a number is compared as one.
        pairs.setdefault(key, []).append(int(value) if key in _NUMBERS else value)
    filters = [pairs, *written] if pairs else written
    return filters[0] if len(filters) == 1 else {"and": filters} if filters else {}


def suggest(texts: list[str] | None) -> None:
    """Where nothing was found: values that look like no text, as JSON, by which numbers are found."""
    for text in texts or []:
        key, equals, value = text.partition("=")
        if text.lstrip().startswith("{") or not equals or key in _NUMBERS:
            continue
        try:
            meant = json.loads(value)
        except ValueError:
            continue
        if isinstance(meant, (bool, int, float)):
            kind = "true and false" if isinstance(meant, bool) else "numbers"
            show.talk(
                f"note: --where {text} finds the text {value!r} alone;"
                f" {kind} want JSON: --where '{json.dumps({key: meant})}'"
            )
