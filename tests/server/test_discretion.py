"""What a failing part says stays inside, since it may hold keys and texts. Clients and logs get its class."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mcp.client import Client

from crossrag.errors import GeneratorError, ModelError
from crossrag.server.mcp import Tools
from crossrag.testing import CannedGenerator, Fault, HashedEmbedder, OverlapReranker

from .conftest import listening
from .test_service import QUESTION, Failing

if TYPE_CHECKING:
    from crossrag.server.service import Service

SECRET = "canary-4096"


class BadGrounder:
    """Cannot check anything."""

    fingerprint = "bad"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def support(self, pairs: list[tuple[str, str]]) -> list[float]:  # noqa: ARG002
        raise self._error


def told(url: str) -> list[str]:
    """Everything that clients get when they ask."""
    search = {"query": QUESTION}
    answer = {"question": QUESTION, "history": [{"role": "user", "text": "What is a backup?"}]}
    chat = {"model": "rag", "messages": [{"role": "user", "content": QUESTION}]}
    with httpx.Client(base_url=url, timeout=30) as client:
        replies = [
            client.post("/api/v1/search", json=search),
            client.post("/api/v1/answer", json=answer),
            client.post("/api/v1/answer", json=answer | {"stream": True}),
            client.post("/v1/chat/completions", json=chat),
            client.post("/v1/chat/completions", json=chat | {"stream": True}),
            client.post("/v1/rerank", json={"query": "backup", "documents": ["a backup", "a ship"]}),
            client.post("/v1/embeddings", json={"model": "embedder", "input": "backup"}),
            client.get("/metrics"),
        ]
    return [reply.text for reply in replies] + asyncio.run(asked(f"{url}/mcp"))


async def asked(server: Any) -> list[str]:
    """What the tools say."""
    async with Client(server) as tools:
        said = [
            await tools.call_tool("search", {"query": QUESTION}),
            await tools.call_tool("ask", {"question": QUESTION}),
        ]
    return [json.dumps(one.model_dump(mode="json")) for one in said]


@pytest.mark.parametrize("part", ["reranker", "embedder", "generator", "grounder", "store"])
@pytest.mark.parametrize("kind", [RuntimeError, ModelError, GeneratorError])
def test_words_of_a_failing_part_leave_in_no_way(
    make: Callable[..., Service],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    kind: type[Exception],
) -> None:
    caplog.set_level(logging.DEBUG)
    error = kind(f"401 for key {SECRET} at /home/{SECRET}")
    if isinstance(error, GeneratorError):
        error.retryable = True
    parts: dict[str, Any] = {
        "reranker": {"reranker": Fault(OverlapReranker(), error=error)},
        "embedder": {"embedder": Fault(HashedEmbedder(), methods={"embed_query"}, error=error)},
        "generator": {"generator": Failing(error)},
        "grounder": {"generator": CannedGenerator(["A backup is written at dawn, they say [1]."])},
    }
    service = make(**parts.get(part, {}))
    rag = service.rag(None, "")
    rag.__dict__["fallback"] = CannedGenerator(["A backup is written every night at two [1]."])
    if part == "grounder":
        rag.__dict__["grounder"] = BadGrounder(error)
    monkeypatch.setattr(service, "warm_up", lambda: service.now("ready"))
    with listening(service) as found:
        if part == "store":
            monkeypatch.setattr(rag.index, "search", Fault(rag.index, error=error).search)
        said = told(found.url)
    # What a generator raises is made an error of its own kind; what is none of those ends the request.
    name = "GeneratorError" if part == "generator" and kind is RuntimeError else kind.__name__
    assert [line for line in said if name in line], "nobody was told what kind of error it was"
    if part != "store" and (part, kind) != ("generator", ModelError):
        assert any(f": {name}" in line for line in said[:3]), "no notice says it"
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("crossrag", "mcp"))]
    ours += [record.exc_text or "" for record in caplog.records]
    assert not [line for line in (*said, *ours) if SECRET in line]


def test_words_of_a_failing_part_do_not_leave_over_stdio(
    make: Callable[..., Service], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    rag = service.rag(None, "")
    error = RuntimeError(f"{SECRET} at /home")
    monkeypatch.setattr(rag.index, "search", Fault(rag.index, error=error).search)
    said = asyncio.run(asked(Tools(service).server()))
    service.close()
    assert "failed kind=RuntimeError" in caplog.text
    assert SECRET not in "".join(said) + caplog.text
