"""What `crossrag ingest` does beside ingesting once: show its plan, go on watching."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import CrossragError, UsageError

from . import show

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.pipeline import Rag
    from crossrag.planning import Plan, Selection
    from crossrag.preparing import Engine
    from crossrag.types import IngestReport


def chosen(settings: Settings, name: str) -> Engine | None:
    """What prepares documents; None for this process.

    Raises:
        UsageError: There is none of that name.
        MissingExtraError: Its library is not installed.
    """
    if name == "local":
        return None
    if name != "ray":
        raise UsageError(f"There is no engine {name!r}", hint="Write --engine local or --engine ray")
    from crossrag.scale.ingest import RayEngine

    return RayEngine(settings)


def talking(engine: Engine | None) -> AbstractContextManager[object]:
    """Ray prints what happens to its workers on standard output, which is for data."""
    return nullcontext() if engine is None else redirect_stdout(sys.stderr)


def once(
    rag: Rag,
    paths: Sequence[Path],
    selection: Selection,
    engine: Engine | None,
    *,
    rebuild: bool,
    fail_fast: bool,
) -> IngestReport:
    """Ingest, and show how far it is."""
    with show.ingest_progress() as progress, talking(engine):
        return rag.ingest(
            *paths,
            selection=selection,
            rebuild=rebuild,
            fail_fast=fail_fast,
            engine=engine,
            progress=progress,
        )


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """What an ingestion would do, document by document."""
    rows: list[tuple[str, str]] = [(change.kind, change.file.source) for change in plan.changes]
    rows += [("deleted", entry.source) for entry in plan.deleted]
    if as_json:
        show.to_json(
            {
                "changes": [{"kind": kind, "source": source} for kind, source in rows],
                "unchanged": plan.unchanged,
                "skipped": [asdict(failure) for failure in plan.skipped],
                "failed": [asdict(failure) for failure in plan.failed],
                "notices": list(plan.notices),
            }
        )
        return
    for kind, source in rows:
        print(f"{kind:<8} {source}")
    print(f"{len(rows)} to do, {plan.unchanged} unchanged; nothing was written")
    for name, failures in (("skipped", plan.skipped), ("failed", plan.failed)):
        for failure in failures:
            show.talk(f"{name}: {failure.source}: {failure.reason}")
    for notice in plan.notices:
        show.talk(f"note: {notice}")


def watch(
    rag: Rag, paths: Sequence[Path], selection: Selection, *, engine: Engine | None, as_json: bool
) -> None:
    """Ingest whenever something changes below the paths, until Ctrl-C. Between two runs the index is free."""
    from crossrag import watching

    rag.close()
    show.talk("Watching for changes; Ctrl-C ends it.")
    for _ in watching.changes(paths, ignored=rag.settings.index.path):
        try:
            with talking(engine):
                report = rag.ingest(*paths, selection=selection, engine=engine)
        except CrossragError as error:
            # A folder that is being moved, an index that is in use: the next change may find it well.
            show.error(str(error))
            continue
        finally:
            rag.close()
        if report.added or report.updated or report.renamed or report.deleted or report.failed:
            show.report(report, as_json=as_json)
