"""What is indexed: the truth about documents, in SQLite; and which generations of them are in transition.

Knows nothing of vectors. A new generation is begun here before the store holds any of it, becomes the
document's in one transaction when the store holds all of it, and the old one is forgotten when it is deleted.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import DamagedError, FingerprintError, StoreError, StoreLockedError
from .types import View

_VERSION = 2
_SCHEMA = (
    """CREATE TABLE documents (
        id TEXT PRIMARY KEY, source TEXT NOT NULL, content_hash TEXT NOT NULL, generation TEXT NOT NULL,
        chunks INTEGER NOT NULL, stamp TEXT NOT NULL, metadata TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE transitions (
        generation TEXT PRIMARY KEY, document_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('writing', 'superseded'))
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE epoch (number INTEGER NOT NULL) STRICT",
    "INSERT INTO epoch VALUES (0)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A document of the index, whole."""

    id: str
    source: str
    content_hash: str
    """SHA-256 of the file's bytes, in hex."""
    generation: str
    """What its points carry as `metadata.generation`; another for every other content."""
    chunks: int
    stamp: str = ""
    """How the file looked when it was read; empty where that would not tell a later change."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What was said of it elsewhere, as in `metadata.jsonl`: needed to make it anew from the file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A generation that searches must not see: being written, or replaced and not yet deleted."""

    generation: str
    document_id: str
    state: Literal["writing", "superseded"]


_ENTRY = "SELECT id, source, content_hash, generation, chunks, stamp, metadata FROM documents"


class Manifest:
    """SQLite in WAL mode with `synchronous=FULL`: a row that was written survives a power cut.

    Threads may share one. Every method that writes is one transaction.

    Args:
        path: The file, made if there is none.
        tell: Told what searches must leave out whenever that has changed, for those who cannot look here.

    Raises:
        FingerprintError: The file is of an earlier version of crossrag.
        StoreError: The file is damaged, of a later version, or cannot be written.
    """

    attempts = 3
    """Of a search beside changes, before it holds them up."""

    def __init__(self, path: Path, *, tell: Callable[[View], None] | None = None) -> None:
        self._path = path
        self._tell = tell
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=30
            )
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def entries(self) -> dict[str, Entry]:
        """All documents by id, in order of their source."""
        with self._lock, self._translated():
            rows = self._connection.execute(f"{_ENTRY} ORDER BY source, id").fetchall()
        return {row[0]: _entry(row) for row in rows}

    def entry(self, document_id: str) -> Entry | None:
        """One document, without reading all of them."""
        with self._lock, self._translated():
            row = self._connection.execute(f"{_ENTRY} WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else _entry(row)

    def ids(self) -> list[str]:
        """Of all documents, in no order."""
        with self._lock, self._translated():
            return [row[0] for row in self._connection.execute("SELECT id FROM documents")]

    def totals(self) -> tuple[int, int]:
        """How many documents there are, and how many chunks."""
        with self._lock, self._translated():
            documents, chunks = self._connection.execute(
                "SELECT COUNT(*), COALESCE(SUM(chunks), 0) FROM documents"
            ).fetchone()
        return int(documents), int(chunks)

    def transitions(self) -> list[Transition]:
        """Generations that are being written or wait to be deleted, in order."""
        with self._lock, self._translated():
            rows = self._connection.execute(
                "SELECT generation, document_id, state FROM transitions ORDER BY generation"
            ).fetchall()
        return [Transition(generation=row[0], document_id=row[1], state=row[2]) for row in rows]

    def view(self) -> View:
        """What searches must leave out now. Look before a search and after: if it changed, search again."""
        with self._lock, self._translated():
            # One statement reads one state, whatever other processes write.
            rows = self._connection.execute(
                "SELECT number, generation FROM epoch LEFT JOIN transitions"
            ).fetchall()
        return View(rows[0][0], frozenset(row[1] for row in rows if row[1] is not None))

    known = view

    def tell(self) -> None:
        """Let those who cannot look here know what they must leave out."""
        if self._tell is not None:
            with self._lock, self._translated():
                view = self.view()
                (any_,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM documents)").fetchone()
            self._tell(View(view.epoch, view.hidden, nothing=not any_))

    @contextmanager
    def held(self) -> Iterator[View]:
        """A view that nobody, thread or process, changes before the block ends. Keep it short."""
        with self._transaction():
            yield self.view()

    def begin(self, generations: Mapping[str, str]) -> None:
        """Say that generations, each with its document's id, are going to be written."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO transitions VALUES (?, ?, 'writing')", generations.items()
            )
            _turn(connection)
        self.tell()

    def flip(self, entries: Iterable[Entry], *, gone: Iterable[str] = ()) -> None:
        """Make entries the truth about their documents, and let documents go; both at once.

        Who is told learns it before this returns, and so before anything is deleted. What entries
        replace is superseded from then on: delete it from the store, then `forget` it.
        """
        with self._transaction() as connection:
            for entry in entries:
                _supersede(connection, entry.id, but=entry.generation)
                connection.execute("DELETE FROM transitions WHERE generation = ?", (entry.generation,))
                connection.execute(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.id,
                        entry.source,
                        entry.content_hash,
                        entry.generation,
                        entry.chunks,
                        entry.stamp,
                        json.dumps(dict(entry.metadata), sort_keys=True),
                    ),
                )
            for document_id in gone:
                _supersede(connection, document_id, but=None)
                connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))
            _turn(connection)
        self.tell()

    def forget(self, generations: Iterable[str]) -> None:
        """Say that the store holds nothing more of these, and that this survives a power cut."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM transitions WHERE generation = ?", ((one,) for one in generations)
            )
            _turn(connection)
        self.tell()

    def restamp(self, stamps: Mapping[str, str]) -> None:
        """Note how the files of unchanged documents look now."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE documents SET stamp = ? WHERE id = ?", ((stamp, one) for one, stamp in stamps.items())
            )

    def close(self) -> None:
        """Closing twice is fine."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        """Make the tables in a new file; refuse another version's."""
        with self._transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={_VERSION}")
            elif version < _VERSION:
                raise FingerprintError(
                    f"{self._path} was written by an earlier crossrag",
                    hint="Build the index anew from the same files with `crossrag reindex`",
                )
            elif version > _VERSION:
                raise StoreError(f"{self._path} was written by a later crossrag", hint="Upgrade crossrag")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # not so after an error that has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            # What is busy, full or forbidden is an OperationalError; what is no database is its parent alone.
            broken = type(error) is sqlite3.DatabaseError
            kind = DamagedError if broken else StoreError
            raise kind(
                f"{self._path} cannot be used: {error}",
                hint="Check space and permissions; `crossrag ingest --rebuild PATH` makes a damaged one anew",
            ) from error


