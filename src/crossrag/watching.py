"""Folders -> a signal whenever something in them changed. Knows nothing of what is done about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

from .errors import MissingExtraError, UsageError

_QUIET_MILLISECONDS = 500
"""Changes that follow each other faster than this are told together."""
_TICK_MILLISECONDS = 1_000
"""How often it is said that nothing has changed: whoever listens may have something to try again."""
_RULES = ".gitignore"
"""A hidden file that says which others are meant."""


def changes(
    paths: Sequence[Path], *, ignored: Path | None = None, stop: Event | None = None
) -> Iterator[int]:
    """How many files changed, again and again, 0 where none did; goes on until `stop` is set or Ctrl-C.

    From the first number on nothing is missed: what changes while nobody asks for the next one is told by it.
    Hidden files but `.gitignore`, and what lies in `ignored`, are not looked at.

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
        parts = below.parts[:-1] if path.name == _RULES else below.parts
        return not any(part.startswith(".") for part in parts)

    # The system watches the very file, and not the one by which an editor replaces it.
    named = {root: _seen(root) for root in roots if not root.is_dir()}
    for changed in watch(
        *(root for root in roots if root not in named),
        watch_filter=matters,
        step=_QUIET_MILLISECONDS,
        rust_timeout=_TICK_MILLISECONDS,
        yield_on_timeout=True,
        stop_event=stop,
    ):
        seen = {path: _seen(path) for path in named}
        yield len(changed) + sum(seen[path] != named[path] for path in named)
        named = seen


def _seen(path: Path) -> tuple[int, ...]:
    """What tells one state of a file from another; nothing where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
