"""What every parser returns, and the few things that several of them do the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from crossrag.errors import LoadError

_FILE_NAME = re.compile(
    r"untitled\b|microsoft (?:word|powerpoint|excel)\b|powerpoint presentation$|.*\.\w{2,5}$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The text of a file and what is known of it; `load_bytes` makes a Document of it."""

    text: str
    title: str = ""
    markdown: bool = False
    page_starts: tuple[int, ...] = ()
    page_names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def join_pages(pages: Iterable[str]) -> tuple[str, tuple[int, ...]]:
    """The text of pages with a blank line between, and where each begins; nothing where none has text.

    Pages must be clean already, so that the offsets hold; NFC joins nothing across a blank line.
    """
    whole = list(pages)
    starts, offset = [], 0
    for page in whole:
        starts.append(offset)
        offset += len(page) + 2
    text = "\n\n".join(whole)
    return (text, tuple(starts)) if text.strip() else ("", ())


def title_or_nothing(title: str | None) -> str:
    """A title of a file's properties, unless an office program has put the file's name there."""
    title = (title or "").strip()
    return "" if _FILE_NAME.match(title) else title


def needed(module: str, *, package: str, extra: str) -> ModuleType:
    """An optional library.

    Raises:
        LoadError: It is not installed; the hint says which extra brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise LoadError(
            f"needs the package {package}, which is not installed", hint=f"pip install 'crossrag[{extra}]'"
        ) from None
