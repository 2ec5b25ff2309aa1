"""One parsing process as the parent sees it: asked one file at a time, killed when it takes too long.

What it sends is bounded before it is read; how it ended is told in words.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from crossrag.errors import LoadError

from .frames import read_frame, write_frame
from .limits import OUT_OF_MEMORY, Limits

_START_SECONDS = 60.0
_DYING_SECONDS = 2.0
_KEPT = frozenset(
    (
        *("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("SYSTEMROOT", "APPDATA", "USERPROFILE", "TEMP", "TMP"),
    )
)
_KEPT_BEGINNINGS = ("PYTHON", "LC_", "DYLD_")
"""With the names above, what of the environment a parser needs; keys and passwords stay out of its reach."""


class ParsingProcess:
    """One child: asked one file at a time."""

    def __init__(self) -> None:
        try:
            self._child = self._started()
        except OSError as error:
            raise LoadError(
                f"no process could be started to parse in: {error.strerror}",
                hint="Close other programs, or read fewer files at once",
            ) from None
        self._usable = True
        self._expired = threading.Event()
        try:
            if "ready" not in self._exchange({}, seconds=_START_SECONDS, limit=2**20):
                raise LoadError(
                    "no process could be started to parse in",
                    hint=f"Try {sys.executable} -m crossrag.loading.worker",
                )
        except BaseException:
            self.kill()
            raise

    @staticmethod
    def _started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "crossrag.loading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own: killed whole, and Ctrl-C is the parent's to handle
            env={
                name: value
                for name, value in os.environ.items()
                if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
            },
        )

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
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
