"""A Qdrant server on the loopback that records what it is asked, and fails on demand.

It reads requests with the client's own models and does the work with a client in memory. Where servers differ
about aliases, it is strict: only reads and writes of points follow them.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request: `lost` and `slow` do the work and then give no answer, or a late one."""

    kind: Literal["status", "cut", "lost", "slow"]
    status: int = 500
    retry_after: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    size: int
    waits: bool
    key: str | None
    query: str = ""


@dataclass(slots=True)
class FakeQdrant:
    """`faults` meet the requests whose `METHOD /path` contains their key, one each, in order."""

    url: str
    client: QdrantClient
    version: str = "1.20.0"
    key: str | None = None
    asked: list[Asked] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    layouts: list[dict[str, Any]] = field(default_factory=list)
    """Of the collections that were made, as they were asked for."""
    shards: dict[str, list[str]] = field(default_factory=dict)
    """Shard keys of the collections that are laid out by them."""
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Collection -> path -> type, of the payload indexes that were made."""
    strict: bool = False
    """Whether filters on what has no index are refused, as Qdrant Cloud does."""
    single: bool = False
    """Whether it is a node by itself, which has no shard keys."""
    statuses: list[str] = field(default_factory=list)
    """What the next writes of points answer in place of `completed`."""
    most_indexes: int = 100
    """Of one collection in strict mode."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, request: str) -> Fault | None:
        for part, waiting in self.faults.items():
            if part in request and waiting:
                return waiting.pop(0)
        return None

    def sharded(self, method: str, name: str, rest: str, body: bytes) -> tuple[int, Any] | None:
        """What a client in memory does not know of: keys are made, listed, and wanted of every request."""
        asked = json.loads(body) if body else {}
        if (method, rest) == ("PUT", ""):
            self.layouts.append(asked)
            if asked.get("sharding_method") == "custom":
                self.shards.setdefault(name, [])
        keys = self.shards.get(name)
        if keys is None:
            return None
        result: Any = None
        if (method, rest) == ("GET", ""):
            result = _plain(self.client.get_collection(_own(self.client, name)))
            result["config"]["params"]["sharding_method"] = "custom"
        elif (method, rest) == ("GET", "/shards"):
            result = {"shard_keys": [{"key": key} for key in keys]}
        elif (method, rest) == ("PUT", "/shards"):
            if asked["shard_key"] in keys:
                return 409, {"status": {"error": "Shard key already exists"}, "time": 0.0}
            keys.append(asked["shard_key"])
            result = True
        elif rest.startswith("/points"):
            wanted = {one.get("shard_key") for one in asked.get("searches", [asked])}
            # What asks for no key reads all shards.
            reads = {"/points/count", "/points/scroll", "/points"} if method == "POST" else set()
            if not wanted <= set(keys) and not (wanted == {None} and rest in reads):
                return 400, {"status": {"error": f"no shard keys {wanted}"}, "time": 0.0}
        return None if result is None else (200, {"result": result, "status": "ok", "time": 0.0})

    def indexed(self, method: str, name: str, rest: str, body: bytes) -> tuple[int, Any] | None:
        """Payload indexes, of which a client in memory has none; and strict mode, which insists on them."""
        name = next(
            (one.collection_name for one in self.client.get_aliases().aliases if one.alias_name == name), name
        )
        made = self.indexes.setdefault(name, {})
        asked = json.loads(body) if body else {}
        if (method, rest) == ("DELETE", ""):
            self.indexes.pop(name)
        elif (method, rest) == ("PUT", "/index") and self.client.collection_exists(name):
            if self.strict and asked["field_name"] not in made and len(made) >= self.most_indexes:
                return _refused(f"Collection already has the maximum number of payload indices ({len(made)})")
            schema = asked["field_schema"]
            made[asked["field_name"]] = schema if isinstance(schema, str) else schema["type"]
        elif self.strict and rest.startswith("/points"):
            for path, kind in _named(asked):
                if made.get(path) != kind:
                    return _refused(
                        f'Index required but not found for "{path}" of one of the following types: [{kind}].'
                        " Help: Create an index for this key or use a different filter."
                    )
        return None

    def described(self, name: str, answer: dict[str, Any]) -> None:
        """What a collection says of its indexes and of strict mode."""
        made = self.indexes.get(name, {})
        answer["payload_schema"] = {path: {"data_type": kind, "points": 0} for path, kind in made.items()}
        if self.strict:
            answer["config"]["strict_mode_config"] = {
                "enabled": True,
                "unindexed_filtering_retrieve": False,
                "unindexed_filtering_update": False,
                "max_payload_index_count": self.most_indexes,
            }

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        status, answer = self._answer(method, path, body)
        write = re.fullmatch(f"{_C}/points(/delete)?", path) and (method == "PUT" or path.endswith("/delete"))
        if status == 200 and write and self.statuses:
            answer["result"]["status"] = self.statuses.pop(0)
        if status == 200 and method == "GET" and (found := re.fullmatch(_C, path)):
            self.described(found[1], answer["result"])
        return status, answer

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/":
            return 200, {"title": "qdrant - vector search engine", "version": self.version}
        if found := re.fullmatch(f"{_C}(/.*)?", path):
            if self.single and found[2] == "/shards":
                return _refused("Distributed mode disabled")
            answered = self.indexed(method, found[1], found[2] or "", body)
            answered = answered or self.sharded(method, found[1], found[2] or "", body)
            if answered is not None:
                return answered
        for pattern, verb, work in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                try:
                    return 200, {
                        "result": _plain(work(self.client, body, *found.groups())),
                        "status": "ok",
                        "time": 0.0,
                    }
                except ValueError as error:
                    text = str(error)
                    status = 404 if "not found" in text else 409 if "already exists" in text else 400
                    return status, {"status": {"error": text}, "time": 0.0}
        return 404, {"status": {"error": f"no route {method} {path}"}, "time": 0.0}


