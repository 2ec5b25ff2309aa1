"""Path or bytes -> Document, in this process. `Loader` does the same where no file can do harm."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import LoadError
from crossrag.types import Document

from .formats import parse
from .repair import clean_text

if TYPE_CHECKING:
    from .limits import Limits

_TITLE_LENGTH = 200
"""A title goes with every chunk; a longer one is no title."""


def load(
    path: Path,
    *,
    document_id: str,
    source: str,
    metadata: Mapping[str, Any] | None = None,
    fields: Sequence[str] = (),
    limits: Limits | None = None,
) -> Document:
    """Read a file; the arguments are those of `load_bytes`.

    Raises:
        LoadError: It cannot be read, or not as what its suffix says, or is larger than allowed.
    """
    data = read_regular(path, source, limit=limits.file_bytes if limits else None)
    document = load_bytes(
        data,
        suffix=path.suffix,
        document_id=document_id,
        source=source,
        metadata=metadata,
        fields=fields,
    )
    if limits and len(document.text) > limits.text_characters:
        raise LoadError(
            f"{source}: has {len(document.text)} characters of text, more than {limits.text_characters}",
            hint="Split it into several files",
        )
    return document


def load_bytes(
    data: bytes,
    *,
    suffix: str,
    document_id: str,
    source: str,
    metadata: Mapping[str, Any] | None = None,
    fields: Sequence[str] = (),
) -> Document:
    """Parse bytes by the parser for `suffix`, such as `.md`; the text may be empty.

    Args:
        data: The whole file.
        suffix: Chooses the parser, in any case.
        document_id: Identity across runs.
        source: What a citation shows.
        metadata: What else is known of the document; goes before what the document says of itself. A `title`
            in it becomes the document's.
        fields: Columns of a table or dotted names in JSON to keep, in order; all where it has none of them.

    Raises:
        LoadError: The type is unknown, or the bytes are not of it.
    """
    source = clean_text(source)
    try:
        parsed = parse(data, suffix=suffix, fields=fields)
    except LoadError as error:
        raise LoadError(f"{source}: {error.message}", hint=error.hint) from None
    known = {**parsed.metadata, **(metadata or {})}
    title = str(known.pop("title", "") or parsed.title)
    return Document(
        id=document_id,
        source=source,
        text=parsed.text,
        title=" ".join(clean_text(title).split())[:_TITLE_LENGTH].rstrip(),
        markdown=parsed.markdown,
        page_starts=parsed.page_starts,
        page_names=parsed.page_names,
        metadata=known,
        notices=parsed.notices,
    )


def read_regular(path: Path, source: str, *, limit: int | None = None) -> bytes:
    """The bytes of a regular file; a pipe or a device is never waited for.

    Raises:
        LoadError: It is none, it cannot be read, or it has more than `limit` bytes.
    """
    check_regular(path, source)
    try:
        # Another process may have put a pipe in its place by now; opening must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _not_regular(source)
            if limit is not None and status.st_size > limit:
                raise too_large(source, status.st_size, limit)
            return file.read(status.st_size)  # and not what is added meanwhile
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from None


def check_regular(path: Path, source: str, *, limit: int | None = None) -> int:
    """The size in bytes of a regular file, which is not opened.

    Raises:
        LoadError: It is none, cannot be reached, or has more than `limit` bytes.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(source)
    if limit is not None and status.st_size > limit:
        raise too_large(source, status.st_size, limit)
    return status.st_size


def unreadable(source: str, error: OSError | ValueError) -> LoadError:
    """What to say of a path that the system does not give."""
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return LoadError(
        f"{clean_text(source)} cannot be read: {reason}", hint="Check that it exists and its permissions"
    )


def too_large(source: str, size: int, limit: int) -> LoadError:
    """What to say of a file above the limit; sizes in bytes."""
    return LoadError(
        f"{clean_text(source)}: has {_spoken(size)}, more than the {_spoken(limit)} allowed",
        hint="Split it, or leave it out",
    )


def _spoken(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size} bytes"


def _not_regular(source: str) -> LoadError:
    return LoadError(f"{clean_text(source)} is no regular file", hint="Give a file or a folder")
