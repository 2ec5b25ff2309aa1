"""A tenant of a collection on a Qdrant server that another process exchanges: no stale manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crossrag import Rag, UsageError, maintenance
from crossrag.config import ChunkingSettings, IndexSettings, QdrantSettings, RerankingSettings, Settings
from crossrag.server.tenants import TenantIndex
from crossrag.testing import HashedTerms

from .crashing import OLD, Halves
from .fake_qdrant import FakeQdrant, fake_qdrant
from .test_sync import lines, write

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


def opened(index: Path, url: str, *, tenant: str = "") -> Rag:
    settings = Settings(
        index=IndexSettings(path=index, tenant=tenant),
        qdrant=QdrantSettings(url=url),
        reranking=RerankingSettings(model="none"),
        chunking=ChunkingSettings(size=OLD, overlap=0),
    )
    return Rag(settings, embedder=Halves(), sparse_encoder=HashedTerms())


@pytest.mark.parametrize("first", ["searches", "lists after the other has searched", "writes"])
def test_a_tenant_follows_an_exchange(server: FakeQdrant, tmp_path: Path, first: str) -> None:
    """As in two processes: `writer` builds the collection anew that the others have open."""
    docs = tmp_path / "docs"
    write(docs, one=lines("one", 1, 4), two=lines("two", 1, 3))
    with (
        opened(tmp_path / "index", server.url) as whole,
        opened(tmp_path / "index", server.url, tenant="blue") as reader,
        opened(tmp_path / "index", server.url, tenant="blue") as writer,
    ):
        reader.index = TenantIndex(whole.index, "blue")
        writer.ingest(docs)
        assert len(reader.search("Line of document", top_k=100)) == 7
        assert reader.index.count() == 7
        before = {entry.generation for entry in reader.manifest.entries().values()}
        write(docs, one=lines("one", 2, 2), two=lines("two", 2, 1))
        maintenance.reindex(writer.index)
        wanted = writer.manifest.entries()
        assert before.isdisjoint(entry.generation for entry in wanted.values())
        if first == "lists after the other has searched":
            whole.index.search(whole.embedder.embed_query("Line"), None, limit=3)
            assert reader.manifest.entries() == wanted
        elif first == "writes":
            write(docs, three=lines("three", 1, 1))
            assert reader.ingest(docs).unchanged == 2
            wanted = writer.manifest.entries()
            assert len(wanted) == 3
        found = reader.search("Line of document", top_k=100)
        assert {one.chunk.document_id for one in found} == set(wanted)
        assert reader.manifest.entries() == wanted
        assert reader.index.count() == sum(entry.chunks for entry in wanted.values())
        assert maintenance.verify(reader.index).agrees


def test_a_rebuild_from_elsewhere_throws_no_other_tenant_away(server: FakeQdrant, tmp_path: Path) -> None:
    """What the others have is in no manifest of this folder."""
    docs = tmp_path / "docs"
    write(docs, one=lines("one", 1, 4))
    with (
        opened(tmp_path / "here", server.url, tenant="blue") as blue,
        opened(tmp_path / "there", server.url, tenant="red") as red,
    ):
        blue.ingest(docs)
        with pytest.raises(UsageError, match=r"holds 4 chunks of other tenants too.*qdrant\.collection"):
            red.ingest(docs, rebuild=True)
        assert len(blue.search("Line of document", top_k=100)) == 4
        assert blue.ingest(docs, rebuild=True).added == 1, "one's own may always be made anew"
        maintenance.delete(blue.index, ["*"])
        assert red.ingest(docs, rebuild=True).added == 1
