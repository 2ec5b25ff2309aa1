"""The native API: documents, feedback, events, failures that say nothing too much, figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from crossrag.calibrating import read_judgements
from crossrag.config import RerankingSettings
from crossrag.errors import GeneratorError, ModelError
from crossrag.testing import CannedGenerator, OverlapReranker

from .conftest import listening

if TYPE_CHECKING:
    from crossrag.server.service import Service
    from crossrag.types import Context, Relevance, Turn

QUESTION = "How do I restore a backup?"


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of every server-sent event."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("event: "):
            name, data = block.split("\n", 1)
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_events_of_an_answer(client: httpx.Client) -> None:
    reply = client.post("/api/v1/answer", json={"question": QUESTION, "stream": True, "explain": True})
    found = events(reply.text)
    names = [name for name, _ in found]
    assert names[0] == "retrieved"
    assert names[-1] == "done"
    assert "error" not in names
    answer = found[-1][1]["answer"]
    assert "".join(data["text"] for name, data in found if name == "delta") == answer["text"]
    assert [data["citation"] for name, data in found if name == "cited"] == answer["citations"]
    assert answer["id"] == found[0][1]["id"]
    whole = client.post("/api/v1/answer", json={"question": QUESTION}).json()
    assert whole["text"] == answer["text"]
    assert "rerank;dur=" in reply.headers["server-timing"]
    nothing = client.post("/api/v1/answer", json={"question": "zebra xylophone?"}).json()
    assert nothing["status"] == "no_answer"
    assert nothing["citations"] == nothing["sources"] == []


def test_a_citation_leads_to_its_words(client: httpx.Client) -> None:
    answer = client.post("/api/v1/answer", json={"question": QUESTION}).json()
    cited = answer["citations"][0]
    place = {"start": cited["passage_start"], "end": cited["passage_end"]}
    text = client.get(f"/api/v1/documents/{cited['document_id']}/text", params=place).json()
    assert text["text"] == answer["sources"][0]["text"]
    assert answer["text"][cited["start"] : cited["end"]] == f"[{cited['number']}]"


def test_before_and_after_reranking(client: httpx.Client) -> None:
    asked = {"query": "the service is written in two", "top_k": 1, "explain": True}
    said = client.post("/api/v1/search", json=asked).json()
    assert len(said["candidates"]) == 1
    ranks = [one["scores"]["fused_rank"] for one in said["first_stage"]]
    assert ranks == sorted(ranks)
    assert said["candidates"][0]["id"] in {one["id"] for one in said["first_stage"]}
    plain = client.post("/api/v1/search", json=asked | {"explain": False}).json()
    assert plain["first_stage"] is None
    assert plain["candidates"] == said["candidates"]


def test_documents_come_and_go(make: Callable[..., Service], tmp_path: Path) -> None:
    service = make()
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=30) as client:
        url = "/api/v1/documents"

        def upload(name: str, text: str) -> dict[str, Any]:
            row: dict[str, Any]
            (row,) = client.post(url, files={"files": (name, text)}).json()["files"]
            return row

        first = upload("notes/penguin.md", "Penguins swim in the sea.")
        assert (first["name"], first["status"], first["chunks"]) == ("penguin.md", "added", 1)
        assert upload("penguin.md", "Penguins swim in the sea.")["status"] == "unchanged"
        assert upload("penguin.md", "Penguins dive.")["status"] == "updated"
        assert upload("a.exe", "x")["status"] == "skipped"
        assert upload("empty.md", "")["status"] == "failed"
        broken = upload("broken.json", "{")
        assert (broken["status"], broken["document_id"]) == ("failed", None)
        listed = client.get(url, params={"limit": 2}).json()
        assert listed["total"] == 3
        rest = client.get(url, params={"limit": 2, "cursor": listed["next_cursor"]}).json()
        assert [row["source"] for row in listed["documents"] + rest["documents"]] == [
            "docs/backup.md",
            "docs/whales.txt",
            "penguin.md",
        ]
        assert client.delete(f"{url}/{listed['documents'][0]['id']}").status_code == 403
        assert client.delete(f"{url}/{first['document_id']}").status_code == 204
        assert client.get(f"{url}/{first['document_id']}").status_code == 404
        assert not list((tmp_path / "index" / "uploads").rglob("*.md"))
        assert "index" not in client.get(url).text, "a place on the server"


def test_thumbs_become_judgements(make: Callable[..., Service], tmp_path: Path) -> None:
    with listening(make()) as found, httpx.Client(base_url=found.url) as client:
        answer = client.post("/api/v1/answer", json={"question": QUESTION}).json()
        source = answer["sources"][0]
        place = {name: source[name] for name in ("document_id", "start", "end")}

        def judge(verdict: str, kind: str = "passage") -> int:
            body = {"question": QUESTION, "verdict": verdict, "kind": kind, "passages": [place]}
            return client.post("/api/v1/feedback", json=body).status_code

        folder = tmp_path / "index" / "feedback"
        assert judge("up") == judge("up") == judge("down", "answer") == 201
        (judgement,) = read_judgements(folder / "judgements.jsonl")
        chunk = found.service.rag(None, "").search(QUESTION)[0].chunk
        assert judgement.names(chunk)
        assert judge("down") == 201
        assert (folder / "judgements.jsonl").read_text() == ""
        assert len((folder / "feedback.jsonl").read_text().splitlines()) == 4
        place["end"] = 10**6
        assert judge("up") == 422


class Failing:
    """Says what it is told to say, then fails."""

    fingerprint = "failing"

    def __init__(self, error: Exception, *words: str) -> None:
        self.error, self.words = error, words

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        yield from self.words
        raise self.error


def test_failures_are_told_without_their_words(
    make: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "canary-7731"
    caplog.set_level(logging.DEBUG)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    generator = Failing(RuntimeError(f"key {secret} at /home/{secret}"), "One ")
    with listening(make(generator=generator, api_key=secret)) as found:
        head = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=found.url, headers=head) as client:
            asked = {"question": f"backup {secret}"}
            client.get("/api/v1/documents", params={"contains": secret})
            whole = client.post("/api/v1/answer", json=asked)
            assert whole.status_code in {500, 502, 503}
            streamed = client.post("/api/v1/answer", json=asked | {"stream": True}).text
            assert events(streamed)[-1][0] == "error"
            wrong = client.post("/api/v1/search", json={"query": {"x": secret}})
            assert wrong.status_code == 422
            told = [whole.text, json.dumps(events(streamed)[-1][1]), wrong.text, client.get("/metrics").text]
            assert "crossrag_errors_total" in told[-1]
            ours = [record.getMessage() for record in caplog.records if record.name.startswith("crossrag")]
            assert any("failed request_id=" in line for line in ours)
            told += ours
            told += [span.to_json() for span in exporter.get_finished_spans()]
            assert len(exporter.get_finished_spans()) > 1
            assert not [text for text in told if secret in text]


def test_the_index_is_gone(make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(make()) as found:
        rag = found.service.rag(None, "")

        def gone(*_: object, **__: object) -> None:
            raise ModelError("/home/anna/index is damaged")

        monkeypatch.setattr(rag.index, "search", gone)
        for path, body in (
            ("/api/v1/search", {"query": "x"}),
            ("/v1/chat/completions", {"model": "rag", "messages": [{"role": "user", "content": "x"}]}),
        ):
            reply = httpx.post(f"{found.url}{path}", json=body)
            assert "anna" not in reply.text
            assert reply.status_code in {200, 503}


class NumberlessReranker(OverlapReranker):
    """Has no number for every second text."""

    def score(self, query: str, texts: Sequence[str], **arguments: Any) -> Relevance:
        from dataclasses import replace

        said = super().score(query, texts, **arguments)
        broken = tuple(float("nan") if at % 2 else one for at, one in enumerate(said.relevance))
        return replace(said, relevance=broken, logit=broken)


def test_numbers_stay_finite(make: Callable[..., Service]) -> None:
    with listening(make(reranker=NumberlessReranker())) as found:
        texts = ["whale", "whale", "ship", "whale"]
        said = httpx.post(f"{found.url}/v1/rerank", json={"query": "whale", "documents": texts}).json()
        assert next((row["index"], row["relevance_score"]) for row in said["results"]) == (0, 1.0)
        assert len(said["results"]) == 4
        assert said["meta"]["warnings"] == ["2 documents got no score and rank last"]
        tei = httpx.post(f"{found.url}/rerank", json={"query": "whale", "texts": texts}).json()
        assert all(isinstance(row["score"], float) for row in tei)
        search = httpx.post(f"{found.url}/api/v1/search", json={"query": "backup", "top_k": 10})
        assert "NaN" not in search.text
        assert None in [row["scores"]["relevance"] for row in search.json()["candidates"]]


def test_a_long_question_is_answered(client: httpx.Client) -> None:
    long = "Where is the blue whale? " * 1_200
    reply = client.post("/api/v1/answer", json={"question": long, "timeout": 20}, timeout=25)
    assert reply.status_code == 200
    truncated = reply.json()["ranking"]["truncated"]
    assert truncated["query_tokens"] >= 5_000
    assert 0 < truncated["kept"] < truncated["query_tokens"]
    assert reply.json()["ranking"]["candidates"][0]["source"] == "docs/whales.txt"


def test_upstream_that_is_busy_is_503(make: Callable[..., Service]) -> None:
    busy = GeneratorError("429 from https://key@upstream", retryable=True)
    with listening(make(generator=Failing(busy))) as found:
        reply = httpx.post(f"{found.url}/api/v1/answer", json={"question": QUESTION})
        if reply.status_code != 200:  # where no other generator stands in
            assert reply.status_code == 503
            assert reply.headers["retry-after"]
        assert "upstream" not in reply.text.replace("upstream_failed", "")


def test_the_same_question_gets_the_same_bytes(client: httpx.Client) -> None:
    def ask() -> dict[str, Any]:
        said: dict[str, Any] = client.post("/api/v1/search", json={"query": QUESTION, "explain": True}).json()
        said.pop("timings")
        return said

    assert json.dumps(ask()) == json.dumps(ask())


def test_figures(client: httpx.Client) -> None:
    client.post("/api/v1/search", json={"query": "unmistakable-words"})
    text = client.get("/metrics").text
    assert 'crossrag_requests_total{method="POST",route="/api/v1/search",status="200"}' in text
    assert 'crossrag_stage_seconds_count{stage="rerank"}' in text
    assert "crossrag_ready 1.0" in text
    assert "unmistakable" not in text


def test_no_index_yet(tmp_path: Path) -> None:
    from .conftest import made

    with listening(made(tmp_path)) as found, httpx.Client(base_url=found.url) as client:
        assert client.get("/api/v1/status").json()["collections"][0]["documents"] == 0
        reply = client.post("/api/v1/search", json={"query": "x"})
        assert (reply.status_code, reply.json()["code"]) == (404, "no_documents")
        file = {"files": ("first.md", "The first document of all.")}
        assert client.post("/api/v1/documents", files=file).json()["files"][0]["status"] == "added"
        assert client.post("/api/v1/search", json={"query": "first"}).json()["candidates"]


def test_collections(make: Callable[..., Service], tmp_path: Path) -> None:
    service = make(collections={"legal": tmp_path / "legal"})
    with listening(service) as found, httpx.Client(base_url=found.url) as client:
        file = {"files": ("law.md", "The law of whales.")}
        assert client.post("/api/v1/documents?collection=legal", files=file).status_code == 200
        names = [row["id"] for row in client.get("/v1/models").json()["data"]]
        assert names == ["rag", "rag/legal", "embedder"]
        said = client.post("/api/v1/search", json={"query": "whales", "collection": "legal"}).json()
        assert [row["source"] for row in said["candidates"]] == ["law.md"]
        chat = {"model": "rag/legal", "messages": [{"role": "user", "content": "law of whales"}]}
        assert "law of whales" in client.post("/v1/chat/completions", json=chat).text


@pytest.mark.parametrize(
    "reranking", [{"threshold": "precision>=0.9"}, {"model": "none"}, {"model": "none", "top_k": 1}]
)
def test_without_a_threshold_the_first_ones_count(
    make: Callable[..., Service], reranking: dict[str, Any]
) -> None:
    """A precision that no calibration knows yet, and no reranker: both are searched as the engine does it."""
    chosen = RerankingSettings(**reranking)
    service = make(reranking=chosen, generator=CannedGenerator(["Run the restore command [1]."]))
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=20) as client:
        assert client.get("/api/v1/status").json()["threshold"] is None
        said = client.post("/api/v1/search", json={"query": QUESTION, "explain": True}).json()
        assert said["threshold"] is None
        assert all(one["kept"] for one in said["candidates"])
        if chosen.model == "none":
            whole = client.post("/api/v1/answer", json={"question": QUESTION}).json()
            kept = {one["id"] for one in whole["ranking"]["candidates"] if one["kept"]}
            used = {chunk for source in whole["sources"] for chunk in source["chunk_ids"]}
            assert used <= kept
            assert len(kept) == min(chosen.top_k, len(whole["ranking"]["candidates"]))


def test_a_page_that_began_after_what_is_gone_is_told(client: httpx.Client) -> None:
    first = client.get("/api/v1/documents", params={"limit": 1}).json()
    following = client.get("/api/v1/documents", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert following["documents"] != first["documents"]
    gone = client.get("/api/v1/documents", params={"cursor": "d" + "0" * 24})
    assert (gone.status_code, gone.json()["detail"]) == (422, "There is no such cursor")
