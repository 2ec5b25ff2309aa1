"""A collection on a Qdrant server: made, found, checked, replaced. Its name is an alias and can be moved.

`crossrag` is the alias of `crossrag-1`; what it was made with stands in the collection's own metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models

from crossrag.errors import ConfigError, IndexMissingError, StoreError

from .points import DENSE, SPARSE, STANDING_INDEXES, TENANT, check_fingerprint
from .qdrant_connection import Connection, DeniedError, ExistsError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MARK = "crossrag"

Quantization = Literal["none", "scalar", "binary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a new collection is laid out; None leaves it to the server."""

    dimension: int
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    quantization: Quantization = "none"
    on_disk: bool = False


class Collection:
    """One name on one server.

    Raises:
        ConfigError: The name is none.
    """

    def __init__(
        self, connection: Connection, name: str, *, shape: Shape, fingerprint: Mapping[str, str]
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"qdrant.collection is {name[:80]!r}", hint="Use up to 100 letters, digits, _ and -"
            )
        self._connection = connection
        self.name = name
        self._shape = shape
        self._fingerprint = dict(fingerprint)

    def open(self) -> dict[str, str]:
        """Check what the collection was made with; payload path -> type, of the indexes that it has.

        Raises:
            IndexMissingError: There is none.
            FingerprintError: It was made with other settings.
            StoreError: It was not made by crossrag.
        """
        url = self._connection.server.url
        physical = self.physical()
        if physical is None:
            raise IndexMissingError(
                f"There is no collection {self.name} at {url}",
                hint="Make it with `crossrag ingest PATH`, or check qdrant.collection",
            )
        found = self._connection.call("open", lambda client: client.get_collection(physical))
        stored = (found.config.metadata or {}).get(_MARK)
        if not isinstance(stored, dict):
            raise StoreError(
                f"The collection {self.name} at {url} was not made by crossrag",
                hint="Choose another qdrant.collection",
            )
        check_fingerprint(stored, self._fingerprint, f"{url}, collection {self.name},")
        return {path: str(info.data_type) for path, info in (found.payload_schema or {}).items()}

    def create(self) -> None:
        """Make the first one, unless there is one; cut short anywhere, it can be done again."""
        first = f"{self.name}-1"
        self.create_physical(first)
        if self.physical() is None:
            # Last: a collection without its alias is one whose making was cut short.
            self.point_to(first)

    def create_beside(self) -> str:
        """Make another one that nobody sees yet; its name."""
        numbers = [self._number(name) for name in self._names()]
        beside = f"{self.name}-{max(numbers, default=0) + 1}"
        self.create_physical(beside)
        return beside

    def create_physical(self, name: str) -> None:
        """With all indexes; what is there already stays."""
        # Made by a try whose answer was lost, or by another process just now.
        with suppress(ExistsError):
            self._connection.call("write to", lambda client: client.create_collection(name, **self._layout()))
        for path, kind in STANDING_INDEXES.items():
            self.create_index(path, kind, name=name)

    def _layout(self) -> dict[str, Any]:
        shape = self._shape
        dense = models.VectorParams(
            size=shape.dimension,
            distance=models.Distance.COSINE,
            on_disk=shape.on_disk,
            quantization_config=_quantization(shape.quantization),
        )
        sparse = models.SparseVectorParams(
            modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=shape.on_disk)
        )
        return {
            "vectors_config": {DENSE: dense},
            "sparse_vectors_config": {SPARSE: sparse},
            "shard_number": shape.shard_number,
            "replication_factor": shape.replication_factor,
            "write_consistency_factor": shape.write_consistency_factor,
            "metadata": {_MARK: self._fingerprint},
        }

    def create_index(self, path: str, kind: str, *, name: str = "") -> None:
        """One payload index; made of what is stored already, too. Servers want the collection's own name."""
        target = name if name and name != self.name else self.physical() or self.name
        self._connection.call(
            "write to",
            lambda client: client.create_payload_index(
                target, field_name=path, field_schema=_schema(kind), wait=True
            ),
        )

    def point_to(self, physical: str) -> None:
        """From now on, in one step, the name means this collection; all others under the name are deleted."""
        before = self.physical()
        operations: list[models.AliasOperations] = []
        if before is not None and before != self.name:
            operations.append(
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.name))
            )
        if before == self.name:
            # Made under the name itself, which an alias cannot have as well.
            self._delete(self.name)
        operations.append(
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=physical, alias_name=self.name)
            )
        )
        self._connection.call(
            "write to",
            lambda client: client.update_collection_aliases(change_aliases_operations=operations),
        )
        for name in self._names():
            if self._number(name) and name != physical:
                self._delete(name)

    def drop(self) -> None:
        """Delete what the name stands for, and the name."""
        physical = self.physical()
        if physical is None:
            return
        if physical != self.name:
            gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.name))
            self._connection.call(
                "write to", lambda client: client.update_collection_aliases(change_aliases_operations=[gone])
            )
        self._delete(physical)

    def physical(self) -> str | None:
        """The collection that the name stands for; None where there is none."""
        try:
            aliases = self._connection.call("read", lambda client: client.get_aliases()).aliases
        except DeniedError:
            # A key for one collection may not list aliases; the server itself follows them.
            return self.name
        for alias in aliases:
            if alias.alias_name == self.name:
                return alias.collection_name
        return self.name if self.name in self._names() else None

    def _names(self) -> list[str]:
        found = self._connection.call("read", lambda client: client.get_collections()).collections
        return sorted(description.name for description in found)

    def _delete(self, name: str) -> None:
        self._connection.call("write to", lambda client: client.delete_collection(name))

    def _number(self, name: str) -> int:
        """`crossrag-12` is 12; anything else 0."""
        stem, _, number = name.rpartition("-")
        return int(number) if stem == self.name and number.isdecimal() and number.isascii() else 0


def _schema(kind: str) -> models.PayloadSchemaType | models.KeywordIndexParams:
    kinds: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
        TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
        "keyword": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
        "number": models.PayloadSchemaType.FLOAT,
        "date": models.PayloadSchemaType.DATETIME,
    }
    return kinds[kind]


def _quantization(kind: Quantization) -> models.QuantizationConfig | None:
    if kind == "scalar":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=0.99, always_ram=True
            )
        )
    if kind == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None
