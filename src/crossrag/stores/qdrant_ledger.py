"""What readers without the owner's folder leave out: one point without vectors for each tenant.

It is one point, so it is exchanged in one step; it lies beside the passages, so whoever reads them reads it.
Its tenant is none that anybody can have, so no search, scan or count of a tenant meets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

from qdrant_client import models

from crossrag.types import View

from .points import TENANT

if TYPE_CHECKING:
    from .qdrant_connection import Connection
    from .qdrant_shards import TenantShards

NOBODY = "*"
"""Under `tenant` of every ledger."""
_LEDGER = "ledger"
_IDS = UUID("6f9d1c2e-52f4-4c0b-9a4e-0d8f3b7a1e55")


class Ledger:
    """The ledgers of one collection.

    Args:
        connection: Gives the open one.
        name: Of the collection, no alias.
        shards: Where each tenant's points are.
        consistency: Copies that a read asks.
    """

    def __init__(
        self, connection: Callable[[], Connection], name: str, shards: TenantShards, consistency: Any
    ) -> None:
        self._connection = connection
        self._name = name
        self._shards = shards
        self._consistency = consistency

    def read(self, tenant: str) -> View:
        """What its writer said last; an empty view where nobody has said anything."""
        shard = self._shards.key(tenant)
        found = self._connection().call(
            "read",
            lambda client: client.retrieve(
                self._name,
                [_id(tenant)],
                with_payload=True,
                consistency=self._consistency,
                shard_key_selector=shard,
            ),
        )
        said = (found[0].payload or {}).get(_LEDGER, {}) if found else {}
        return View(
            str(said.get("stamp", "")), frozenset(said.get("hidden", ())), nothing=bool(said.get("nothing"))
        )

    def write(self, tenant: str, view: View) -> None:
        """In place of what was there, under a stamp that no other one has or had."""
        shard = self._shards.key(tenant)
        said = {"stamp": uuid4().hex, "hidden": sorted(view.hidden), "nothing": view.nothing}
        if view.nothing:
            # An import may begin a million generations; that nothing is to be seen says all of them.
            said["hidden"] = []
        point = models.PointStruct(id=_id(tenant), vector={}, payload={TENANT: NOBODY, _LEDGER: said})
        self._connection().call_long(
            "write to",
            lambda client: client.upsert(self._name, [point], wait=True, shard_key_selector=shard),
        )


def _id(tenant: str) -> str:
    return str(uuid5(_IDS, tenant))
