"""What a request holds that is no text, too deep, twice at once, or too often."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import httpx
import pytest

from crossrag.calibrating import read_judgements
from crossrag.server import uploads

from .conftest import listening

if TYPE_CHECKING:
    from crossrag.server.service import Service

HALF = "\\ud800"
JSON = {"Content-Type": "application/json"}
MCP = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
BODIES = [
    ("/v1/embeddings", '{"model": "embedder", "input": "%s"}'),
    ("/v1/embeddings", '{"model": "embedder", "input": ["a", "%s"]}'),
    ("/v1/rerank", '{"query": "x", "documents": ["%s"]}'),
    ("/v1/rerank", '{"query": "x", "documents": [{"text": "%s"}]}'),
    ("/rerank", '{"query": "x", "texts": ["%s"]}'),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "%s"}]}'),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": [{"type": "text", "text": "%s"}]}]}'),
    (
        "/v1/chat/completions",
        '{"messages": [{"role": "user", "content": "x"}], "rag": {"filter": {"a": "%s"}}}',
    ),
    ("/api/v1/search", '{"query": "%s"}'),
    ("/api/v1/search", '{"query": "x", "where": {"a": "%s"}}'),
    ("/api/v1/search", '{"query": "x", "where": {"%s": "a"}}'),
    ("/api/v1/answer", '{"question": "x", "history": [{"role": "user", "text": "%s"}]}'),
    ("/api/v1/feedback", '{"question": "%s", "verdict": "up", "kind": "answer"}'),
    (
        "/mcp",
        (
            '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": '
            '{"name": "search", "arguments": {"query": "%s"}}}'
        ),
    ),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_halves_of_surrogate_pairs_are_refused(client: httpx.Client, path: str, body: str) -> None:
    for half in (HALF, "\\uDfFf", "a\\ud83d", "\\ud83dx\\ude00", "\\ud83d\\n", "\\ud83d\\ud83d\\ude00"):
        reply = client.post(path, content=(body % half).encode(), headers=JSON | MCP)
        assert reply.status_code == 422, reply.text[:300]
        assert "surrogate" in reply.text
    raw = (body % "X").encode().replace(b"X", b"\xed\xa0\x80")
    assert client.post(path, content=raw, headers=JSON | MCP).status_code == 400
    wide = (body % HALF).encode("utf-16-le")
    assert client.post(path, content=wide, headers=JSON | MCP).status_code == 400


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_whole_pairs_and_backslashes_are_text(client: httpx.Client, path: str, body: str) -> None:
    for whole in ("\\ud83d\\ude00", "\\uD83D\\uDE00!", "\\\\ud800", "\\\\\\ud83d\\ude00", "\\u00e4"):
        reply = client.post(path, content=(body % whole).encode(), headers=JSON | MCP)
        assert reply.status_code < 500
        assert "surrogate" not in reply.text


@pytest.mark.parametrize(
    "kind",
    ["application/JSON", "Application/Json; charset=utf-8", "application/vnd.x+JSON", "text/plain", ""],
)
def test_depth_is_bounded_whatever_the_body_is_called(client: httpx.Client, kind: str) -> None:
    deep = b'{"query": "x", "where": ' + b'{"and": [' * 200 + b"]}" * 200 + b"}"
    reply = client.post("/api/v1/search", content=deep, headers={"Content-Type": kind})
    assert reply.status_code == 422
    assert "nested deeper" in reply.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/search", "/v1/chat/completions"])
def test_a_body_without_its_type_is_told_how(client: httpx.Client, path: str) -> None:
    """What `curl -d` sends if nothing is said."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = client.post(path, content=b'{"query": "x"}', headers=form)
    assert reply.status_code == 422
    assert "Content-Type: application/json" in reply.text
    assert "Content-Type" not in client.post(path, json={"query": 5}).text


