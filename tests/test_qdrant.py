"""The server adapter when things go wrong, and that it ranks as the embedded engine does."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models

from crossrag.errors import ConfigError, FingerprintError, IndexMissingError, StoreError
from crossrag.stores.edge import EdgeStore
from crossrag.stores.patience import Patience, Trouble
from crossrag.stores.qdrant import QdrantStore
from crossrag.stores.qdrant_points import batches
from crossrag.testing import HashedEmbedder, HashedTerms, MemoryStore
from crossrag.types import Chunk
from tests.fake_qdrant import FakeQdrant, Fault, fake_qdrant

if TYPE_CHECKING:
    from crossrag.protocols import Store

SEED = 20260103
MADE: dict[str, Any] = {"dimension": 256, "fingerprint": {"embedder": "hashed"}}
EMBEDDER, TERMS = HashedEmbedder(), HashedTerms()
WORDS = [f"word{number}" for number in range(60)]

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


def opened(server: FakeQdrant, **arguments: Any) -> QdrantStore:
    return QdrantStore(server.url, **({"create": True, "timeout": 1.0} | MADE | arguments))


def chunk(document: str, position: int, text: str, generation: str = "1", **metadata: Any) -> Chunk:
    number = int.from_bytes(f"{document}{generation}".encode()[-4:]) * 1000 + position
    return Chunk(
        id=f"00000000-0000-4000-8000-{number:012x}",
        document_id=document,
        source=document,
        text=text,
        start=0,
        end=len(text),
        position=position,
        generation=generation,
        metadata=metadata,
    )


def write(store: Store, chunks: list[Chunk]) -> None:
    texts = [one.text for one in chunks]
    store.upsert(chunks, EMBEDDER.embed_documents(texts), TERMS.encode_documents(texts))


# --- the same ranking everywhere


def test_all_stores_give_the_same_ids_in_the_same_order(tmp_path: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311 - tests, not secrets
    print(f"seed {SEED}")
    edge = EdgeStore(tmp_path, create=True, **MADE)
    local = QdrantStore("http://127.0.0.1:6333", client=QdrantClient(":memory:"), create=True, **MADE)
    with closing(edge), closing(local), fake_qdrant() as served:
        served.strict = True
        over_http = QdrantStore(served.url, create=True, **MADE)
        with closing(over_http):
            _agree_for(300, chance, [MemoryStore(), edge, local, over_http])


@pytest.mark.skipif(
    "QDRANT_URL" not in os.environ,
    reason="NO REAL SERVER TESTED: set QDRANT_URL to one that may be written to",
)
def test_a_real_server_gives_the_same_ids_in_the_same_order() -> None:
    chance = random.Random(SEED)  # noqa: S311 - tests, not secrets
    with real_server() as real:
        _agree_for(300, chance, [MemoryStore(), real])


def _agree_for(steps: int, chance: random.Random, stores: list[Store]) -> None:
    for step in range(steps):
        _operate(chance, stores, step)
    assert len({store.count() for store in stores}) == 1
    assert stores[0].count() > 20


@pytest.mark.stress
def test_two_hundred_thousand_operations_agree(tmp_path: Path) -> None:
    seed = int(os.environ.get("STRESS_SEED", SEED))
    chance = random.Random(seed)  # noqa: S311 - tests, not secrets
    count = int(os.environ.get("STRESS_OPERATIONS", "200000"))
    print(f"seed {seed}, {count} operations")
    with closing(EdgeStore(tmp_path, create=True, **MADE)) as edge:
        stores: list[Store] = [MemoryStore(), edge]
        for step in range(count):
            _operate(chance, stores, step)
        assert stores[0].count() == edge.count() > 20


@contextmanager
def real_server() -> Iterator[Store]:
    """The server at QDRANT_URL; what is made there is thrown away."""
    grpc = os.environ.get("QDRANT_GRPC") == "1"
    name = f"crossrag-test-{uuid4().hex}"
    with closing(
        QdrantStore(os.environ["QDRANT_URL"], collection=name, create=True, grpc=grpc, **MADE)
    ) as store:
        yield store
        store.drop()


def _operate(chance: random.Random, stores: list[Store], step: int) -> None:
    document, generation = f"doc{chance.randint(0, 9)}", str(chance.randint(1, 2))
    kind = chance.choice(["write", "write", "search", "search", "search", "neighbours", "delete", "scan"])
    where = chance.choice(
        [None, {"team": "blue"}, {"year": {"gte": 2021}}, {"not": {"team": ["blue", "red"]}}]
    )
    if kind == "write":
        chunks = [
            chunk(
                document,
                position,
                # Unlike texts of unlike length: no two scores are equal but by being the same.
                " ".join(chance.choices(WORDS, k=3 + position * 2)) + f" only{step}x{position}",
                generation,
                team=chance.choice(["blue", "red", "green"]),
                year=chance.randint(2019, 2023),
            )
            for position in range(chance.randint(1, 6))
        ]
        for store in stores:
            write(store, chunks)
    elif kind == "delete":
        kept = chance.choice([None, "1", "2"])
        for store in stores:
            store.delete_document(document, keep_generation=kept)
    elif kind == "search":
        text = " ".join(chance.choices(WORDS, k=4))
        hidden = chance.choice([(), ("1",)])
        _agree([_found(store, text, where, hidden) for store in stores], step)
    elif kind == "scan":
        _agree([[(point.chunk, 0.0) for point in store.scan(where=where, limit=7)] for store in stores], step)
    else:
        known = [point.chunk for point in stores[0].scan()]
        if known:
            asked = chance.choice(known)
            _agree([[(near, 0.0) for near in store.neighbours(asked, 2)] for store in stores], step)


def _found(store: Store, text: str, where: Any, hidden: Any) -> list[tuple[Chunk, float]]:
    found = store.search(
        EMBEDDER.embed_query(text), TERMS.encode_query(text), limit=12, where=where, hidden=hidden
    )
    # Ties at the end of a leg are cut as each engine likes.
    legs = [[(hit.chunk, getattr(hit, leg)) for hit in getattr(found, leg)] for leg in ("dense", "sparse")]
    return [pair for leg in legs for pair in leg if not leg or pair[1] > leg[-1][1] + 2e-5]


def _agree(answers: list[list[tuple[Chunk, float]]], step: int) -> None:
    first, *others = answers
    for other in others:
        assert [found.id for found, _ in other] == [found.id for found, _ in first], step
        assert [found for found, _ in other] == [found for found, _ in first], step
        for (_, score), (_, expected) in zip(other, first, strict=True):
            assert abs(score - expected) < 1e-4, step


# --- when things go wrong

CHUNKS = [chunk("doc", position, f"text number {position} about whales") for position in range(8)]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("lost")],
        [Fault("lost"), Fault("cut"), Fault("status", 503)],
        [Fault("slow", seconds=1.6)],
        [Fault("status", 500), Fault("status", 502), Fault("status", 504), Fault("status", 408)],
        [Fault("status", 429, retry_after="1")],
        [Fault("status", 429), Fault("status", 429, retry_after="soon")],
        [Fault("cut"), Fault("cut"), Fault("cut")],
    ],
    ids=lambda faults: "-".join(f"{fault.kind}{fault.status}" for fault in faults),
)
def test_a_write_is_there_once_whatever_the_network_does(server: FakeQdrant, faults: list[Fault]) -> None:
    with closing(opened(server)) as store:
        server.faults["PUT /collections/crossrag-1/points"] = list(faults)
        started = time.monotonic()
        write(store, CHUNKS)
        assert time.monotonic() - started < 15
        tries = [asked for asked in server.asked if asked.path == "/collections/crossrag-1/points"]
        assert len(tries) == len(faults) + 1
        assert all(asked.waits for asked in tries)
        assert [point.chunk for point in store.scan()] == CHUNKS
        assert store.count() == len(CHUNKS)


@pytest.mark.parametrize("fault", [Fault("lost"), Fault("cut"), Fault("status", 503)])
@pytest.mark.parametrize("request_", ["/query/batch", "/scroll", "/count", "/delete", "GET /aliases", "PUT"])
def test_every_request_is_tried_again(server: FakeQdrant, fault: Fault, request_: str) -> None:
    server.faults[request_] = [fault]
    with closing(opened(server)) as store:
        write(store, CHUNKS)
        query = EMBEDDER.embed_query("whales"), TERMS.encode_query("number 3")
        found = store.search(*query, limit=3)
        assert found.sparse[0].chunk == CHUNKS[3]
        assert store.neighbours(CHUNKS[3], 1) == CHUNKS[2:5]
        store.delete_document("doc")
        assert store.count() == 0
    assert not server.faults[request_]
    assert [found.name for found in server.client.get_collections().collections] == ["crossrag-1"]


def test_a_server_that_stays_down_is_given_up_in_time(server: FakeQdrant) -> None:
    with closing(opened(server, max_retries=3)) as store:
        server.faults["/points"] = [Fault("status", 503)] * 50
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"says 503: as ordered.*crossrag doctor"):
            store.count()
        assert time.monotonic() - started < 5
        assert len(server.faults["/points"]) == 46


def test_a_write_outlives_a_restart_until_the_deadline(server: FakeQdrant) -> None:
    with closing(opened(server, max_retries=1, deadline=30.0)) as store:
        server.faults["/points"] = [Fault("status", 503), Fault("cut")] * 2
        write(store, CHUNKS)
        assert (server.faults["/points"], store.count()) == ([], len(CHUNKS))
        server.faults["/points/scroll"] = [Fault("status", 503)] * 3
        assert len(list(store.scan(with_vectors=True))) == len(CHUNKS), "as an ingestion reads"
    with closing(opened(server, max_retries=1, deadline=1.0)) as hasty:
        server.faults["/points"] = [Fault("status", 503)] * 50
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"says 503"):
            write(hasty, CHUNKS)
        assert time.monotonic() - started < 2
    with closing(opened(server, max_retries=0)) as store:
        server.faults["/points"] = [Fault("status", 503)] * 50
        with pytest.raises(StoreError, match=r"says 503"):
            write(store, CHUNKS)
        assert len(server.faults["/points"]) == 49


@pytest.mark.parametrize("status", ["acknowledged", "wait_timeout"])
def test_a_write_that_is_logged_and_not_applied_is_written_again(server: FakeQdrant, status: str) -> None:
    with closing(opened(server)) as store:
        server.statuses = [status, status]
        write(store, CHUNKS)
        tries = [one for one in server.asked if (one.method, one.path[-7:]) == ("PUT", "/points")]
        assert (len(tries), store.count()) == (3, len(CHUNKS))
        server.statuses = [status]
        store.delete_document("doc")
        assert (server.statuses, store.count()) == ([], 0)
    with closing(opened(server, deadline=1.0)) as hasty:
        server.statuses = [status] * 50
        with pytest.raises(StoreError, match=rf"{status}, and not applied yet.*load and log"):
            write(hasty, CHUNKS)


def test_a_wait_beyond_the_deadline_is_not_begun(server: FakeQdrant) -> None:
    with closing(opened(server, deadline=2.0)) as store:
        server.faults["/points"] = [Fault("status", 429, retry_after="3600")]
        started = time.monotonic()
        with pytest.raises(StoreError, match="asks to wait 3600 s"):
            write(store, CHUNKS)
        assert time.monotonic() - started < 2


def test_patience_waits_longer_each_time_and_stops_at_its_deadline() -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    patience = Patience(retries=100, deadline=60.0, sleep=sleep, clock=lambda: now[0])
    with pytest.raises(StoreError, match="down"):
        patience.call(lambda: 1 / 0, lambda _: Trouble(StoreError("down"), passing=True))
    assert sum(waits) <= 60.0
    assert all(0.1 * 2**number <= wait <= 0.2 * 2**number for number, wait in enumerate(waits[:5]))
    assert max(waits) <= 10.0


def test_what_cannot_pass_is_not_tried_again(server: FakeQdrant) -> None:
    with closing(opened(server)) as store:
        for status in (400, 403, 404, 413):
            server.faults["/points"] = [Fault("status", status)] * 2
            with pytest.raises(StoreError, match=str(status)):
                write(store, CHUNKS)
            assert len(server.faults["/points"]) == 1


# --- the collection


def test_a_collection_is_made_once_and_opened_again(server: FakeQdrant) -> None:
    with pytest.raises(IndexMissingError, match="no collection crossrag"):
        opened(server, create=False)
    with closing(opened(server)) as store:
        write(store, CHUNKS)
    with closing(opened(server, create=False)) as again:
        assert again.count() == len(CHUNKS)
    with pytest.raises(FingerprintError, match=r"hashed -> other.*--rebuild"):
        opened(server, fingerprint={"embedder": "other"})
    server.client.create_collection("mine", vectors_config={})
    with pytest.raises(StoreError, match="not made by crossrag"):
        opened(server, collection="mine")
    assert {alias.alias_name for alias in server.client.get_aliases().aliases} == {"crossrag"}


def test_a_new_collection_takes_over_in_one_step(server: FakeQdrant) -> None:
    with closing(opened(server)) as old, closing(opened(server, beside=True)) as new:
        write(old, CHUNKS)
        write(new, CHUNKS[:3])
        assert (old.count(), new.count()) == (len(CHUNKS), 3)
        new.take_over()
        new.take_over()
        assert new.count() == 3
        with pytest.raises(IndexMissingError, match="crossrag-1 not found"):
            old.count()
        names = [found.name for found in server.client.get_collections().collections]
        assert names == ["crossrag-2"]
        with closing(opened(server, create=False)) as again:
            assert (again.count(), again.identity) == (3, new.identity)


def test_what_was_begun_beside_is_gone_on_with(server: FakeQdrant) -> None:
    beside = {"beside": True, "identity": "a" * 32}
    with pytest.raises(IndexMissingError, match="beside crossrag is gone"):
        opened(server, create=False, **beside)
    with closing(opened(server)) as old, closing(opened(server, **beside)) as new:
        write(new, CHUNKS[:3])
        with closing(opened(server, **beside)) as again:
            assert (again.count(), old.count()) == (3, 0)
        with closing(opened(server, beside=True)) as other:
            assert (other.count(), other.identity == new.identity) == (0, False)
        with pytest.raises(FingerprintError):
            opened(server, fingerprint={"embedder": "other"}, **beside)
        with closing(opened(server, fingerprint=None)) as whatever:
            assert whatever.identity == old.identity


def strangers(server: FakeQdrant, *names: str) -> None:
    for name in names:
        server.client.create_collection(name, vectors_config={})


def collections(server: FakeQdrant) -> set[str]:
    return {found.name for found in server.client.get_collections().collections}


def test_a_name_like_ours_makes_no_collection_ours(server: FakeQdrant) -> None:
    strangers(server, "docs-1", "docs-2023", "docs-2024")
    with (
        closing(opened(server, collection="docs")) as store,
        closing(opened(server, collection="docs", beside=True)) as new,
    ):
        write(store, CHUNKS)
        assert collections(server) == {"docs-1", "docs-2", "docs-2023", "docs-2024", "docs-2025"}
        new.take_over()
        new.take_over()
        assert collections(server) == {"docs-1", "docs-2023", "docs-2024", "docs-2025"}
        assert not [one for one in server.asked if one.path == "/collections/docs-1/index"]


def test_what_another_index_or_another_alias_has_stays(server: FakeQdrant) -> None:
    opened(server, collection="docs-2").close()
    opened(server, collection="docs").close()
    with closing(opened(server, collection="docs", beside=True)) as left:
        assert left.identity
    other = {"crossrag": {}, "crossrag_identity": "f" * 32}
    server.client.create_collection("docs-50", vectors_config={}, metadata=other)
    kept = models.CreateAlias(collection_name="docs-1", alias_name="kept")
    server.client.update_collection_aliases([models.CreateAliasOperation(create_alias=kept)])
    assert collections(server) == {"docs-2-1", "docs-1", "docs-3", "docs-50"}
    with closing(opened(server, collection="docs", beside=True)) as new:
        new.take_over()
    # Half built for this index and left: gone. Another alias' and another index': there.
    assert collections(server) == {"docs-2-1", "docs-1", "docs-50", "docs-51"}


def test_a_name_that_means_a_strangers_collection_is_not_taken(server: FakeQdrant) -> None:
    strangers(server, "docs", "theirs")
    taken = models.CreateAlias(collection_name="theirs", alias_name="named")
    server.client.update_collection_aliases([models.CreateAliasOperation(create_alias=taken)])
    for name in ("docs", "named"):
        with pytest.raises(StoreError, match="not made by crossrag"):
            opened(server, collection=name, beside=True)
    assert collections(server) == {"docs", "theirs"}


@pytest.mark.parametrize("name", ["", "a/b", "..", "a?b", "a#b", "ä", "x" * 101, "a b", "-a", "a\\n"])
def test_a_collection_is_a_plain_name(server: FakeQdrant, name: str) -> None:
    with pytest.raises(ConfigError, match=r"qdrant\.collection"):
        opened(server, collection=name)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6333", "ftp://x", "http://", "http://user:secret@host:6333", "http://host?a=secret"],
)
def test_an_address_is_checked_and_its_secrets_are_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"qdrant\.url") as caught:
        QdrantStore(url, **MADE)
    assert "secret" not in str(caught.value)


def test_batches_are_small_and_the_same_each_time() -> None:
    chunks = [chunk("doc", position, "ä" * 20_000) for position in range(100)]
    texts = [one.text for one in chunks]
    arrays = EMBEDDER.embed_documents(texts), TERMS.encode_documents(texts)
    sizes = [
        [sum(len(point.model_dump_json()) for point in batch), len(batch)]
        for batch in batches(chunks, *arrays, "")
    ]
    assert sum(count for _, count in sizes) == 100
    assert max(size for size, _ in sizes) < 5_000_000
    assert len(sizes) > 1
    assert [len(batch) for batch in batches(chunks, *arrays, "")] == [count for _, count in sizes]
    one = [replace(chunks[0], text="x" * 6_000_000)]
    assert len(list(batches(one * 2, arrays[0][:2], arrays[1][:2], ""))) == 2


def test_a_refused_connection_is_called_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StoreError, match=r"connection was refused.*Is the server running"):
        QdrantStore(url, max_retries=1, **MADE)


def test_grpc_that_is_closed_is_called_so() -> None:
    with pytest.raises(StoreError, match=r"gRPC.*qdrant\.grpc_port"):
        QdrantStore("http://127.0.0.1:9", grpc=True, grpc_port=9, max_retries=0, timeout=2.0, **MADE)


def test_a_wrong_key_is_called_so_and_never_shown(
    server: FakeQdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right-key"
    with pytest.raises(StoreError, match=r"401.*qdrant\.api_key") as caught:
        opened(server, api_key="wrong-key")
    assert "wrong-key" not in str(caught.value)
    monkeypatch.setenv("QDRANT_API_KEY", "right-key")
    with closing(opened(server)) as store:
        assert store.count() == 0
    assert "right-key" not in repr(store.__dict__)
