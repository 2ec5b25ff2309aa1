"""What `crossrag ingest` does beside ingesting once: show its plan, go on watching."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
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

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
"""Seconds."""


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
            show.talk(f"{name}: {failure}")
    for notice in plan.notices:
        show.talk(f"note: {notice}")


def listening(rag: Rag, paths: Sequence[Path]) -> Iterator[int]:
    """Numbers of changes below the paths, of which none is missed from now on: begin before the first run.

    Raises:
        UsageError: A path does not exist.
        MissingExtraError: The package watchfiles is not installed.
    """
    from crossrag import watching

    signals = watching.changes(paths, ignored=rag.settings.index.path)
    next(signals)
    return signals


def watch(
    rag: Rag,
    paths: Sequence[Path],
    selection: Selection,
    signals: Iterator[int],
    *,
    engine: Engine | None,
    as_json: bool,
) -> None:
    """Ingest whenever something changes below the paths, until Ctrl-C. Between two runs the index is free."""
    rag.close()
    show.talk("Watching for changes; Ctrl-C ends it.")
    waiting = _Waiting()
    pending = 0
    for changed in signals:
        pending += changed
        if not (changed or waiting.is_over):
            continue
        try:
            with talking(engine):
                report = rag.ingest(*paths, selection=selection, engine=engine)
        except CrossragError as error:
            # A folder that is being moved, an index that is in use: what changed is not to stay unindexed.
            if waiting.begin(str(error)):
                show.error(str(error))
                show.talk("It is tried again until it succeeds.")
            continue
        finally:
            rag.close()
        waiting = _Waiting()
        count, pending = pending, 0
        if report.added or report.updated or report.renamed or report.deleted or report.failed:
            show.talk(f"{time.strftime('%H:%M:%S')}  {count} {'file' if count == 1 else 'files'} changed")
            show.report(report, as_json=as_json)


class _Waiting:
    """How long to wait until a run that failed is tried again: each time twice as long, up to a minute."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = math.inf
        self._reason = ""

    @property
    def is_over(self) -> bool:
        """Whether something failed and it is time to try it again."""
        return time.monotonic() >= self._until

    def begin(self, reason: str) -> bool:
        """Wait from now on; whether the reason is news."""
        self._seconds = min(_LONGEST_WAIT, 2 * self._seconds or _FIRST_WAIT)
        self._until = time.monotonic() + self._seconds
        is_news, self._reason = reason != self._reason, reason
        return is_news
