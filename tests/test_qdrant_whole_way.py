"""A server in the settings: the same Rag, and a doctor that says what is wrong with it."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossrag import ConfigError, IndexMissingError, Rag, StoreError, UsageError, archive, maintenance
from crossrag.config import IndexSettings, QdrantSettings, RerankingSettings, Settings
from crossrag.registry import diagnose
from crossrag.stores.qdrant_connection import OLDEST_SERVER
from crossrag.stores.qdrant_ledger import NOBODY
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker
from tests.fake_qdrant import FakeQdrant, Fault, fake_qdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


def made(path: Path, **qdrant: str) -> Rag:
    settings = Settings(
        index=IndexSettings(path=path),
        qdrant=QdrantSettings.model_validate(qdrant),
        reranking=RerankingSettings(threshold=0.5),
    )
    return Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), reranker=OverlapReranker())


def test_one_url_and_nothing_else_changes(server: FakeQdrant, corpus: Path, tmp_path: Path) -> None:
    with made(tmp_path / "embedded") as embedded, made(tmp_path / "served", url=server.url) as served:
        for rag in (embedded, served):
            assert rag.ingest(corpus).added == 3
            assert rag.ingest(corpus).unchanged == 3
        for question in ("restore a backup", "blue whale", "office"):
            one, two = embedded.search(question), served.search(question)
            assert [found.chunk for found in one] == [found.chunk for found in two]
            assert embedded.ask(question).text == served.ask(question).text
        (corpus / "whales.txt").unlink()
        assert served.ingest(corpus).deleted == 1
        assert served.ingest(corpus, rebuild=True).added == 2
        assert served.store.count() == sum(document.chunks for document in served.documents())
    assert not (tmp_path / "served" / "shard").exists()


def test_an_index_moves_to_a_server_without_embedding(
    server: FakeQdrant, corpus: Path, tmp_path: Path
) -> None:
    with made(tmp_path / "embedded") as embedded, made(tmp_path / "served", url=server.url) as served:
        embedded.ingest(corpus)
        archive.export(embedded.index, tmp_path / "moved.crossrag")
        archive.load(served.index, tmp_path / "moved.crossrag")
        assert isinstance(served.embedder, HashedEmbedder)
        assert served.embedder.calls == 0
        here, there = (maintenance.verify(rag.index, vectors=True) for rag in (embedded, served))
        assert (here.digest, here.differences) == (there.digest, ())
        assert served.ingest(corpus).unchanged == 3


def test_what_another_machine_wrote_is_not_written_over(
    server: FakeQdrant, corpus: Path, tmp_path: Path
) -> None:
    with made(tmp_path / "one", url=server.url) as one, made(tmp_path / "two", url=server.url) as two:
        one.ingest(corpus)
        for write in (lambda: two.ingest(corpus), lambda: maintenance.repair(two.index)):
            with pytest.raises(UsageError, match="from another folder or machine"):
                write()
        assert two.search("blue whale")[0].chunk == one.search("blue whale")[0].chunk
        assert maintenance.verify(one.index).agrees
        assert two.ingest(corpus, rebuild=True).added == 3
        assert two.ingest(corpus).unchanged == 3


def test_a_server_is_verified_and_mended(server: FakeQdrant, corpus: Path, tmp_path: Path) -> None:
    with made(tmp_path / "served", url=server.url) as rag:
        rag.ingest(corpus)
        before = maintenance.verify(rag.index, vectors=True).digest
        damaged = next(entry for entry in rag.documents() if entry.source.endswith("whales.txt"))
        rag.store.delete_document(damaged.id)
        assert [one.kind for one in maintenance.verify(rag.index).differences] == ["missing"]
        assert maintenance.repair(rag.index).rewritten == 1
        assert maintenance.verify(rag.index, vectors=True).digest == before
        assert maintenance.delete(rag.index, ["*/whales.txt"])
        assert rag.store.count() == sum(entry.chunks for entry in rag.documents())


def test_another_server_knows_nothing_of_the_first(server: FakeQdrant, corpus: Path, tmp_path: Path) -> None:
    with made(tmp_path / "index") as rag:
        rag.ingest(corpus)
    for collection in ("one", "two"):
        with made(tmp_path / "index", url=server.url, collection=collection) as rag:
            assert rag.documents() == []
            assert rag.ingest(corpus).added == 3


def test_langchain_finds_its_keys(server: FakeQdrant, corpus: Path, tmp_path: Path) -> None:
    with made(tmp_path / "index", url=server.url) as rag:
        rag.ingest(corpus)
    points, _ = server.client.scroll("crossrag", with_vectors=True, limit=100)
    points = [point for point in points if (point.payload or {})["tenant"] != NOBODY]
    assert len(points) >= 3
    for point in points:
        assert set(point.payload or {}) == {"page_content", "metadata", "tenant"}
        assert isinstance(point.vector, dict)
        assert set(point.vector) == {"dense", "bm25"}


def test_a_failing_server_leaves_what_the_next_run_makes_good(
    server: FakeQdrant, corpus: Path, tmp_path: Path
) -> None:
    settings = {"url": server.url, "max_retries": "0"}
    with made(tmp_path / "index", **settings) as rag:
        rag.ingest(corpus / "whales.txt")
        server.faults["PUT /collections/crossrag-1/points"] = [Fault("lost")]
        with pytest.raises(StoreError, match="connection was cut"):
            rag.ingest(corpus)
        assert rag.ingest(corpus).failed == ()
        assert rag.store.count() == sum(document.chunks for document in rag.documents())
        assert len(rag.documents()) == 3


def test_a_server_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qdrant\.url"):
        Rag.open(tmp_path, index={"store": "qdrant"}).store  # noqa: B018 - opened by looking at it
    assert Rag.open(tmp_path, index={"store": "edge"}, qdrant={"url": "http://x"}).settings.store == "edge"


# --- what the doctor says


def said(server: FakeQdrant, **more: str) -> str | None:
    return diagnose("stores", "qdrant", url=server.url, collection="crossrag", **more)


def test_all_is_well(server: FakeQdrant, corpus: Path, tmp_path: Path) -> None:
    with made(tmp_path / "index", url=server.url) as rag:
        rag.ingest(corpus)
    assert f"Qdrant 1.20.0 at {server.url}, crossrag is crossrag-1, " in str(said(server))
    server.version = "1.22.1"
    assert "keep them within one minor version" in str(said(server))


def test_a_missing_collection_is_no_fault_of_the_server(server: FakeQdrant) -> None:
    with pytest.raises(IndexMissingError, match=r"answers at .* has no collection crossrag yet"):
        said(server)


def test_an_old_server_is_named(server: FakeQdrant) -> None:
    server.version = "1.16.3"
    with pytest.raises(StoreError, match=r"Qdrant 1\.16\.3, too old.*1\.19.*compose"):
        said(server)


def test_a_wrong_key_is_named(server: FakeQdrant) -> None:
    server.key = "right"
    with pytest.raises(StoreError, match=r"says 401.*qdrant\.api_key"):
        said(server, api_key="wrong-key")
    assert {asked.key for asked in server.asked} == {"wrong-key"}


def test_a_wrong_port_is_named() -> None:
    for page in (b"<html>It works!</html>", b'{"title": "Other", "version": "1.0"}', b"{}"):
        with web_server(page) as url, pytest.raises(StoreError, match=r"no Qdrant.*Check qdrant\.url"):
            diagnose("stores", "qdrant", url=url, collection="crossrag")


def test_doctor_says_it_all_in_one_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossrag", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"CROSSRAG_QDRANT__URL": "http://127.0.0.1:9", "COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert "refused" in done.stdout
    assert "Is the server running?" in done.stdout


def test_the_compose_file_is_pinned_and_closed() -> None:
    text = (Path(__file__).parent.parent / "docker" / "compose.yaml").read_text(encoding="utf-8")
    [pinned] = re.findall(r"image: qdrant/qdrant:v(\d+)\.(\d+)\.\d+", text)
    assert tuple(map(int, pinned)) >= OLDEST_SERVER
    for line in (
        "QDRANT__SERVICE__API_KEY: ${QDRANT_API_KEY:?",
        'QDRANT__SERVICE__ENABLE_CORS: "false"',
        'QDRANT__SERVICE__ENABLE_SNAPSHOT_URL_RECOVERY: "false"',
        'QDRANT__TELEMETRY_DISABLED: "true"',
    ):
        assert line in text
    assert all(port.startswith("127.0.0.1:") for port in re.findall(r'- "([^"]+:633\d)"', text))
    assert "latest" not in text


@contextmanager
def web_server(page: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the name of http.server
            """Nothing to say."""

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{serving.server_address[1]}"
    finally:
        serving.shutdown()
        serving.server_close()
