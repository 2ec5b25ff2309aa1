"""A collection on a Qdrant server: made, found, checked, replaced. Its name is an alias and can be moved.

`crossrag` is the alias of `crossrag-1`, in whose metadata stand what it was made with, its identity, and its
family: the identity of the first index under the name. A name like ours makes no collection ours; these do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from qdrant_client import models

from crossrag.errors import ConfigError, IndexMissingError, StoreError

from .points import DENSE, SERVED_INDEXES, SPARSE, TENANT, check_fingerprint
from .qdrant_connection import Connection, DeniedError, ExistsError, MissingError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MARK, _IDENTITY, _FAMILY = "crossrag", "crossrag_identity", "crossrag_family"

Quantization = Literal["none", "scalar", "binary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a new collection is laid out; None leaves it to the server, but for the shards: one."""

    dimension: int
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    quantization: Quantization = "none"
    on_disk: bool = False
    tenant_shards: bool = False
    """Whether each tenant's points are in shards of its own, `shard_number` of them."""


class ForeignError(StoreError):
    """The collection is there and was not made by crossrag."""


class Found(NamedTuple):
    """A collection that is there."""

    name: str
    """Its own, no alias."""
    identity: str
    indexes: dict[str, str]
    """Payload path -> type, of those that it has."""
    custom: bool = False
    """Whether it is laid out by shard keys."""
    strict: bool = False
    """Whether it refuses filters on what has no index."""
    most: int | None = None
    """Payload indexes that it may have; None where it says nothing."""