@contextmanager
def writer_lock(path: Path, *, seconds: float) -> Iterator[None]:
    """Only one process or thread at a time is inside; the lock ends with its process, however that ends.

    Raises:
        StoreLockedError: Another one is inside, and was so for that many seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=seconds)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise StoreLockedError(
                f"Another process is writing to the index at {path.parent}",
                hint="Wait until it ends, and run the same command again",
            ) from None
        yield
    finally:
        connection.close()


def listed(path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, source and metadata of every document of a manifest of any version, by source; writes nothing.

    Raises:
        StoreError: The file is damaged or not there.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(documents)")}
            said = "metadata" if "metadata" in columns else "'{}'"  # a text, in earlier versions
            rows = connection.execute(
                f"SELECT id, source, {said} FROM documents ORDER BY source, id"  # noqa: S608 - one of the two
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} cannot be read: {error}", hint="Make a new index with `crossrag ingest --rebuild PATH`"
        ) from error
    return [(row[0], row[1], json.loads(row[2])) for row in rows]


def _entry(row: tuple[str, str, str, str, int, str, str]) -> Entry:
    return Entry(
        id=row[0],
        source=row[1],
        content_hash=row[2],
        generation=row[3],
        chunks=row[4],
        stamp=row[5],
        metadata=json.loads(row[6]),
    )


def _supersede(connection: sqlite3.Connection, document_id: str, *, but: str | None) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO transitions SELECT generation, id, 'superseded' FROM documents"
        " WHERE id = ? AND generation IS NOT ?",
        (document_id, but),
    )


def _turn(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE epoch SET number = number + 1")
