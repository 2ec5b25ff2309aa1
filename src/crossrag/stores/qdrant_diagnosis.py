"""What is wrong between here and a Qdrant server, step by step; asked once, without trying again."""

from __future__ import annotations

import ipaddress
import re
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from crossrag.errors import IndexMissingError, StoreError

from .patience import Patience
from .qdrant_collection import Collection, Shape
from .qdrant_connection import OLDEST_SERVER, Connection, Server

_PATIENCE = Patience(retries=0, deadline=10.0)


def diagnose(*, url: str, collection: str, timeout: float = 30.0, **server: Any) -> str:
    """One sentence on a server that can be used.

    Args:
        url: As for `QdrantStore`, and so below.
        collection: Its name.
        timeout: Seconds; at most 10 are waited.
        server: `api_key`, `grpc` and `grpc_port` count, the rest is for new collections.

    Raises:
        StoreError: It cannot be reached, is none, is too old, or does not take the key.
        IndexMissingError: All is well but for the collection, which is not there.
        ConfigError: The address or the name is none.
    """
    own = {name: server[name] for name in ("api_key", "grpc", "grpc_port") if name in server}
    there = Server(url=url, timeout=min(timeout, 10.0), patience=_PATIENCE, **own)
    connection = Connection(there)
    try:
        named = Collection(connection, collection, shape=Shape(dimension=1), fingerprint=None, identity="")
        found = connection.call("reach", lambda client: client.info())
        if "qdrant" not in found.title.lower():
            raise StoreError(f"{url} is {found.title[:100]!r}, no Qdrant", hint="Check qdrant.url")
        notes = [*_check_version(found.version, url), *_exposed(there)]
        physical = named.physical()
        if physical is None:
            raise IndexMissingError(
                f"Qdrant {found.version} answers at {url} and has no collection {collection} yet",
                hint="Make it with `crossrag ingest PATH`, or check qdrant.collection",
            )
        held = connection.call("read", lambda client: client.get_collection(physical))
        points, state = held.points_count or 0, held.status.value
        said = f"Qdrant {found.version} at {url}, {collection} is {physical}, {points} points, {state}"
        return "; ".join([said, *notes])
    finally:
        connection.close()


def _check_version(said: str, url: str) -> list[str]:
    number = re.match(r"(\d+)\.(\d+)", said)
    if number is None:
        return [f"its version {said[:40]!r} cannot be read"]
    server = int(number[1]), int(number[2])
    if server < OLDEST_SERVER:
        raise StoreError(
            f"The server at {url} is Qdrant {said}, too old: filters by prefix and tenants need "
            f"{'.'.join(map(str, OLDEST_SERVER))}",
            hint="Upgrade it one minor version at a time; docker/compose.yaml names one that fits",
        )
    ours = version("qdrant-client")
    major, minor = (int(part) for part in ours.split(".")[:2])
    if server[0] != major or abs(server[1] - minor) > 1:
        return [f"qdrant-client here is {ours}: keep them within one minor version"]
    return []


def _exposed(server: Server) -> list[str]:
    address = urlsplit(server.url)
    if address.scheme == "https":
        return []
    try:
        local = ipaddress.ip_address(address.hostname or "").is_loopback
    except ValueError:
        local = address.hostname == "localhost"
    if local:
        return []
    return ["the key and the documents go over plain http" if server.key else "no key, and plain http"]
