"""Everything crossrag raises on purpose, and what each means to a shell.

CrossragError                     exit code 1
 ├─ UsageError                    2   the call was wrong: unknown option, empty question, missing path
 ├─ StoreError                    3   the index cannot be read or written
 │   ├─ StoreLockedError              another process holds it
 │   ├─ StoreSlowError                it did not answer within the deadline
 │   ├─ DamagedError                  a file of it is not what was written
 │   └─ IndexMissingError             there is none yet
 ├─ ModelError                    4   a model is missing, cut or unusable
 ├─ MissingExtraError             4   an optional package is not installed
 ├─ GeneratorError                5   the language model failed
 ├─ LoadError                     6   a file could not be read
 ├─ ConfigError                   7   a setting is unknown or has a wrong value
 └─ FingerprintError              7   the index was built with other settings

A message has two parts: what went wrong and why, and `hint`, how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

_DISCREET: ContextVar[bool] = ContextVar("crossrag_discreet", default=False)


class CrossragError(Exception):
    """Root of the tree. Catch this to catch everything that crossrag raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}." if self.hint else self.message


class UsageError(CrossragError):
    """The call was wrong."""

    exit_code = 2


class StoreError(CrossragError):
    """The index cannot be read or written."""

    exit_code = 3


class StoreLockedError(StoreError):
    """Another process has the index open."""


class StoreSlowError(StoreError):
    """The index did not answer within the deadline."""


class DamagedError(StoreError):
    """A file of the index is not what was written: trying again does not help."""


class IndexMissingError(StoreError):
    """There is no index at this place yet."""


class ModelError(CrossragError):
    """A model is missing, cut, or not what it should be."""

    exit_code = 4


class MissingExtraError(CrossragError):
    """An optional package is needed and not installed."""

    exit_code = 4


class GeneratorError(CrossragError):
    """The language model failed. `retryable` says whether the same call may succeed later."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class LoadError(CrossragError):
    """A file could not be read as text."""

    exit_code = 6


class ConfigError(CrossragError):
    """A setting is unknown or has a wrong value."""

    exit_code = 7


class FingerprintError(CrossragError):
    """The index was built with another model or other settings."""

    exit_code = 7


def did_you_mean(wrong: str, choices: Iterable[str]) -> str:
    """`Did you mean 'x'? Choices: x, y, z`, with the guess only where one is near."""
    known = sorted(choices)
    near = get_close_matches(wrong, known, n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}Choices: {', '.join(known)}"


@contextmanager
def discreetly() -> Iterator[None]:
    """Until the block ends, reasons are for other people's eyes: words may hold keys, paths, texts."""
    token = _DISCREET.set(True)
    try:
        yield
    finally:
        _DISCREET.reset(token)


def reason(error: Exception) -> str:
    """Why something failed, for a notice: the message of an error of ours, class and message of another's.

    Within `discreetly` it is the class alone.
    """
    if _DISCREET.get():
        return type(error).__name__
    if isinstance(error, CrossragError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
