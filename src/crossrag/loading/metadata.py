"""What may be known of a document besides its text: names with plain values that a store can filter by.

Values are text, numbers, true, false and lists of these. They go with every chunk, so they are bounded.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

from .repair import clean_text

RESERVED = frozenset(
    (
        *("source", "document_id", "chunk_id", "chunk_length", "variant", "start", "end"),
        *("title", "title_path", "page", "page_name", "generation", "minhash", "tenant"),
    )
)
"""Names that a chunk's own payload uses; metadata of a user can not replace them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_WORDS = frozenset(("and", "or", "not"))
"""What a filter joins conditions with."""
_LONGEST_VALUE = 4_096
_LONGEST_LIST = 256
_MOST_NAMES = 64
_MOST_CHARACTERS = 32_768
_MOST_NOTICES = 50
_EXACT = 2**53
"""Beyond it, neighbouring whole numbers are one to a store."""


class Gathering:
    """The metadata of one document while they come in, name by name."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._characters = 0

    def add(self, key: str, value: Any) -> str:
        """Keep a value, unless it is none. The answer is the reason why it cannot be kept, if it cannot."""
        kept, reason = checked_value(key, value)
        if reason or kept is None:
            return reason
        self._characters += len(str(kept))
        if self._characters > _MOST_CHARACTERS:
            return f"{key!r} would be more than {_MOST_CHARACTERS} characters with all before it"
        if key not in self.values and len(self.values) >= _MOST_NAMES:
            return f"{key!r} would be more than {_MOST_NAMES} names"
        self.values[key] = kept
        return ""


class Notices:
    """What could not be used, in words; the first of them, and how many more there are."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._count = 0

    def add(self, notice: str) -> None:
        """Take one more."""
        self._count += 1
        if self._count <= _MOST_NOTICES:
            self._first.append(notice)

    def told(self) -> tuple[str, ...]:
        """All that is to be shown."""
        more = self._count - len(self._first)
        return (*self._first, f"and {more} more of this kind") if more else tuple(self._first)


def checked_value(key: str, value: Any) -> tuple[Any, str]:
    """The value as it can be stored, None for none, and the reason why it cannot be, if it cannot."""
    if not _NAME.fullmatch(key) or key in _WORDS:
        return None, f"{key[:40]!r} is no name to filter by: one to 64 of A-Z, a-z, 0-9, _ and -"
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
    wrong = ""
    if isinstance(value, str):
        value = clean_text(value)
        wrong = f"is longer than {_LONGEST_VALUE} characters" if len(value) > _LONGEST_VALUE else ""
    elif isinstance(value, int) and not isinstance(value, bool):
        wrong = "is a number beyond 2^53; write it as text" if abs(value) > _EXACT else ""
    elif isinstance(value, float):
        wrong = "" if math.isfinite(value) else "is no finite number"
    elif isinstance(value, datetime.date | datetime.time):  # a datetime is a date too
        value = value.isoformat()
    elif value is not None and not isinstance(value, bool):
        kinds: dict[type, str] = {dict: "is a group of values", list: "is a list within a list"}
        kind = kinds.get(type(value), "has no plain value")
        wrong = f"{kind}; text, numbers, true, false and lists of them are kept"
    return value, wrong
