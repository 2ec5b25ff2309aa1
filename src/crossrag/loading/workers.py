"""A pool of parsing processes, kept warm. Whatever a file does to one, the parent goes on with a LoadError.

A process that dies or goes beyond its time is killed with all it has started, and replaced when next needed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossrag.errors import LoadError, UsageError
from crossrag.types import Document

from .documents import check_regular, load_limited
from .formats import is_plain
from .frames import read_frame, write_frame
from .limits import OUT_OF_MEMORY, Limits
from .repair import clean_text

_IN_PROCESS_BYTES = 2**18
"""So much plain text takes milliseconds, whatever is in it."""
_START_SECONDS = 60.0
_DYING_SECONDS = 2.0
_KEPT_ENVIRONMENT = (
    "PATH",
    "PYTHON",
    "LANG",
    "LC_",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_",
    "SYSTEMROOT",
    "VIRTUAL_ENV",
)
"""Beginnings of the names that a parser needs; keys and passwords stay out of its reach."""


class Loader:
    """Loads files in child processes: `with Loader() as loader: loader.load(path, …)`. Safe between threads.

    Small files of text, tables and JSON are read in this process, which is as safe and much faster.

    Args:
        limits: What one file may take.
        workers: Most processes at once; a thread that finds all of them busy waits.
        fields: Columns of tables and dotted names in JSON to keep, in order; all where there are none.
    """

    def __init__(
        self, limits: Limits | None = None, workers: int | None = None, *, fields: Sequence[str] = ()
    ) -> None:
        self._limits = limits or Limits()
        self._fields = tuple(fields)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
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
            return load_limited(
                path,
                document_id=document_id,
                source=source,
                limits=self._limits,
                metadata=metadata,
                fields=self._fields,
            )
        reply = self._ask(
            {
                "path": str(path),
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
            except (
                BaseException
            ):  # Ctrl-C too: an answer that nobody waits for would be taken for the next one
                self._drop(process)
                raise
            if process.alive:
                self._give_back(process)
            else:
                self._drop(process)
            return reply

    def _take(self) -> _Process:
        while True:
            with self._lock:
                if self._closed:
                    raise UsageError("The loader is closed", hint="Use it within its with block")
                process = self._idle.pop() if self._idle else None
            if process is None:
                process = _Process()
                with self._lock:
                    self._all.add(process)
                return process
            if process.alive:
                return process
            self._drop(process)  # it died while idle, which is no file's fault

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)

    def _drop(self, process: _Process) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


class _Process:
    """One child: asked one file at a time."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "crossrag.loading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own: killed whole, and Ctrl-C is the parent's to handle
            env={name: value for name, value in os.environ.items() if name.startswith(_KEPT_ENVIRONMENT)},
        )
        self._usable = True
        self._expired = threading.Event()
        if "ready" not in self._exchange({}, seconds=_START_SECONDS, limit=2**20):
            self.kill()
            raise LoadError(
                "no process could be started to parse in",
                hint=f"Try {sys.executable} -m crossrag.loading.worker",
            )

    @property
    def alive(self) -> bool:
        return self._usable and not self._expired.is_set() and self._child.poll() is None

    def ask(self, request: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        """The child's reply; or in `exhausted` the limit that it went beyond, or in `died` how it ended."""
        reply = self._exchange(request, seconds=limits.seconds, limit=4 * limits.text_characters + 2**25)
        if not reply:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is dying: let it, to know of what
                self._child.wait(timeout=_DYING_SECONDS)
            self.kill()
            return {"exhausted": "seconds"} if self._expired.is_set() else self._ending()
        self._usable = not reply.get("last")
        return reply

    def kill(self) -> None:
        """End it now, with all that it may have started."""
        self._usable = False
        _kill_group(self._child)
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet cannot be
                    stream.close()

    def _exchange(self, request: Mapping[str, Any], *, seconds: float, limit: int) -> dict[str, Any]:
        """Send, unless there is nothing to send, and wait; nothing where no whole answer came in time."""
        stdin, stdout = self._child.stdin, self._child.stdout
        if stdin is None or stdout is None:
            return {}
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            if request:
                write_frame(stdin, request)
            return read_frame(stdout, limit=limit) or {}
        except (OSError, ValueError):
            return {}
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._expired.set()
        _kill_group(self._child)

    def _ending(self) -> dict[str, Any]:
        code = self._child.returncode or 0
        if code == OUT_OF_MEMORY:
            return {"exhausted": "memory"}
        if sys.platform != "win32" and code == -signal.SIGXCPU:
            return {"exhausted": "cpu_seconds"}
        return {"died": signal.Signals(-code).name if code < 0 else f"exit code {code}"}


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        child.kill()
        return
    # Until it is waited for, no other process can have its number.
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _kill_all(processes: set[_Process]) -> None:
    while processes:
        processes.pop().kill()


def _document(fields: Mapping[str, Any]) -> Document:
    lists = {key: tuple(fields[key]) for key in ("page_starts", "page_names", "notices")}
    return Document(**{**fields, **lists})


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
