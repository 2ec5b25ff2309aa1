"""The payload indexes of a collection: which there are, which are made, and what a strict server is asked.

In strict mode, which Qdrant Cloud sets by default, a server refuses a filter on a key without an index, also
where no point has the key. What has no index while there is room for more has no points: that is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from . import points
from .points import SERVED_INDEXES
from .qdrant_connection import RefusedError
from .qdrant_points import ClientDialect

if TYPE_CHECKING:
    from crossrag.types import Chunk

    from .qdrant_collection import Collection, Found

_MOST = 80 + len(SERVED_INDEXES)
"""Qdrant Cloud takes 100."""
_FULL = "there are as many as there may be"
_NOTHING = models.HasIdCondition(has_id=[])
_NEVER_TEXT = {f"metadata.{key}" for key in ("chunk_id", "start", "end", "chunk_length")}
_NEVER_INDEXED = {"metadata.minhash"}


class Indexes:
    """The indexes of one collection.

    Args:
        collection: Makes them.
        found: What was there when it was opened.
    """

    def __init__(self, collection: Collection, found: Found) -> None:
        self._collection = collection
        self._name = found.name
        self._strict = found.strict
        self._known = dict(found.indexes)
        self._most = min(_MOST, found.most or _MOST)
        self._without: dict[str, str] = {}
        """Path -> why it has none."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What could not be had, in words."""
        return tuple(
            f"There is no index over {path} ({why}): filters on it are slow, and refused in strict mode"
            for path, why in self._without.items()
        )

    def make(self, chunks: Sequence[Chunk]) -> None:
        """Those that a collection of an earlier crossrag has not, and those over keys of these chunks."""
        wanted = {path: kind for path, kind in SERVED_INDEXES.items() if path not in self._known}
        room = max(0, self._most - len(self._known) - len(wanted))
        # One more than there is room for, to know whether any is left out.
        wanted |= points.new_indexes(chunks, self._known | wanted, room=room + 1)
        for number, (path, kind) in enumerate(wanted.items()):
            if path in self._without:
                continue
            if number >= room + len(wanted.keys() & SERVED_INDEXES.keys()):
                # One is named for all that follow.
                if not any(why == _FULL for why in self._without.values()):
                    self._without[path] = _FULL
                continue
            try:
                self._collection.create_index(path, kind, name=self._name)
            except RefusedError as error:
                # It is found all the same, or at least written: no reason to end an ingestion.
                self._without[path] = error.message[-200:]
            else:
                self._known[path] = kind

    def dialect(self) -> ClientDialect:
        """For one filter."""
        return SparingDialect(self) if self._strict else ClientDialect()

    def knows(self, path: str) -> bool:
        """Whether it can be asked for, or must be, since there may be points that have it."""
        asked = path in self._known or path in SERVED_INDEXES or path in _NEVER_INDEXED
        return asked or len(self._known) >= self._most

    def look(self) -> None:
        """Learn of what others have made meanwhile."""
        self._known = dict(self._collection.look(self._name).indexes)


class SparingDialect(ClientDialect):
    """Asks for nothing that no point has; it holds nowhere, and so its negation everywhere."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes
        self._looked = False

    def match(self, path: str, value: str) -> Any:
        """The value itself, or an element."""
        return super().match(path, value) if self._is_asked(path, text=True) else _NOTHING

    def match_any(self, path: str, values: Sequence[str]) -> Any:
        """One of these."""
        return super().match_any(path, values) if self._is_asked(path, text=True) else _NOTHING

    def prefix(self, path: str, text: str) -> Any:
        """Text that begins so."""
        return super().prefix(path, text) if self._is_asked(path, text=True) else _NOTHING

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        """A number within bounds."""
        return super().numbers(path, bounds) if self._is_asked(path) else _NOTHING

    def dates(self, path: str, bounds: Mapping[str, datetime]) -> Any:
        """A date within bounds."""
        return super().dates(path, bounds) if self._is_asked(path) else _NOTHING

    def _is_asked(self, path: str, *, text: bool = False) -> bool:
        if text and path in _NEVER_TEXT:
            return False
        if not self._indexes.knows(path) and not self._looked:
            # An index is made before the first point that has the key: once is enough for one filter.
            self._looked = True
            self._indexes.look()
        return self._indexes.knows(path)
