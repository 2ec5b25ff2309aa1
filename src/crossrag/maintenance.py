"""Work on a whole index: verify and repair it, delete documents, build it anew beside the old one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import assembly, files, manifest, places, planning, verifying
from .errors import DamagedError, FingerprintError, IndexMissingError, StoreError, UsageError
from .files import File

if TYPE_CHECKING:
    from .index import Index
    from .indexing import Progress
    from .manifest import Entry
    from .planning import Change
    from .types import Failure, IngestReport
    from .verifying import Difference, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a repair found and did."""

    found: tuple[Difference, ...]
    rewritten: int
    """Documents that were read and written again."""
    removed: int
    """Documents that had chunks which the manifest did not know: those chunks are gone."""
    manifest_lost: bool
    """The manifest knew no document: only an ingestion of their folders brings them back."""
    failed: tuple[Failure, ...]
    """Documents that could not be: they are as damaged as they were."""


def verify(index: Index, *, vectors: bool = False) -> Verdict:
    """Compare manifest and store, and change nothing.

    Raises:
        IndexMissingError: There is no index.
    """
    with index.only_writer():
        return verifying.verify(index.store, index.manifest, vectors=vectors)


def repair(index: Index, *, progress: Callable[[Progress], None] = lambda _: None) -> Repaired:
    """Finish what was cut short, remove chunks that nobody knows, write damaged documents again.

    Raises:
        IndexMissingError: There is no index.
    """
    with index.only_writer():
        verdict = verifying.verify(index.store, index.manifest, vectors=True)
        found = verdict.differences
        indexer = index.indexer()
        indexer.recover()
        known = index.manifest.entries()
        for one in found:
            if one.kind == "orphaned":
                entry = known.get(one.document_id)
                index.store.delete_document(
                    one.document_id, keep_generation=entry.generation if entry else None
                )
        index.store.flush()
        broken = [known[one.document_id] for one in found if one.kind in {"missing", "altered"}]
        wanted = [_file(entry.id, entry.source, entry.metadata) for entry in broken]
        largest = index.settings.loading.file_bytes
        plan = planning.compare(wanted, {}, gone=(), recipe=index.recipe, largest=largest)
        anew = [_anew(change, known[change.file.document_id]) for change in plan.changes]
        report = indexer.run(replace(plan, changes=tuple(anew)), progress=progress)
    return Repaired(
        found=found,
        rewritten=report.updated,
        removed=len({one.document_id for one in found if one.kind == "orphaned"}),
        manifest_lost=verdict.manifest_lost,
        failed=(*report.failed, *report.skipped),
    )


def delete(index: Index, sources: Sequence[str]) -> list[str]:
    """Remove the documents of these sources from the index, not their files; the sources that went.

    Args:
        index: It must exist.
        sources: Names as `crossrag status` shows them, or patterns such as `handbook/*`.

    Raises:
        UsageError: A name or pattern fits no document; nothing was removed.
    """
    with index.only_writer():
        known = {entry.id: entry.source for entry in index.manifest.entries().values()}
        doomed: dict[str, str] = {}
        for wanted in sources:
            fitting = {one: source for one, source in known.items() if wanted == source}
            fitting = fitting or {one: name for one, name in known.items() if fnmatchcase(name, wanted)}
            if not fitting:
                raise UsageError(f"No document is {wanted!r}", hint=_nearest(wanted, known.values()))
            doomed |= fitting
        index.indexer().remove(list(doomed))
    return sorted(doomed.values())


def reindex(
    index: Index,
    *,
    drop_missing: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> IngestReport:
    """Build the index anew beside the old one from the same files, then switch; searches go on meanwhile.

    The settings may be others than those of the old index, and it may be of an earlier crossrag. Wherever
    this is cut short, the old index stands or the new one; the same call goes on.

    Args:
        index: It must exist.
        drop_missing: Switch also if documents of the old index cannot be read now, and are lost thereby.
        progress: Called before each file.

    Raises:
        IndexMissingError: There is no index.
        StoreError: Documents cannot be read any more; the old index stands.
    """
    with index.only_writer(foreign=True):
        index.check_alone()
        wanted = [_file(*row) for row in manifest.listed(index.home / assembly.manifest_name(index.settings))]
        new = places.beside(index.folder)
        with _built(index, new) as fresh:
            report = fresh.ingest_files(wanted, progress=progress)
            lost = [*report.failed, *report.skipped]
            if lost and not drop_missing:
                raise StoreError(
                    f"{len(lost)} documents of the index cannot be read now, the first of them"
                    f" {lost[0].source} ({lost[0].reason}); the old index stands",
                    hint="Mend the files or ingest their folder, or switch without them by --drop-missing",
                )
            index.exchange(fresh)
    return report


@contextmanager
def _built(index: Index, folder: Path) -> Iterator[Index]:
    """The index in `folder`: what an earlier call built there with the same settings, or a new one."""
    fresh = index.beside(folder)
    try:
        fresh.indexer()
    except (FingerprintError, IndexMissingError, DamagedError):
        fresh.close()
        shutil.rmtree(folder, ignore_errors=True)
    except StoreError as error:
        # It may pass, and hours of work with it.
        fresh.close()
        error.hint += f"; if it stays so, delete {folder}, which is half built, and run the command again"
        raise
    try:
        yield fresh
    finally:
        fresh.close()


def _anew(change: Change, entry: Entry) -> Change:
    """Write a document again, whatever the index holds of it; until it is read, what there is stays."""
    return replace(change, kind="changed", previous=entry, damaged=True)


def _file(document_id: str, source: str, metadata: Mapping[str, Any]) -> File:
    path = files.locate(document_id)
    return File(path=path, document_id=document_id, source=source, metadata=metadata)


def _nearest(wanted: str, sources: Iterable[str]) -> str:
    near = get_close_matches(wanted, list(sources), n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}`crossrag status` lists the documents"
