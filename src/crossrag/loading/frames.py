"""Messages between the parent and a parsing process: eight bytes of length, then JSON. Nothing is unpickled.

Texts travel as they are; bytes of a path that are no UTF-8 survive as escaped surrogates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

_LENGTH_BYTES = 8


def write_frame(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Send one message.

    Raises:
        OSError: The other side is gone.
    """
    data = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes], *, limit: int) -> dict[str, Any] | None:
    """Wait for one message of at most `limit` bytes; None where the other side is gone.

    Raises:
        ValueError: What came is no message.
    """
    head = stream.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "big")
    if length > limit:
        raise ValueError(f"a message of {length} bytes, more than {limit}")
    data = stream.read(length)
    if len(data) < length:
        return None
    message = json.loads(data.decode("utf-8", "surrogatepass"))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message