@contextmanager
def fake_qdrant() -> Iterator[FakeQdrant]:
    """A server until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    client = QdrantClient(":memory:", force_disable_check_same_thread=True)
    fake = FakeQdrant(f"http://127.0.0.1:{server.server_address[1]}", client)
    server.fake = fake  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        client.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        fake: FakeQdrant = self.server.fake  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        key = self.headers.get("api-key")
        with fake.lock:
            fake.asked.append(Asked(self.command, path, len(body), "wait=true" in query, key, query))
            fault = fake.fault(f"{self.command} {path}")
        if fake.key is not None and key != fake.key and path != "/":
            self._reply(
                401, {"status": {"error": "Must provide an API key or an Authorization bearer token"}}
            )
        elif fault is not None and fault.kind == "status":
            self._reply(fault.status, {"status": {"error": "as ordered"}}, fault.retry_after)
        elif fault is not None and fault.kind == "cut":
            self._cut()
        else:
            with fake.lock:
                status, answer = fake.answer(self.command, path, body)
            if fault is not None and fault.kind == "lost":
                self._cut()
                return
            if fault is not None:
                time.sleep(fault.seconds)
            self._reply(status, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - names of http.server

    def _reply(self, status: int, answer: Any, retry_after: str | None = None) -> None:
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            # The client did not wait.
            self.close_connection = True

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of http.server
        """Recorded in `asked` instead."""


def _plain(result: Any) -> Any:
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    if isinstance(result, (list, tuple)):
        return [_plain(part) for part in result]
    return result


def _refused(why: str) -> tuple[int, Any]:
    return 400, {"status": {"error": f"Bad request: {why}"}, "time": 0.0}


def _named(asked: Any) -> Iterator[tuple[str, str]]:
    """Path and type of index, of every condition on a field, wherever it stands."""
    if isinstance(asked, list):
        for part in asked:
            yield from _named(part)
    elif isinstance(asked, dict) and isinstance(asked.get("key"), str):
        if bounds := asked.get("range"):
            dates = any(isinstance(bound, str) for bound in bounds.values())
            yield asked["key"], "datetime" if dates else "float"
        elif "match" in asked:
            yield asked["key"], "keyword"
    elif isinstance(asked, dict):
        for name, part in asked.items():
            if name not in {"payload", "points", "vector"}:
                yield from _named(part)


def _own(client: QdrantClient, name: str) -> str:
    """A collection's own name, no alias."""
    if name not in {found.name for found in client.get_collections().collections}:
        raise ValueError(f"Collection {name} not found")
    return name


