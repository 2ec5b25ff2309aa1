"""Every store keeps the contract; the exact one is the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient

from crossrag.errors import FingerprintError, IndexMissingError, StoreError, UsageError
from crossrag.stores.edge import EdgeStore
from crossrag.stores.qdrant import QdrantStore
from crossrag.testing import MemoryStore, StoreContract, TenantContract
from tests.fake_qdrant import fake_qdrant

FINGERPRINT = {"embedder": "hashed", "chunking": "test"}


class TestMemoryStore(StoreContract, TenantContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestEdgeStore(StoreContract, TenantContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[EdgeStore]:
        with closing(EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True)) as store:
            yield store


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
class TestQdrantInMemory(StoreContract, TenantContract):
    """The adapter alone: what the client in memory does is not what a server does."""

    @pytest.fixture
    def store(self) -> Iterator[QdrantStore]:
        with closing(in_memory(QdrantClient(":memory:"))) as store:
            yield store


@pytest.mark.skipif(
    "QDRANT_URL" not in os.environ,
    reason="NO REAL SERVER TESTED: set QDRANT_URL to one that may be written to",
)
class TestQdrantServer(StoreContract, TenantContract):
    """A real server; its collections `crossrag-test…` are thrown away. QDRANT_GRPC=1 speaks gRPC."""

    @pytest.fixture
    def store(self) -> Iterator[QdrantStore]:
        name = f"crossrag-test-{uuid4().hex}"
        grpc = os.environ.get("QDRANT_GRPC") == "1"
        store = QdrantStore(
            os.environ["QDRANT_URL"],
            dimension=256,
            fingerprint=FINGERPRINT,
            collection=name,
            create=True,
            grpc=grpc,
        )
        with closing(store):
            yield store
            store.drop()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
class TestQdrantOverHttp(StoreContract, TenantContract):
    """The adapter and everything between: requests as they go over the wire, read by the client's models."""

    @pytest.fixture
    def store(self) -> Iterator[QdrantStore]:
        with fake_qdrant() as served:
            store = QdrantStore(
                served.url, dimension=256, fingerprint=FINGERPRINT, create=True, max_retries=0
            )
            with closing(store):
                yield store


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
class TestStrictQdrant(StoreContract, TenantContract):
    """A server that refuses filters on keys without an index, as Qdrant Cloud does."""

    @pytest.fixture
    def store(self) -> Iterator[QdrantStore]:
        with fake_qdrant() as served:
            served.strict = True
            store = QdrantStore(
                served.url, dimension=256, fingerprint=FINGERPRINT, create=True, max_retries=0
            )
            with closing(store):
                yield store


def in_memory(client: QdrantClient, **arguments: Any) -> QdrantStore:
    given: dict[str, Any] = {"dimension": 256, "fingerprint": FINGERPRINT, "create": True} | arguments
    return QdrantStore("http://127.0.0.1:6333", client=client, **given)


class Leaking(EdgeStore):
    """The tenant's condition taken out."""

    def _only(self, *arguments: Any, **named: Any) -> Any:
        whole = super()._only(*arguments, **named)
        return self._edge.Filter(must=whole.must[1:], must_not=whole.must_not)


@pytest.mark.parametrize(
    "check",
    [
        TenantContract.test_no_tenant_meets_another,
        TenantContract.test_scores_tell_nothing_of_other_tenants,
        TenantContract.test_no_tenant_changes_another,
    ],
)
def test_the_tests_of_tenants_notice_a_leak(tmp_path: Path, check: Any) -> None:
    store = Leaking(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True)
    with closing(store), pytest.raises(AssertionError):
        check(TenantContract(), store)


@pytest.mark.parametrize("name", ["Blue", "a/b", "..", "a b", "-a", "x" * 64, "ä", "a\n", "con\0"])
def test_a_tenant_is_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a tenant"):
        EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True, tenant=name)
    assert not list(tmp_path.iterdir())


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="crossrag ingest"):
        EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT)
    EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True).close()
    with pytest.raises(FingerprintError, match="embedder: hashed -> other"):
        EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT | {"embedder": "other"})


def test_a_shard_cut_short_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True).close()
    (tmp_path / "fingerprint.json").unlink()
    with closing(EdgeStore(tmp_path, dimension=128, fingerprint=FINGERPRINT, create=True)) as store:
        assert store.count() == 0
    (tmp_path / "fingerprint.json").unlink()
    (tmp_path / "shard" / "mine.txt").write_text("not of an index")
    with pytest.raises(StoreError, match=r"mine\.txt, which is no part"):
        EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True)
    assert (tmp_path / "shard" / "mine.txt").is_file()
