"""Records and judgements that were made before, by what they depend on. One SQLite file, on this machine.

A key is the hash of everything that an entry depends on, so nothing in it is ever wrong, only unused.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossrag.errors import StoreError


class Journal:
    """A table of bytes by key, written one entry at a time. A context manager.

    Args:
        path: The file, made at first use if missing; None keeps nothing after closing.

    Raises:
        StoreError: The file cannot be used; from the methods.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    def get(self, key: str) -> bytes | None:
        """What was kept under the key."""
        try:
            row = self._database.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return None if row is None else bytes(row[0])

    def put(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """Keep them, all or none."""
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", entries)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise self._unusable(error) from None

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _database(self) -> sqlite3.Connection:
        """Opened at first use: no folder of an index is made because somebody asked about none."""
        if self._opened is None:
            try:
                if self._path is not None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                opened = sqlite3.connect(self._path or ":memory:", isolation_level=None, timeout=30)
                opened.execute("PRAGMA journal_mode = WAL")
                opened.execute("PRAGMA synchronous = NORMAL")
                opened.execute(
                    "CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT"
                )
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from None
            self._opened = opened
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"The evaluation cache {self._path} cannot be used: {error}",
            hint="Delete the file; it is made again",
        )


def key(*parts: Any) -> str:
    """SHA-256 of parts that JSON can hold, in hex."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
