"""A folder with a shard of Qdrant Edge -> the shard, open, locked, and made with the settings expected.

Knows nothing of chunks and tenants.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import DamagedError, IndexMissingError, StoreError, StoreLockedError, UsageError

from .points import DENSE, SPARSE, STANDING_INDEXES, check_fingerprint

if TYPE_CHECKING:
    import qdrant_edge


class Shard:
    """Arguments and errors are those of `EdgeStore`."""

    def __init__(
        self, path: Path, *, dimension: int, fingerprint: Mapping[str, str] | None, create: bool
    ) -> None:
        import qdrant_edge

        self._edge = qdrant_edge
        self._path = path
        self._shard: qdrant_edge.EdgeShard | None = None
        folder, record = path / "shard", path / "fingerprint.json"
        if not (create or record.is_file()):
            raise IndexMissingError(
                f"There is no index at {path}", hint="Make one with `crossrag ingest PATH`"
            )
        with self.translated("open"):
            if record.is_file():
                # The lock first: whoever goes on after a FingerprintError must not meet another process.
                self._shard = qdrant_edge.EdgeShard.load(str(folder))
            else:
                self._shard = self._created(folder, dimension)
            self.indexed = {
                name: str(info.data_type) for name, info in self.opened.info().payload_schema.items()
            }
        try:
            self._claim(record, fingerprint)
        except BaseException:
            self.close()
            raise

    @property
    def opened(self) -> qdrant_edge.EdgeShard:
        """The engine.

        Raises:
            StoreError: It was closed.
        """
        if self._shard is None:
            raise StoreError("The index was closed", hint="Open it again with Rag.open")
        return self._shard

    def index(self, wanted: Mapping[str, str]) -> None:
        """Make payload indexes, path -> kind; each is made of what is stored already, too."""
        for path, kind in wanted.items():
            self.opened.update(self._edge.UpdateOperation.create_field_index(path, self._schema(kind)))
            self.indexed[path] = kind

    def close(self) -> None:
        """Flush, let go of the lock; closing twice is fine."""
        if self._shard is not None:
            with self.translated("close"):
                self._shard.close()
            self._shard = None
            (self._path / "holder.json").unlink(missing_ok=True)

    def _claim(self, record: Path, fingerprint: Mapping[str, str] | None) -> None:
        """Compare or write the fingerprint, and say who holds the index."""
        if record.is_file() and fingerprint is not None:
            check_fingerprint(_read_record(record), fingerprint, self._path)
        with self.translated("write to"):
            if not record.is_file():
                # Last, and in one step: a shard without its fingerprint is one whose creation was cut short.
                _write_whole(record, json.dumps(dict(fingerprint or {}), indent=1, sort_keys=True))
            holder = {"pid": os.getpid(), "command": Path(sys.argv[0]).name}
            _write_whole(self._path / "holder.json", json.dumps(holder))

    def _created(self, folder: Path, dimension: int) -> qdrant_edge.EdgeShard:
        edge = self._edge
        folder.mkdir(parents=True, exist_ok=True)
        leftovers = {entry.name for entry in folder.iterdir()}
        if leftovers:
            self._remove_unfinished(folder, leftovers)
        config = edge.EdgeConfig(
            vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
            sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        made: qdrant_edge.EdgeShard = edge.EdgeShard.create(str(folder), config)
        for path, kind in STANDING_INDEXES.items():
            made.update(edge.UpdateOperation.create_field_index(path, self._schema(kind)))
        return made

    def _remove_unfinished(self, folder: Path, leftovers: set[str]) -> None:
        """A shard without a fingerprint was cut short while it was made."""
        if strange := sorted(leftovers - {"edge_config.json", "segments", "wal"}):
            raise StoreError(
                f"{folder} holds {strange[0]}, which is no part of an index",
                hint="Choose another folder for the index, or move it away",
            )
        self._check_unlocked(folder)
        shutil.rmtree(folder)
        folder.mkdir()

    def _check_unlocked(self, folder: Path) -> None:
        """A shard that another process has open is not thrown away; a damaged one may be."""
        try:
            self._edge.EdgeShard.load(str(folder)).close()
        except Exception as error:
            if "WouldBlock" in str(error):
                raise

    def _schema(self, kind: str) -> qdrant_edge.PayloadSchemaParams | qdrant_edge.PayloadSchemaType:
        edge = self._edge
        kinds: dict[str, qdrant_edge.PayloadSchemaParams | qdrant_edge.PayloadSchemaType] = {
            "tenant": edge.KeywordIndexParams(is_tenant=True),
            "keyword": edge.KeywordIndexParams(prefix=True),
            "number": edge.PayloadSchemaType.Float,
            "date": edge.PayloadSchemaType.Datetime,
        }
        return kinds[kind]

    @contextmanager
    def translated(self, verb: str) -> Iterator[None]:
        """Qdrant Edge raises bare Exception: the text is all there is to tell them apart."""
        try:
            yield
        except (StoreError, UsageError):
            raise
        except Exception as error:
            if "WouldBlock" in str(error):
                raise StoreLockedError(
                    f"The index at {self._path} is open in another process{_holder(self._path)}",
                    hint="Wait until it ends or stop it; several users at once need a Qdrant server",
                ) from None
            raise StoreError(
                f"Could not {verb} the index at {self._path}: {str(error)[:300]}",
                hint="Check free space and permissions there, and run the same command again. If it stays so,"
                " a file of the index is damaged: `crossrag ingest --rebuild PATH` builds it anew",
            ) from error


def _read_record(record: Path) -> Mapping[str, str]:
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = None
    if not isinstance(stored, dict):
        raise DamagedError(
            f"{record} is damaged", hint="Build the index anew with `crossrag ingest --rebuild PATH`"
        )
    return stored


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _holder(path: Path) -> str:
    try:
        holder = json.loads((path / "holder.json").read_text(encoding="utf-8"))
        return f" (process {holder['pid']}, {holder['command']})"
    except (OSError, ValueError, KeyError):
        return ""
