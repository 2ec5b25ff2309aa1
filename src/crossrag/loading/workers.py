"""A pool of parsing processes, kept warm. Whatever a file does to one, the parent goes on with a LoadError.

A process that dies or goes beyond its time is killed with all it has started, and replaced when next needed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossrag.errors import LoadError, UsageError
from crossrag.types import Document

from .documents import check_regular, load
from .formats import is_plain
from .limits import Limits
from .process import ParsingProcess
from .repair import clean_text

_IN_PROCESS_BYTES = 2**18
"""So much plain text takes milliseconds, whatever is in it."""


class Loader:
    """Loads files in child processes: `with Loader() as loader: loader.load(path, …)`. Safe between threads.

    Small files of text, tables and JSON are read in this process, which is as safe and much faster.

    Args:
        limits: What one file may take.
        workers: Most processes at once; a thread that finds all of them busy waits.
        fields: Columns of tables, dotted names in JSON to keep, in order; all where a file has none of them.
    """

    def __init__(
        self, limits: Limits | None = None, workers: int | None = None, *, fields: Sequence[str] = ()
    ) -> None:
        self._limits = limits or Limits()
        self._fields = tuple(fields)
        self._idle: list[ParsingProcess] = []
        self._all: set[ParsingProcess] = set()
        self._lock = threading.Lock()
        self._free = threading.Semaphore(workers or min(4, os.cpu_count() or 1))
        self._closed = False
        self._finalizer = weakref.finalize(self, _kill_all, self._all)

    def load(
        self, path: Path, *, document_id: str, source: str, metadata: Mapping[str, Any] | None = None
    ) -> Document:
        """Read a file as `load` does.

        Raises:
            LoadError: It cannot be read, is not what its suffix says, or went beyond a limit; says which.
        """
        source = clean_text(source)
        size = check_regular(path, source, limit=self._limits.file_bytes)
        if is_plain(path.suffix) and size <= _IN_PROCESS_BYTES:
            return load(
                path,
                document_id=document_id,
                source=source,
                limits=self._limits,
                metadata=metadata,
                fields=self._fields,
            )
        reply = self._ask(
            {
                "path": str(path.absolute()),  # whatever the folder in which the child was started
                "document_id": document_id,
                "source": source,
                "metadata": dict(metadata or {}),
                "fields": self._fields,
                "limits": asdict(self._limits),
            }
        )
        if document := reply.get("document"):
            return _document(document)
        raise _error(reply, source, self._limits)

    def close(self) -> None:
        """End all processes; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._free:
            process = self._take()
            try:
                reply = process.ask(request, self._limits)
            except BaseException:  # Ctrl-C too: what nobody waits for would be taken for the next answer
                self._drop(process)
                raise
            if process.alive:
                self._give_back(process)
            else:
                self._drop(process)
            if self._closed and "died" in reply:  # by our own hand
                raise _closed()
            return reply

    def _take(self) -> ParsingProcess:
        while True:
            with self._lock:
                if self._closed:
                    raise _closed()
                process = self._idle.pop() if self._idle else None
            if process is None:
                return self._started()
            if process.alive:
                return process
            self._drop(process)  # it died while idle, which is no file's fault

    def _started(self) -> ParsingProcess:
        process = ParsingProcess()
        with self._lock:
            self._all.add(process)
            closed = self._closed
        if closed:  # meanwhile, by another thread
            self._drop(process)
            raise _closed()
        return process

    def _give_back(self, process: ParsingProcess) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)

    def _drop(self, process: ParsingProcess) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


def _kill_all(processes: set[ParsingProcess]) -> None:
    while processes:
        processes.pop().kill()


def _document(fields: Mapping[str, Any]) -> Document:
    lists = {key: tuple(fields[key]) for key in ("page_starts", "page_names", "notices")}
    return Document(**{**fields, **lists})


def _closed() -> UsageError:
    return UsageError("The loader is closed", hint="Use it within its with block")


def _error(reply: Mapping[str, Any], source: str, limits: Limits) -> LoadError:
    if "message" in reply:
        return LoadError(reply["message"], hint=reply.get("hint", ""))
    reasons = {
        "memory": f"takes more than {limits.memory_bytes / 2**20:g} MiB of memory to parse",
        "cpu_seconds": f"takes more than {limits.cpu_seconds:g} s of processor time to parse",
        "seconds": f"takes more than {limits.seconds:g} s to parse",
    }
    reason = reasons.get(reply.get("exhausted", ""), f"made its parser crash ({reply.get('died')})")
    return LoadError(f"{source}: {reason}", hint="Open it and save it again, split it, or leave it out")
