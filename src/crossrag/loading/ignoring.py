"""Patterns of `.gitignore` -> whether a path is meant. Nested files count as Git lets them count.

Patterns of a folder may come from anybody: what could keep a match busy for long is left out, with a notice.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import LoadError, UsageError

from .documents import read_regular
from .metadata import Notices

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_LARGEST = 2**17
_MOST_PATTERNS = 1_000
_LONGEST_PATTERN = 256
_MOST_STARS = 3
"""With four, a name made for the purpose takes a match a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled patterns. Paths are relative, with `/` between; folders end in it."""

    spec: GitIgnoreSpec | None

    @classmethod
    def of(cls, patterns: Collection[str]) -> Patterns:
        """Patterns that a user gave.

        Raises:
            UsageError: One of them is none.
        """
        for pattern in patterns:
            # Git takes an empty line or a comment for no pattern at all; from a user it is a slip, and dear.
            if reason := _reason_against(pattern) or ("" if _chooses(pattern) else "fits no file whatever"):
                raise UsageError(
                    f"{pattern!r} {reason}", hint="Write it as in a .gitignore: *.md, docs/**, !a.txt"
                )
        return cls(_spec(patterns) if patterns else None)

    def match(self, path: str) -> bool | None:
        """True where the path is meant, False where a later pattern takes it back, else None."""
        return None if self.spec is None else self.spec.check_file(path).include


class Ignored:
    """What `.gitignore` files leave out of a tree; folders must be entered before their content.

    Those above `root` count too, up to the repository that it is in, so that a file is left out whichever
    folder above it is named. They do not count where they leave out `root`, which was named all the same.
    """

    def __init__(self, root: Path) -> None:
        self.notices = Notices()
        self._root = root
        self._place = root.resolve()
        self._patterns: dict[Path, Patterns] = {}
        self._repositories: set[Path] = set()
        above = _within_repository(self._place)
        self._top = above[-1] if above else self._place
        for folder in above:
            if is_there(folder / ".gitignore"):
                self._read(folder, (folder / ".gitignore").as_posix())
        if any(self._covers(one, folder=True) for one in (self._place, *above)):
            self._patterns.clear()
        if not self._patterns:
            self._top = self._place

    def enter(self, folder: Path, *, ignoring: bool, repository: bool) -> None:
        """Come into a folder that has a `.gitignore` or is the top of a repository, or both."""
        within = folder.relative_to(self._root)
        if ignoring:
            self._read(self._place / within, (within / ".gitignore").as_posix())
        if repository:
            self._repositories.add(self._place / within)

    def covers(self, path: Path, *, folder: bool) -> bool:
        """Whether the path is left out; the nearest file that speaks of it decides."""
        return self._covers(self._place / path.relative_to(self._root), folder=folder)

    def _read(self, folder: Path, name: str) -> None:
        path = folder / ".gitignore"
        try:
            lines = read_regular(path, name, limit=_LARGEST).decode(errors="replace").splitlines()
        except LoadError as error:
            self.notices.add(f"{error.message}; it does not count")
            return
        good: list[str] = []
        for number, line in enumerate(lines, start=1):
            if not line or line.startswith("#"):
                continue
            reason = _reason_against(line, most_stars=_MOST_STARS)
            if not reason and len(good) >= _MOST_PATTERNS:
                reason = f"would be more than {_MOST_PATTERNS}"
            if reason:
                self.notices.add(f"{name}, line {number}: the pattern {reason}; it does not count")
            else:
                good.append(line)
        self._patterns[folder] = Patterns(_spec(good))

    def _covers(self, path: Path, *, folder: bool) -> bool:
        for above in path.parents:
            if patterns := self._patterns.get(above):
                relative = path.relative_to(above).as_posix() + ("/" if folder else "")
                if (verdict := patterns.match(relative)) is not None:
                    return verdict
            if above == self._top or above in self._repositories:
                break
        return False


def is_there(path: Path) -> bool:
    """Whether there is something of this name, be it that it cannot be looked at now."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _within_repository(place: Path) -> list[Path]:
    """The folders above one, nearest first, up to the top of its repository; without one, all of them."""
    above: list[Path] = []
    for folder in (place, *place.parents):
        if folder != place:
            above.append(folder)
        if is_there(folder / ".git"):
            break
    return above


def _reason_against(pattern: str, *, most_stars: int | None = None) -> str:
    if len(pattern) > _LONGEST_PATTERN:
        return f"is longer than {_LONGEST_PATTERN} characters"
    if most_stars is not None and len(re.findall(r"\*+", pattern)) > most_stars:
        return f"has more than {most_stars} wildcards *"
    try:
        _spec([pattern])
    except (ValueError, re.error, AttributeError) as error:
        return f"is no pattern: {str(error)[:80]}"
    return ""


def _chooses(pattern: str) -> bool:
    return any(one.include is not None for one in _spec([pattern]).patterns)


def _spec(patterns: Collection[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