class Slow(io.BytesIO):
    """Is read in small pieces, with a break after the first."""

    def __init__(self, content: bytes, other: threading.Barrier) -> None:
        super().__init__(content)
        self._other = other
        self._reads = 0

    def read(self, _: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads == 2:
            self._other.wait(5)
        return super().read(1_000)


def test_one_name_uploaded_twice_at_once_is_one_of_the_two(
    make: Callable[..., Service], tmp_path: Path
) -> None:
    service = make()
    rag, folder = service.rag(None, ""), service.uploads("default", "")
    both, failures = threading.Barrier(2), list[BaseException]()
    texts = [(f"{word} " * 5_000).encode() for word in ("whale", "penguin")]

    def upload(text: bytes) -> None:
        try:
            (row,) = uploads.store(rag, folder, [uploads.Given("a.md", cast("BinaryIO", Slow(text, both)))])[
                "files"
            ]
            assert row["status"] in {"added", "updated", "unchanged"}, row
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=upload, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (kept,) = (tmp_path / "index" / "uploads").rglob("*.*")
    assert kept.read_bytes() in texts
    service.close()


def test_a_replacement_that_cannot_be_read_leaves_the_good_file(
    make: Callable[..., Service], tmp_path: Path
) -> None:
    service = make()
    rag, folder = service.rag(None, ""), service.uploads("default", "")

    def upload(*contents: bytes, name: str = "a.json") -> str:
        given = [uploads.Given(name, io.BytesIO(content)) for content in contents]
        return str(uploads.store(rag, folder, given)["files"][0]["status"])

    def kept() -> list[bytes]:
        return [one.read_bytes() for one in (tmp_path / "index" / "uploads").rglob("*.*")]

    assert upload(b'{"text": "A whale is large."}') == "added"
    assert upload(b'{"text": ') == "failed"
    assert kept() == [b'{"text": "A whale is large."}']
    assert upload(b'{"text": "A whale is large."}') == "unchanged"
    assert upload(b'{"text": ', b'{"text": "A whale is heavy."}') == "updated"
    assert kept() == [b'{"text": "A whale is heavy."}']
    assert upload(b'{"text": ', name="b.json") == "failed"
    assert kept() == [b'{"text": "A whale is heavy."}']
    service.close()


def test_an_upload_that_breaks_off_leaves_nothing(make: Callable[..., Service], tmp_path: Path) -> None:
    service = make()
    broken = threading.Barrier(2)
    broken.abort()
    given = uploads.Given("a.md", cast("BinaryIO", Slow(b"x" * 5_000, broken)))
    folder = service.uploads("default", "")
    folder.mkdir(parents=True)
    (killed := folder / "tmp1.partial").touch()
    os.utime(killed, (time.time() - 100_000,) * 2)
    with pytest.raises(threading.BrokenBarrierError):
        uploads.store(service.rag(None, ""), folder, [given])
    assert not list((tmp_path / "index" / "uploads").rglob("*.*"))
    service.close()


THUMB: dict[str, Any] = {"question": "x", "verdict": "up", "kind": "answer"}


def test_thumbs_of_one_key_are_bounded_in_a_minute(make: Callable[..., Service]) -> None:
    with listening(make(feedback_per_minute=3)) as found, httpx.Client(base_url=found.url) as client:
        replies = [client.post("/api/v1/feedback", json=THUMB) for _ in range(5)]
        assert [reply.status_code for reply in replies] == [201] * 3 + [429] * 2
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
        assert "feedback_per_minute" in replies[-1].json()["hint"]


def test_feedback_is_bounded_in_size(make: Callable[..., Service], tmp_path: Path) -> None:
    with listening(make(feedback_bytes=20_000)) as found, httpx.Client(base_url=found.url) as client:
        document = client.get("/api/v1/documents").json()["documents"][0]["id"]
        passages = [{"document_id": document, "start": at, "end": at + 9} for at in range(20)]
        thumb = THUMB | {"question": "long " * 60, "passages": passages}
        statuses = [
            client.post("/api/v1/feedback", json=thumb | {"question": f"{n} {thumb['question']}"})
            for n in range(6)
        ]
        assert [reply.status_code for reply in statuses] == [201] * 2 + [413] * 4
        assert "feedback_bytes" in statuses[-1].json()["hint"]
        folder = tmp_path / "index" / "feedback"
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 20_000
        assert len(read_judgements(folder / "judgements.jsonl")) == 40