def _create(client: QdrantClient, body: bytes, name: str) -> bool:
    asked = models.CreateCollection.model_validate_json(body)
    vectors: Any = asked.vectors
    return client.create_collection(
        name, vectors_config=vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
    )


def _index(client: QdrantClient, body: bytes, name: str) -> Any:
    models.CreateFieldIndex.model_validate_json(body)
    _own(client, name)
    return models.UpdateResult(status=models.UpdateStatus.COMPLETED)


def _upsert(client: QdrantClient, body: bytes, name: str) -> Any:
    return client.upsert(name, models.PointsList.model_validate_json(body).points)


def _retrieve(client: QdrantClient, body: bytes, name: str) -> Any:
    return client.retrieve(name, models.PointRequest.model_validate_json(body).ids, with_payload=True)


def _query(client: QdrantClient, body: bytes, name: str) -> Any:
    return client.query_batch_points(name, models.QueryRequestBatch.model_validate_json(body).searches)


def _query_one(client: QdrantClient, body: bytes, name: str) -> Any:
    batch = models.QueryRequestBatch(searches=[models.QueryRequest.model_validate_json(body)])
    return client.query_batch_points(name, batch.searches)[0]


def _scroll(client: QdrantClient, body: bytes, name: str) -> Any:
    asked = models.ScrollRequest.model_validate_json(body)
    points, following = client.scroll(
        name,
        scroll_filter=asked.filter,
        limit=asked.limit or 10,
        offset=asked.offset,
        with_payload=bool(asked.with_payload),
        with_vectors=bool(asked.with_vector),
    )
    return models.ScrollResult(points=points, next_page_offset=following)


def _count(client: QdrantClient, body: bytes, name: str) -> Any:
    asked = models.CountRequest.model_validate_json(body)
    return client.count(name, count_filter=asked.filter, exact=bool(asked.exact))


def _delete(client: QdrantClient, body: bytes, name: str) -> Any:
    selector: Any = TypeAdapter(models.PointsSelector).validate_json(body)
    return client.delete(name, selector)


def _aliases(client: QdrantClient, body: bytes) -> Any:
    return client.update_collection_aliases(models.ChangeAliasesOperation.model_validate_json(body).actions)


_C = "/collections/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("/collections", "GET", lambda client, _: client.get_collections()),
    ("/aliases", "GET", lambda client, _: client.get_aliases()),
    ("/collections/aliases", "POST", _aliases),
    (_C, "GET", lambda client, _, name: client.get_collection(_own(client, name))),
    (_C, "PUT", _create),
    (_C, "DELETE", lambda client, _, name: client.delete_collection(_own(client, name))),
    (f"{_C}/index", "PUT", _index),
    (f"{_C}/points", "PUT", _upsert),
    (f"{_C}/points", "POST", _retrieve),
    (f"{_C}/exists", "GET", lambda client, _, name: {"exists": client.collection_exists(name)}),
    (f"{_C}/points/query/batch", "POST", _query),
    (f"{_C}/points/query", "POST", _query_one),
    (f"{_C}/points/scroll", "POST", _scroll),
    (f"{_C}/points/count", "POST", _count),
    (f"{_C}/points/delete", "POST", _delete),
]
