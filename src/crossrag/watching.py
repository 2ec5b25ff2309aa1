"""Folders -> a signal whenever something in them changed. Knows nothing of what is done about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

from .errors import MissingExtraError, UsageError

_QUIET_MILLISECONDS = 500
"""Changes that follow each other faster than this are told together."""


def changes(
    paths: Sequence[Path], *, ignored: Path | None = None, stop: Event | None = None
) -> Iterator[int]:
    """How many files changed, each time that some did; goes on until `stop` is set or Ctrl-C.

    Hidden files, and what lies in `ignored`, are not looked at.

    Raises:
        UsageError: A path does not exist.
        MissingExtraError: The package watchfiles is not installed.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="Check the path")
    if find_spec("watchfiles") is None:
        raise MissingExtraError("--watch needs the package watchfiles", hint="pip install 'crossrag[watch]'")
    from watchfiles import watch

    roots = [path.resolve() for path in paths]
    index = ignored.resolve() if ignored is not None else None

    def matters(_: object, name: str) -> bool:
        path = Path(name)
        if index is not None and path.is_relative_to(index):
            return False
        below = next((path.relative_to(root) for root in roots if path.is_relative_to(root)), path)
        return not any(part.startswith(".") for part in below.parts)

    # An empty set comes now and then, so that a stop is noticed.
    for changed in watch(*roots, watch_filter=matters, step=_QUIET_MILLISECONDS, stop_event=stop):
        yield len(changed)
