"""A reranker that remembers: the same question, passage and first-stage scores are read once.

Kept in one SQLite file, as bytes and numbers; texts themselves are not stored, only their SHA-256. Wraps any
Reranker and is one.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigError, StoreError

if TYPE_CHECKING:
    from .protocols import Reranker
    from .types import Relevance, Scores

_LOG = logging.getLogger(__name__)
_OPENING, _WAITING = 10.0, 0.2
"""Seconds that another program may hold the file: at the start, and while somebody waits for scores."""
_REST = 5.0
"""Seconds for which a file that failed is left alone: each further try could take as long as the first."""
_Row = tuple[float, float, bool, int | None, int | None, int, bool]
"""Relevance, logit, truncated, window start and end, layers, question truncated."""


def is_memorable(reranker: Reranker) -> bool:
    """Whether its fingerprint tells it from every other one, later ones at the same place too.

    One that is not says so by an attribute `exchangeable`: a model that a server may exchange unnoticed would
    keep the scores of the one before for ever.
    """
    return not getattr(reranker, "exchangeable", False)


def remembering(reranker: Reranker, path: Path) -> CachedReranker:
    """As `CachedReranker`, for whoever asks for a file by name.

    Raises:
        ConfigError: It cannot be told from another model.
        StoreError: The file cannot be opened, or is something else.
    """
    if not is_memorable(reranker):
        raise ConfigError(
            f"Scores of {reranker.fingerprint} cannot be remembered: its server may exchange the model",
            hint="Set rerank_http.revision, and change it with the model; or leave reranking.cache out",
        )
    return CachedReranker(reranker, path.expanduser())


class CachedReranker:
    """Asks `inner` only for what it has not said before.

    Where some texts need not be read to the end, because they cannot come among the first `top_k`, all of
    them are remembered for the same texts and `top_k` only: so what is said does not depend on what else was
    asked before. What was hurried by a deadline is read again.

    Args:
        inner: The reranker.
        path: The SQLite file; made if missing.
        most: Rows after which the oldest tenth is thrown away; one takes about 150 bytes.

    Once it is open, a file that cannot be read or written costs nothing but memory: scores come from the
    reranker, and a warning is logged.

    Raises:
        StoreError: The file cannot be opened, or is something else.
    """

    def __init__(self, inner: Reranker, path: Path, *, most: int = 1_000_000) -> None:
        self.inner, self._path, self._most = inner, path, most
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._failing = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=_OPENING
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS score (key BLOB PRIMARY KEY, relevance REAL NOT NULL,"
                " logit REAL NOT NULL, truncated INTEGER NOT NULL, start INTEGER, end INTEGER,"
                " layers INTEGER NOT NULL, cut INTEGER NOT NULL)"
            )
            self._database.execute(f"PRAGMA busy_timeout = {round(1000 * _WAITING)}")
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
        # Where all are read to the end anyway, it is the same as without a limit.
        top_k = None if top_k is not None and top_k >= len(texts) else top_k
        # What left early was judged beside all the others: it is only remembered for the same set of texts.
        together = hashlib.sha256(b"".join([str(top_k).encode(), *keys])).digest()
        beside = [hashlib.sha256(together + key).digest() for key in keys]
        rows = self._known(keys, beside, chooses=top_k is not None)
        missing = [position for position, row in enumerate(rows) if row is None]
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
                if not said.layers or said.layers[place] == deepest:
                    fresh[keys[position]] = row
                if said.layers and top_k is not None:
                    fresh[beside[position]] = row
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

    def _known(self, keys: Sequence[bytes], beside: Sequence[bytes], *, chooses: bool) -> list[_Row | None]:
        """What is remembered of each text; where the reranker `chooses` among them, of all or of none."""
        if not chooses:
            return self._recalled(keys)
        rows = self._recalled(beside)
        if None in rows:
            # What was read to the end says nothing of what leaves early; without layers, nothing does.
            rows = [row if row and not row[5] else None for row in self._recalled(keys)]
        return rows if None not in rows else [None] * len(rows)

    def _recalled(self, keys: Sequence[bytes]) -> list[_Row | None]:
        query = "SELECT relevance, logit, truncated, start, end, layers, cut FROM score WHERE key = ?"
        found: list[_Row | None] = []

        def read() -> None:
            for key in keys:
                row = self._database.execute(query, (key,)).fetchone()
                found.append(row and (row[0], row[1], bool(row[2]), row[3], row[4], row[5], bool(row[6])))

        return found if self._tried(read) else [None] * len(keys)

    def _remember(self, rows: dict[bytes, _Row]) -> None:
        def write() -> None:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._write(rows)
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

        if rows and self._tried(write):
            self._failing = False

    def _tried(self, work: Callable[[], None]) -> bool:
        """Whether it was done; nobody waits long for it, and no score is lost by it."""
        if time.monotonic() < self._rests_until or not self._lock.acquire(timeout=_WAITING):
            return False
        try:
            work()
        except sqlite3.Error as error:
            self._rests_until = time.monotonic() + _REST
            # Once, until something was written again.
            if not self._failing:
                self._failing = True
                _LOG.warning("Scores are not remembered meanwhile. %s", self._unusable(error))
            return False
        finally:
            self._lock.release()
        return True

    def _write(self, rows: dict[bytes, _Row]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO score VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(key, *row) for key, row in rows.items()],
        )
        # Their numbers grow with time. Counting the rows themselves would read all of them.
        newest, oldest = self._database.execute(
            "SELECT (SELECT MAX(rowid) FROM score), (SELECT MIN(rowid) FROM score)"
        ).fetchone()
        if newest - oldest >= self._most:
            self._database.execute(
                "DELETE FROM score WHERE rowid <= ?", (newest - self._most + self._most // 10,)
            )

    def _unusable(self, error: Exception) -> StoreError:
        hint = "Delete the file; it is made again"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            hint = "Another program holds it: give each its own file by reranking.cache, or wait"
        elif getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}:
            hint = "Make room for it, and let this program write to it; or set reranking.cache"
        return StoreError(f"The score cache {self._path} cannot be used: {error}", hint=hint)


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