class Collection:
    """One name on one server.

    Args:
        connection: To the server.
        name: Becomes an alias.
        shape: Of new collections.
        fingerprint: What a new one is made with, and an old one must have been; None takes any.
        identity: Of new collections; no other one has it.

    Raises:
        ConfigError: The name is none.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        shape: Shape,
        fingerprint: Mapping[str, str] | None,
        identity: str,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"qdrant.collection is {name[:80]!r}", hint="Use up to 100 letters, digits, _ and -"
            )
        self._connection = connection
        self.name = name
        self._shape = shape
        self._fingerprint = fingerprint
        self._identity = identity
        self._family = ""
        """Of what the name means; a new index under a new name begins one."""

    def open(self) -> Found:
        """The collection that the name means now.

        Raises:
            IndexMissingError: There is none.
            FingerprintError: It was made with other settings.
            StoreError: It was not made by crossrag.
        """
        try:
            return self._checked(self._meant())
        except MissingError:
            # It was replaced between the two questions.
            return self._checked(self._meant())

    def _meant(self) -> tuple[Found, Mapping[str, Any]]:
        physical = self.physical()
        if physical is None:
            raise IndexMissingError(
                f"There is no collection {self.name} at {self._connection.server.url}",
                hint="Make it with `crossrag ingest PATH`, or check qdrant.collection",
            )
        return self._look(physical)

    def look(self, physical: str) -> Found:
        """A collection by its own name."""
        return self._look(physical)[0]

    def _look(self, physical: str) -> tuple[Found, Mapping[str, Any]]:
        """A collection, and all that it says of itself."""
        found = self._connection.call("open", lambda client: client.get_collection(physical))
        said = found.config.metadata or {}
        indexes = {path: str(info.data_type) for path, info in (found.payload_schema or {}).items()}
        custom = found.config.params.sharding_method == models.ShardingMethod.CUSTOM
        rules = found.config.strict_mode_config
        rules = rules if rules is not None and rules.enabled else models.StrictModeConfigOutput()
        return Found(
            physical,
            str(said.get(_IDENTITY, "")),
            indexes,
            custom,
            strict=rules.unindexed_filtering_retrieve is False,
            most=rules.max_payload_index_count,
        ), said

    def _checked(self, looked: tuple[Found, Mapping[str, Any]]) -> Found:
        found, said = looked
        url, stored = self._connection.server.url, said.get(_MARK)
        if not isinstance(stored, dict):
            raise self._foreign()
        if self._fingerprint is not None:
            check_fingerprint(stored, self._fingerprint, f"{url}, collection {self.name},")
        return found

    def create(self) -> None:
        """Make the first one, unless there is one; cut short anywhere, it can be done again."""
        number = 1
        # A number whose collection somebody else made is theirs.
        while not self.create_physical(f"{self.name}-{number}"):
            number += 1
        if self.physical() is None:
            # Last: a collection without its alias is one whose making was cut short.
            self._move(None, f"{self.name}-{number}")

    def open_beside(self, *, create: bool) -> Found:
        """The one of this identity, which nobody sees yet; what was begun is gone on with.

        Raises:
            IndexMissingError: There is none, and none is to be made.
            FingerprintError: It was made with other settings.
            StoreError: The name means something that crossrag did not make.
        """
        meant, names = self.physical(), self._numbered()
        if meant is not None:
            self._family = self._family_of(meant)
        for name in names:
            looked = self._look(name)
            if name != meant and looked[0].identity == self._identity and self.create_physical(name):
                return self._checked(looked)
        if not create:
            raise IndexMissingError(
                f"The collection that was built beside {self.name} is gone", hint="Run the command again"
            )
        number = max(map(self._number, names), default=0)
        while True:
            number += 1
            if not self.create_physical(f"{self.name}-{number}"):
                continue
            looked = self._look(f"{self.name}-{number}")
            if looked[0].identity == self._identity:  # or another process was faster
                return self._checked(looked)

    def create_physical(self, name: str) -> bool:
        """With all indexes; what crossrag made there already stays. False where a stranger has the name."""
        try:
            self._connection.call_long(
                "write to", lambda client: client.create_collection(name, **self._layout())
            )
        except ExistsError:
            # Made by a try whose answer was lost, or by another process just now; or by a stranger long ago.
            if not self._is_made_by_crossrag(name):
                return False
        for path, kind in SERVED_INDEXES.items():
            self.create_index(path, kind, name=name)
        return True

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
            # A cluster's own default is one for each node; how rare a term is is counted in each by itself.
            "shard_number": shape.shard_number or 1,
            "sharding_method": models.ShardingMethod.CUSTOM if shape.tenant_shards else None,
            "replication_factor": shape.replication_factor,
            "write_consistency_factor": shape.write_consistency_factor,
            "metadata": {
                _MARK: dict(self._fingerprint or {}),
                _IDENTITY: self._identity,
                _FAMILY: self._family or self._identity,
            },
        }

    def create_index(self, path: str, kind: str, *, name: str = "") -> None:
        """One payload index; made of what is stored already, too. Servers want the collection's own name."""
        target = name if name and name != self.name else self.physical() or self.name
        self._connection.call_long(
            "write to",
            lambda client: client.create_payload_index(
                target, field_name=path, field_schema=_schema(kind), wait=True
            ),
        )

    def point_to(self, physical: str) -> None:
        """From now on, in one step, the name means this collection; what it takes the place of is deleted.

        That is what the name meant before, and what was built for this index and left. Never what crossrag
        did not make, what is another index, or what another alias names.

        Raises:
            StoreError: The name means something that crossrag did not make.
        """
        before = self.physical()
        family = self._family_of(physical)
        replaced = before if before != physical else None
        if replaced is not None:
            self._family_of(replaced)
        if replaced is not None or before is None:
            self._move(before, physical)
        for name in self._numbered():
            if name != physical and self._is_ours(name, family, replaced=name == replaced):
                self._delete(name)

    def _is_made_by_crossrag(self, name: str) -> bool:
        try:
            self._family_of(name)
        except (ForeignError, MissingError):
            return False
        return name in self._names()  # and no alias

    def _is_ours(self, name: str, family: str, *, replaced: bool) -> bool:
        try:
            ours = replaced or self._family_of(name) == family
        except (ForeignError, MissingError):
            return False
        return ours and not any(alias.collection_name == name for alias in self._aliases())

    def _family_of(self, physical: str) -> str:
        found, said = self._look(physical)
        if not isinstance(said.get(_MARK), dict):
            raise self._foreign()
        # Of an earlier crossrag there is the identity alone.
        return str(said.get(_FAMILY) or found.identity or physical)

    def _foreign(self) -> ForeignError:
        return ForeignError(
            f"The collection {self.name} at {self._connection.server.url} was not made by crossrag",
            hint="Choose another qdrant.collection",
        )

    def _move(self, before: str | None, physical: str) -> None:
        operations: list[models.AliasOperations] = []
        if before is not None and before != self.name:
            operations.append(
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.name))
            )
        if before == self.name:
            # Made under the name itself, which an alias cannot have as well; that it is ours was asked.
            self._delete(self.name)
        operations.append(
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=physical, alias_name=self.name)
            )
        )
        self._connection.call_long(
            "write to",
            lambda client: client.update_collection_aliases(change_aliases_operations=operations),
        )

    def drop(self) -> None:
        """Delete what the name stands for, and the name."""
        physical = self.physical()
        if physical is None:
            return
        if physical != self.name:
            gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.name))
            self._connection.call_long(
                "write to", lambda client: client.update_collection_aliases(change_aliases_operations=[gone])
            )
        self._delete(physical)

    def physical(self) -> str | None:
        """The collection that the name stands for; None where there is none."""
        try:
            aliases = self._aliases()
        except DeniedError:
            # A key for one collection may not list aliases; the server itself follows them.
            return self.name
        for alias in aliases:
            if alias.alias_name == self.name:
                return alias.collection_name
        return self.name if self.name in self._names() else None

    def _aliases(self) -> list[models.AliasDescription]:
        return self._connection.call("read", lambda client: client.get_aliases()).aliases

    def _names(self) -> list[str]:
        found = self._connection.call("read", lambda client: client.get_collections()).collections
        return sorted(description.name for description in found)

    def _numbered(self) -> list[str]:
        return [name for name in self._names() if self._number(name)]

    def _delete(self, name: str) -> None:
        self._connection.call_long("write to", lambda client: client.delete_collection(name))

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
