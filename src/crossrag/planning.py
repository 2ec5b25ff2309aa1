"""Files and manifest -> plan: what is new, changed, renamed, gone, unchanged. Reads, and writes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from . import files, loading
from .errors import UsageError
from .types import Failure

if TYPE_CHECKING:
    from pathlib import Path

    from .files import File, Look
    from .manifest import Entry

Kind = Literal["new", "changed", "renamed"]
_NAMED = 3
"""Documents that a notice names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which files below the roots are meant, and how hard to look at them.

    What is not chosen counts as not there: the same command makes the same index, whatever went before.
    """

    globs: tuple[str, ...] = ()
    """Only files whose name, or path below its root, fits one of these, as in `.gitignore`."""
    exclude: tuple[str, ...] = ()
    """No files, and nothing in folders, that fit one of these."""
    gitignore: bool = True
    """Whether to leave out what `.gitignore` files do."""
    prune: bool = True
    """Whether documents go whose files below the roots are not there or not chosen."""
    checksum: bool = False
    """Read every file, also those that look as they did when they were last read."""

    @property
    def named(self) -> str:
        """The patterns as they are written in a command; empty where there are none."""
        pairs = (*(("--glob", one) for one in self.globs), *(("--exclude", one) for one in self.exclude))
        return " ".join(f"{option} {pattern!r}" for option, pattern in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file whose document must be written."""

    kind: Kind
    file: File
    content_hash: str
    look: Look
    """How the file looked before it was hashed."""
    previous: Entry | None = None
    """What the index holds of this document."""
    twin: Entry | None = None
    """Another document of the same content: what this was renamed from, or what it is a copy of."""
    damaged: bool = False
    """Whether what the index holds of it is wrong: it is written anew, and no vector is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What makes the index equal to the files."""

    changes: tuple[Change, ...] = ()
    gone: tuple[Entry, ...] = ()
    """Documents to be removed; what was renamed is among them, under its old name."""
    unchanged: int = 0
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Document ids of unchanged files that look different now."""
    skipped: tuple[Failure, ...] = ()
    failed: tuple[Failure, ...] = ()
    notices: tuple[str, ...] = ()

    def with_found(self, found: files.Found, known: Collection[str]) -> Plan:
        """The same, with the files that are left out, and what else is to be said; `known` is indexed."""
        failed = (
            *(
                replace(failure, answers_still=any(files.is_below(one, (place,)) for one in known))
                for place, failure in found.failed.items()
            ),
            *self.failed,
        )
        notices = (*found.notices, *_told_of(self.still_there))
        return replace(self, skipped=found.skipped, failed=failed, notices=notices)

    @property
    def deleted(self) -> tuple[Entry, ...]:
        """What is gone and was not renamed."""
        kept = {change.twin.id for change in self.changes if change.kind == "renamed" and change.twin}
        return tuple(entry for entry in self.gone if entry.id not in kept)

    @property
    def still_there(self) -> tuple[Entry, ...]:
        """What is deleted though its file is there, since that is not chosen."""
        return tuple(entry for entry in self.deleted if files.is_there(entry.id))


def compare(
    wanted: Sequence[File],
    known: Mapping[str, Entry],
    *,
    gone: Collection[str],
    recipe: str,
    checksum: bool = False,
    largest: int | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Plan:
    """Look at every file and say what must be done.

    Args:
        wanted: The files that the index is to hold.
        known: What it holds, by document id.
        gone: Ids of the documents that it is to hold no longer.
        recipe: Whatever else than its bytes a document's chunks depend on.
        checksum: Read every file, also those that look as they did when they were last read.
        largest: Bytes that a file may have to be read.
        progress: Called before each file with its number, the number of all, and its source.
    """
    changes: list[Change] = []
    failed: list[Failure] = []
    stamps: dict[str, str] = {}
    unchanged = 0
    twins = _Twins(known, gone)
    for number, found in enumerate(wanted):
        progress(number, len(wanted), found.source)
        entry = known.get(found.document_id)
        file = found if entry is None else _labelled(found, entry.source)
        try:
            look = files.look(file.path)
            fresh = checksum or entry is None or entry.stamp != look.stamp
            if fresh and largest is not None and look.size > largest:
                too_large = _too_large(file, look, largest)
                failed.append(replace(too_large, answers_still=entry is not None))
                continue
            content_hash = files.digest(file.path) if fresh or entry is None else entry.content_hash
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            failed.append(Failure(source=file.source, reason=reason, answers_still=entry is not None))
            continue
        if entry is not None and entry.generation == generation(file, content_hash, recipe):
            unchanged += 1
            if entry.stamp != look.proof:
                stamps[entry.id] = look.proof
            continue
        changes.append(_change(file, content_hash, look, entry, twins))
    return Plan(
        changes=tuple(changes),
        gone=tuple(known[one] for one in gone),
        unchanged=unchanged,
        stamps=stamps,
        failed=tuple(failed),
    )


def generation(file: File, content_hash: str, recipe: str) -> str:
    """Names one state of one document: 16 hexadecimal digits of a hash of all that its points depend on."""
    said = json.dumps(file.metadata, sort_keys=True, default=str)
    parts = (file.document_id, file.source, said, content_hash, recipe)
    # Surrogates can come from a file's name; lengths keep one part from passing for another.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _told_of(left: Sequence[Entry]) -> Iterator[str]:
    """Only `deleted` in a table does not tell a slip in a pattern from files that are gone."""
    if left:
        names = ", ".join(entry.source for entry in left[:_NAMED]) + (", …" if len(left) > _NAMED else "")
        yield (
            f"of the deleted documents, {len(left)} still have their files, which --glob, --exclude or"
            f" .gitignore do not choose: {names}. --no-prune keeps such documents"
        )


def refuse_choice(selection: Selection, roots: Iterable[Path], *, held: int, others: int) -> None:
    """Where patterns leave no file at all, they are a slip: an index is not emptied by one.

    Args:
        selection: The patterns are in it.
        roots: As they were named.
        held: Documents that would be deleted though their files are there.
        others: Files that there would be without the patterns.

    Raises:
        UsageError: There are any of these.
    """
    below = ", ".join(map(str, roots))
    if held:
        raise UsageError(
            f"{selection.named} leaves no file of {below} that can be read, and would delete all {held}"
            " documents that the index holds of it",
            hint="Check the pattern; --no-prune deletes nothing, and `crossrag delete` what you name",
        )
    if others:
        raise UsageError(
            f"{selection.named} leaves none of the {others} files of {below}",
            hint="Check the pattern, which is compared with the path below the folder",
        )


class _Twins:
    """Finds documents of the same content; each that is gone can be renamed once."""

    def __init__(self, known: Mapping[str, Entry], gone: Iterable[str]) -> None:
        self._by_content: dict[str, Entry] = {}
        self._gone: dict[tuple[str, str], list[Entry]] = {}
        for entry in known.values():
            self._by_content.setdefault(entry.content_hash, entry)
        for one in gone:
            entry = known[one]
            self._gone.setdefault((entry.content_hash, _suffix(entry.id)), []).append(entry)

    def renamed(self, content_hash: str, document_id: str) -> Entry | None:
        waiting = self._gone.get((content_hash, _suffix(document_id)))
        return waiting.pop(0) if waiting else None

    def copied(self, content_hash: str) -> Entry | None:
        return self._by_content.get(content_hash)


def _change(file: File, content_hash: str, look: Look, entry: Entry | None, twins: _Twins) -> Change:
    origin = twins.renamed(content_hash, file.document_id) if entry is None else None
    return Change(
        kind="changed" if entry else "renamed" if origin else "new",
        file=file,
        content_hash=content_hash,
        look=look,
        previous=entry,
        twin=origin or twins.copied(content_hash),
    )


def _too_large(file: File, look: Look, largest: int) -> Failure:
    """Said before it is hashed: nothing that takes minutes is done for a file that is refused anyway."""
    error = loading.too_large(file.source, look.size, largest)
    reason = error.message.removeprefix(f"{file.source}: ")
    return Failure(source=file.source, reason=f"{reason}. {error.hint}")


def _labelled(file: File, source: str) -> File:
    """The widest folder that a document was ever found from names it, so that their order does not matter."""
    return file if files.is_wider(file.source, source) else replace(file, source=source)


def _suffix(document_id: str) -> str:
    return PurePosixPath(document_id).suffix.lower()
