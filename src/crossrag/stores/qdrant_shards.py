"""Shards by tenant: in a collection that is so laid out, each tenant's points are in shards of its own.

Which key a tenant has, and that it is there. What keeps tenants apart is filters, here as anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from crossrag.errors import StoreError

from .qdrant_connection import Connection, ExistsError, RefusedError

_DEFAULT = "_default"
"""Key of the tenant without a name; no other tenant can be called so."""


class TenantShards:
    """The shard keys of one collection.

    Args:
        connection: Gives the open one.
        name: Of the collection, no alias.
        custom: Whether it is laid out by shard keys; if not, there are none.
    """

    def __init__(self, connection: Callable[[], Connection], name: str, *, custom: bool) -> None:
        self._connection = connection
        self._name = name
        self._custom = custom
        self._known: set[str] = set()

    def key(self, tenant: str) -> str | None:
        """Of a tenant, made if there is none, since a server refuses to read by one that it has not.

        None where the collection is not laid out by keys.
        """
        if not self._custom:
            return None
        key = tenant or _DEFAULT
        if key not in self._known:
            self._known |= self._listed()
        if key not in self._known:
            # Another process may have been faster.
            with suppress(ExistsError), _explained(self._name):
                self._connection().call(
                    "write to", lambda client: client.create_shard_key(self._name, shard_key=key)
                )
            self._known.add(key)
        return key

    def _listed(self) -> set[str]:
        with _explained(self._name):
            found = self._connection().call("read", lambda client: client.list_shard_keys(self._name))
        return {str(one.key) for one in found.shard_keys or ()}


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        if "distributed" not in error.message.lower():
            raise
        raise StoreError(
            f"The collection {name} has shards by tenant, and the server is a single node ({error.message})",
            hint="Start Qdrant with QDRANT__CLUSTER__ENABLED=true and --uri, also for one node; "
            "or leave qdrant.tenant_shards out and choose another qdrant.collection",
        ) from error
