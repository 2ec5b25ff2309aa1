"""What only a cluster has: how a new collection is laid out, copies that a read asks, shards by tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from crossrag.errors import StoreError
from crossrag.stores.qdrant import QdrantStore
from crossrag.testing import HashedEmbedder, HashedTerms
from tests.fake_qdrant import FakeQdrant, Fault, fake_qdrant
from tests.test_qdrant import MADE, chunk

TEXTS = ["restore a backup", "whales are mammals", "the office opens at nine"]
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


def opened(server: FakeQdrant, **arguments: Any) -> QdrantStore:
    return QdrantStore(server.url, **({"create": True, "timeout": 5.0} | MADE | arguments))


def write(store: QdrantStore, document: str) -> None:
    chunks = [chunk(document, position, text) for position, text in enumerate(TEXTS)]
    store.upsert(chunks, HashedEmbedder().embed_documents(TEXTS), HashedTerms().encode_documents(TEXTS))


def found(store: QdrantStore, query: str = "restore a backup") -> set[str]:
    ranked = store.search(HashedEmbedder().embed_query(query), HashedTerms().encode_query(query), limit=9)
    return {hit.chunk.document_id for hit in ranked.dense}


def test_a_new_collection_has_the_shards_and_copies_that_are_asked_for(server: FakeQdrant) -> None:
    opened(server, shard_number=6, replication_factor=2, write_consistency_factor=2, quantization="scalar")
    (layout,) = server.layouts
    assert (layout["shard_number"], layout["replication_factor"]) == (6, 2)
    assert layout["write_consistency_factor"] == 2
    assert layout.get("sharding_method") is None
    assert layout["vectors"]["dense"]["quantization_config"]["scalar"]["type"] == "int8"


@pytest.mark.parametrize("wanted", ["majority", "quorum", "all"])
def test_every_read_asks_as_many_copies_as_it_is_told(server: FakeQdrant, wanted: Any) -> None:
    store = opened(server, read_consistency=wanted)
    write(store, "a.md")
    server.asked.clear()
    assert found(store) == {"a.md"}
    assert len(list(store.scan())) == 3
    assert len(store.neighbours(chunk("a.md", 1, TEXTS[1]), 1)) == 3
    reads = [one for one in server.asked if one.path.endswith(("/query/batch", "/scroll"))]
    assert len(reads) >= 3
    assert all(f"consistency={wanted}" in one.query for one in reads)


def test_without_being_told_a_read_asks_one(server: FakeQdrant) -> None:
    store = opened(server)
    write(store, "a.md")
    assert found(store) == {"a.md"}
    assert not [one for one in server.asked if "consistency" in one.query]


def test_each_tenant_has_a_shard_of_its_own(server: FakeQdrant) -> None:
    store = opened(server, tenant_shards=True)
    blue = store.for_tenant("blue")
    write(store, "a.md")
    write(blue, "b.md")
    assert server.shards == {"crossrag-1": ["_default", "blue"]}
    assert (found(store), found(blue), found(store.for_tenant("green"))) == ({"a.md"}, {"b.md"}, set())
    assert (store.count(), blue.count()) == (3, 3)
    blue.delete_document("b.md")
    assert (store.count(), blue.count(), len(list(blue.scan()))) == (3, 0, 0)


def test_a_new_collection_has_one_shard_unless_more_are_asked_for(server: FakeQdrant) -> None:
    """A cluster would make one for each node, and BM25 counts in each by itself."""
    opened(server).close()
    assert server.layouts[0]["shard_number"] == 1


def test_shards_by_tenant_on_a_single_node_are_explained(server: FakeQdrant) -> None:
    server.single = True
    with pytest.raises(StoreError, match=r"single node.*QDRANT__CLUSTER__ENABLED"):
        write(opened(server, tenant_shards=True), "a.md")


def test_a_collection_says_itself_how_it_is_laid_out(server: FakeQdrant) -> None:
    opened(server, tenant_shards=True, tenant="blue").close()
    later = opened(server, tenant_shards=False, tenant="blue")
    write(later, "b.md")
    assert found(later) == {"b.md"}
    assert server.shards["crossrag-1"] == ["blue"]


def test_a_key_that_another_process_made_just_now_is_taken(server: FakeQdrant) -> None:
    opened(server, tenant_shards=True).close()
    server.faults["PUT /collections/crossrag-1/shards"] = [Fault("lost")]
    store = opened(server, tenant="blue")
    write(store, "b.md")
    assert server.shards["crossrag-1"].count("blue") == 1


def test_a_key_that_may_not_make_shards_is_told_so(server: FakeQdrant) -> None:
    opened(server, tenant_shards=True).close()
    server.faults["PUT /collections/crossrag-1/shards"] = [Fault("status", status=403)]
    with pytest.raises(StoreError, match="403"):
        opened(server, tenant="blue").count()
