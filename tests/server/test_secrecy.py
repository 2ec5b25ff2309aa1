"""Tenants (promise 43), filters (44), secrets (45), no network (46): at random, with a printed seed."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.errors import UsageError
from crossrag.filters import Filter, parse
from crossrag.server.auth import new_key

from .conftest import listening, made

if TYPE_CHECKING:
    from crossrag.server.service import Service

SEED = int(os.environ.get("STRESS_SEED", "20261124"))
TENANTS = ("blue", "green", "red")
WORDS = ("whale", "penguin", "ice", "secret", "plan", "sea", *TENANTS)


def random_filter(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """In the language of filters, or nearly; often about tenants."""
    key = chance.choice(["tenant", "source", "metadata.tenant", "page", "a b", "tenant ", "$or", "id"])
    value = chance.choice([*TENANTS, 1, None, True, {"in": list(TENANTS)}, {"prefix": "b"}, {"ne": "blue"}])
    if depth > 3 or chance.random() < 0.5:
        return {key: value}
    name = chance.choice(["and", "or", "not", "must", "should", "must_not"])
    inner = [random_filter(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {name: inner if name != "not" or chance.random() < 0.3 else random_filter(chance, depth + 1)}


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=pytest.mark.stress)])
def test_no_query_and_no_filter_finds_another_tenants_texts(tmp_path: Path, count: int) -> None:
    chance = random.Random(SEED)  # noqa: S311
    print(f"seed {SEED}")
    keys = {tenant: new_key(tenant, "write", tenant) for tenant in TENANTS}
    heads = {tenant: {"Authorization": f"Bearer {key}"} for tenant, (key, _) in keys.items()}
    service = made(tmp_path, keys=tuple(kept for _, kept in keys.values()), feedback_per_minute=10**6)
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=30) as client:
        ids: dict[str, set[str]] = {}
        for tenant in TENANTS:
            files = [
                ("files", (f"{n}.md", f"The {tenant} whale has secret plan {n}, as every whale of the sea."))
                for n in range(5)
            ]
            rows = client.post("/api/v1/documents", files=files, headers=heads[tenant]).json()["files"]
            ids[tenant] = {row["document_id"] for row in rows}
        everybody = [one for some in ids.values() for one in some]
        for _ in range(count):
            tenant = chance.choice(TENANTS)
            foreign = [other for other in TENANTS if other != tenant]
            words = " ".join(chance.choices(WORDS, k=4))
            where = random_filter(chance) if chance.random() < 0.7 else None
            document = chance.choice(everybody)
            replies = [
                client.post(
                    "/api/v1/search",
                    json={"query": words, "top_k": 50, "where": where, "explain": True},
                    headers=heads[tenant],
                ),
                client.get("/api/v1/documents", params={"contains": words[:3]}, headers=heads[tenant]),
                client.get(f"/api/v1/documents/{document}/text", headers=heads[tenant]),
            ]
            assert replies[0].status_code in {200, 422}, replies[0].text
            assert replies[2].status_code == (200 if document in ids[tenant] else 404)
            for reply in replies:
                assert not [other for other in foreign if f"The {other} whale" in reply.text]
            if replies[0].status_code == 200:
                assert {row["document_id"] for row in replies[0].json()["candidates"]} <= ids[tenant]


@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.stress)])
def test_no_filter_reaches_the_store_unread(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    chance = random.Random(SEED)  # noqa: S311
    print(f"seed {SEED}")
    service = make()
    store = service.rag(None, "").store
    only, seen = store._only, list[Any]()  # type: ignore[attr-defined]

    def spied(tree: Any, **rest: Any) -> Any:
        seen.append(tree)
        return only(tree, **rest)

    monkeypatch.setattr(store, "_only", spied)
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=30) as client:
        for _ in range(count):
            where = random_filter(chance)
            try:
                parse(where)
                expected = 200
            except UsageError:
                expected = 422
            asked = {"query": "x", "where": where}
            assert client.post("/api/v1/search", json=asked).status_code == expected, where
    # The engine's own filter is made of this alone.
    assert all(tree is None or isinstance(tree, Filter) for tree in seen)
    assert len([tree for tree in seen if tree is not None]) > count // 10


def test_texts_and_keys_are_in_no_log_and_no_figure(
    make: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, question, text = "canary-key-77", "canaryquestion", "canarytext"
    with listening(make(api_key=key, log_format="json")) as found:
        head = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=found.url, headers=head, timeout=30) as client:
            file = {"files": (f"{text}.md", f"The {text} is written every night at two.")}
            assert client.post("/api/v1/documents", files=file).status_code == 200
            asked = {"question": f"When is {question} {text} written?"}
            assert text in client.post("/api/v1/answer", json=asked).text
            assert text in client.post("/api/v1/answer", json=asked | {"stream": True}).text
            chat = {"messages": [{"role": "user", "content": asked["question"]}]}
            assert text in client.post("/v1/chat/completions", json=chat).text
            client.post("/v1/rerank", json={"query": question, "documents": [text, "x"]})
            client.post("/v1/embeddings", json={"model": "embedder", "input": text})
            client.get(f"/{text}", params={"q": question})
            client.post("/api/v1/search", json={"query": question, "where": {f"{text} x": question}})
            figures = client.get("/metrics").text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("crossrag")]
    assert any('"event": "request"' in line for line in ours)
    for canary in (key, question, text):
        assert not [line for line in [figures, *ours] if canary in line], canary


OFFLINE = """
import socket, sys
def refused(*_, **__): raise OSError("this machine has no network")
real = socket.socket.connect
def connect(self, address):
    if isinstance(address, tuple) and not address[0].startswith("127."):
        refused()
    return real(self, address)
socket.socket.connect = connect
socket.getaddrinfo = socket.gethostbyname = refused
from crossrag.cli import main
sys.argv = ["crossrag", *sys.argv[1:]]
main()
"""


def test_everything_works_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "whales.md").write_text("# Whales\n\nThe blue whale is the largest animal.\n")

    def crossrag(*arguments: str) -> str:
        command = [sys.executable, "-c", OFFLINE, *arguments, "--index", str(tmp_path / "index")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    crossrag("ingest", str(tmp_path / "docs"))
    assert "whales.md" in crossrag("search", "largest animal")
    assert "blue whale" in crossrag("ask", "Which animal is the largest?")
