"""A reranker that remembers: the same question, passage and first-stage scores are read once.

Kept in one SQLite file, as bytes and numbers; texts themselves are not stored, only their SHA-256. Wraps any
Reranker and is one.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from .protocols import Reranker
    from .types import Relevance, Scores

_Row = tuple[float, float, bool, int | None, int | None, int, bool]
"""Relevance, logit, truncated, window start and end, layers, question truncated."""


class CachedReranker:
    """Asks `inner` only for what it has not said before.

    What was not read to the end, because it could not come among the first `top_k`, is remembered for the
    same texts and `top_k` only; what was hurried by a deadline is read again.

    Args:
        inner: The reranker.
        path: The SQLite file; made if missing.
        most: Rows after which the oldest tenth is thrown away; one takes about 150 bytes.

    Raises:
        StoreError: The file cannot be opened, or is something else; also from `score`.
    """

    def __init__(self, inner: Reranker, path: Path, *, most: int = 1_000_000) -> None:
        self.inner, self._path, self._most = inner, path, most
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS score (key BLOB PRIMARY KEY, relevance REAL NOT NULL,"
                " logit REAL NOT NULL, truncated INTEGER NOT NULL, start INTEGER, end INTEGER,"
                " layers INTEGER NOT NULL, cut INTEGER NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    @property
    def fingerprint(self) -> str:
        """The inner reranker's: remembering changes no score."""
        return self.inner.fingerprint

    @property
    def residual(self) -> bool | None:
        """The inner reranker's; None where it does not say."""
        return getattr(self.inner, "residual", None)

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As the inner reranker's, from memory where it can."""
        keys = [
            self._key(query, text, first_stage[position] if first_stage is not None else None)
            for position, text in enumerate(texts)
        ]
        # What left early was judged beside all the others: it is only remembered for the same set of texts.
        together = hashlib.sha256(b"".join([str(top_k).encode(), *keys])).digest()
        beside = [hashlib.sha256(together + key).digest() for key in keys]
        rows = self._recalled(keys, beside)
        exits = any(row is None or row[5] for row in rows)
        missing = [position for position, row in enumerate(rows) if row is None]
        if missing and top_k is not None and exits:
            missing = list(range(len(texts)))
        said = self.inner.score(
            query,
            [texts[position] for position in missing],
            first_stage=None if first_stage is None else [first_stage[position] for position in missing],
            top_k=top_k,
            deadline=deadline,
        )
        fresh: dict[bytes, _Row] = {}
        deepest = max(said.layers, default=0)
        unread = [False] * len(texts)
        for place, position in enumerate(missing):
            row = rows[position] = _row(said, place)
            unread[position] = said.unread[place]
            if _worth_keeping(said, place):
                final = not said.layers or said.layers[place] == deepest
                fresh[keys[position] if final else beside[position]] = row
        self._remember(fresh)
        return _assembled(said, [row for row in rows if row is not None], unread)

    def close(self) -> None:
        """Close the file, and what is behind it."""
        self._database.close()
        if hasattr(self.inner, "close"):
            self.inner.close()

    def _key(self, query: str, text: str, scores: Scores | None) -> bytes:
        digest = hashlib.sha256()
        legs = "" if scores is None else f"{scores.dense!r} {scores.sparse!r} {scores.indexed!r}"
        for part in (self.fingerprint, legs, query, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()

    def _recalled(self, keys: Sequence[bytes], beside: Sequence[bytes]) -> list[_Row | None]:
        query = "SELECT relevance, logit, truncated, start, end, layers, cut FROM score WHERE key = ?"
        found: list[_Row | None] = []
        with self._lock:
            for pair in zip(keys, beside, strict=True):
                row = None
                try:
                    for key in pair:
                        row = row or self._database.execute(query, (key,)).fetchone()
                except sqlite3.Error as error:
                    raise self._unusable(error) from None
                found.append(row and (row[0], row[1], bool(row[2]), row[3], row[4], row[5], bool(row[6])))
        return found

    def _remember(self, rows: dict[bytes, _Row]) -> None:
        if not rows:
            return
        with self._lock:
            try:
                self._database.execute("BEGIN")
                self._write(rows)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise self._unusable(error) from None

    def _write(self, rows: dict[bytes, _Row]) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO score VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(key, *row) for key, row in rows.items()],
        )
        (count,) = self._database.execute("SELECT COUNT(*) FROM score").fetchone()
        if count > self._most:
            self._database.execute(
                "DELETE FROM score WHERE rowid IN (SELECT rowid FROM score ORDER BY rowid LIMIT ?)",
                (count - self._most + self._most // 10,),
            )

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"The score cache {self._path} cannot be used: {error}", hint="Delete the file; it is made again"
        )


def _row(said: Relevance, place: int) -> _Row:
    start, end = (said.windows[place] or (None, None)) if said.windows else (None, None)
    layers = said.layers[place] if said.layers else 0
    score = said.relevance[place], said.logit[place]
    return *score, said.truncated[place], start, end, layers, said.query_truncated


def _window(row: _Row) -> tuple[int, int] | None:
    return None if row[3] is None or row[4] is None else (row[3], row[4])


def _worth_keeping(said: Relevance, place: int) -> bool:
    """Read in time, and a number."""
    finite = math.isfinite(said.relevance[place]) and math.isfinite(said.logit[place])
    return finite and not said.hurried and not said.unread[place]


def _assembled(said: Relevance, rows: Sequence[_Row], unread: Sequence[bool]) -> Relevance:
    return replace(
        said,
        relevance=tuple(row[0] for row in rows),
        logit=tuple(row[1] for row in rows),
        truncated=tuple(row[2] for row in rows),
        unread=tuple(unread),
        query_truncated=said.query_truncated or any(row[6] for row in rows),
        layers=tuple(row[5] for row in rows) if any(row[5] for row in rows) else (),
        by_exit=(),
        windows=tuple(_window(row) for row in rows) if any(map(_window, rows)) else (),
    )
