"""What is indexed: the truth about documents, in SQLite. One row per document.

Knows nothing of vectors. Whoever writes chunks records an entry without a hash before, and the whole one
after the store has flushed them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    chunks INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A document of the index."""

    id: str
    source: str
    content_hash: str
    """SHA-256 of the file's bytes, in hex; empty while the document is being written."""
    chunks: int

    @property
    def complete(self) -> bool:
        """Whether the document is in the index, whole; else a run was cut short in the midst of it."""
        return bool(self.content_hash)


class Manifest:
    """SQLite in WAL mode with `synchronous=FULL`: a row that was written survives a power cut.

    Raises:
        StoreError: The file is damaged, of a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                self._connection.close()
                raise StoreError(f"{path} was written by a later crossrag", hint="Upgrade crossrag")
            self._connection.execute(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version={_VERSION}")

    def entries(self) -> dict[str, Entry]:
        """All documents by id, in order of their source."""
        with self._translated():
            rows = self._connection.execute(
                "SELECT id, source, content_hash, chunks FROM documents ORDER BY source, id"
            )
            return {
                row[0]: Entry(id=row[0], source=row[1], content_hash=row[2], chunks=row[3])
                for row in rows.fetchall()
            }

    def record(self, entry: Entry) -> None:
        """Replace what was said of a document before."""
        with self._translated():
            self._connection.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)",
                (entry.id, entry.source, entry.content_hash, entry.chunks),
            )

    def forget(self, document_id: str) -> None:
        """Say that a document is no longer wanted; its chunks are deleted afterwards."""
        with self._translated():
            self._connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))

    def close(self) -> None:
        """Closing twice is fine."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self._path} cannot be used: {error}",
                hint="Check space and permissions; `crossrag ingest --rebuild PATH` makes a damaged one anew",
            ) from error
