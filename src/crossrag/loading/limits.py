"""How much a file may cost, and how a child process holds itself to it.

The kernel keeps the limits, so that they hold within any library. Where a system has none, the clock remains.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import resource


OUT_OF_MEMORY = 97
"""Exit code of a child that had no memory left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may take before it is given up."""

    file_bytes: int = 256 * 2**20
    memory_bytes: int = 2**30
    """What parsing may add to the memory of its process. Kept on Linux."""
    cpu_seconds: float = 120.0
    """Processor time; the kernel counts whole seconds, rounded up. Not on Windows."""
    seconds: float = 300.0
    """Time on the clock, the last resort everywhere."""
    text_characters: int = 16_000_000
    """Longest text of a document: about eight thousand pages."""


def limit_this_process(limits: Limits) -> None:
    """Before each file: memory and processor time from here on."""
    if sys.platform == "win32":
        return
    used = _memory_used()
    if used is not None:
        for kind, size in ((resource.RLIMIT_AS, used[0]), (resource.RLIMIT_DATA, used[1])):
            _set_soft(kind, size + limits.memory_bytes)
    _set_soft(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.cpu_seconds))


def forbid_core_dumps() -> None:
    """A crash is to leave nothing of a document on the disk."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def peak_memory() -> int:
    """Most bytes that this process ever held at once; 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    # Not getrusage, whose figure a child takes over from its parent.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _set_soft(kind: int, value: int) -> None:
    if sys.platform == "win32":
        return
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _memory_used() -> tuple[int, int] | None:
    """Bytes of address space and of private data now, as Linux counts them."""
    if sys.platform != "linux":
        return None
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    page = resource.getpagesize()
    return int(fields[0]) * page, int(fields[5]) * page
