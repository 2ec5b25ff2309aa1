"""The parsing process: `python -m crossrag.loading.worker`. Reads requests from stdin, answers on stdout.

It may read files and nothing else: it opens no connection, starts no process, writes no file. It ends itself
when its parent is gone, however the parent went.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from crossrag.errors import LoadError

from .documents import load
from .formats import prepare_for
from .frames import read_frame, write_frame
from .limits import OUT_OF_MEMORY, Limits, forbid_core_dumps, limit_this_process, peak_memory

_LONGEST_REQUEST = 2**24
_LARGEST_KEPT = 2**27
_FORBIDDEN = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("os.kill", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Answer requests until stdin ends."""
    requests, replies = _private_streams()
    forbid_core_dumps()
    _end_with_parent(requests)
    sys.addaudithook(_refuse)
    # openpyxl would load it if it could, only to know its types of numbers.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    write_frame(replies, {"ready": True})
    try:
        while (request := read_frame(requests, limit=_LONGEST_REQUEST)) is not None:
            reply = _answer(request)
            write_frame(replies, reply)
            if reply["last"]:
                return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # there may be too little left to say so in any other way


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to the parent, out of the reach of a library that prints."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return requests, replies


def _end_with_parent(requests: IO[bytes]) -> None:
    """Watch for the end of stdin from a thread, because the parser may be busy for long."""
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(requests.fileno(), 0)  # nothing but the hang-up is reported

    def watch() -> None:
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        # Python's own cache of compiled modules is all that may be written.
        if isinstance(flags, int) and flags & _WRITING and "__pycache__" not in str(path):
            raise PermissionError("a parser may not write files")
    elif event in _FORBIDDEN and not ("__pycache__" in str(arguments[0]) if arguments else False):
        raise PermissionError(f"a parser may not call {event}")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(**request["limits"])
    limit_this_process(limits)
    reply: dict[str, Any]
    try:
        prepare_for(Path(request["path"]).suffix)
        limit_this_process(limits)  # from here on, whatever is taken is for the file
        reply = {"document": _document(request, limits)}
    except LoadError as error:
        reply = {"message": error.message, "hint": error.hint}
    except RecursionError:
        return {"message": f"{request['source']}: is nested too deeply", "hint": "Flatten it", "last": True}
    # What a large file took is not always given back; a fresh process is small again.
    reply["last"] = peak_memory() > _LARGEST_KEPT
    return reply


def _document(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    document = load(
        Path(request["path"]),
        document_id=request["document_id"],
        source=request["source"],
        limits=limits,
        metadata=request["metadata"],
        fields=request["fields"],
    )
    return asdict(document)


if __name__ == "__main__":
    main()
