"""The real clients of other services over a real port: OpenAI, Cohere, MCP; and recorded payloads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cohere
import httpx
import numpy as np
import openai
import pytest
from mcp.client import Client

from crossrag.errors import GeneratorError
from crossrag.server.mcp import Tools

from .conftest import Running, listening

if TYPE_CHECKING:
    from crossrag.server.service import Service
    from crossrag.types import Context, Turn

QUESTION = "How do I restore a backup?"


@pytest.fixture
def sdk(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat_of_the_openai_sdk(sdk: openai.OpenAI) -> None:
    said = sdk.chat.completions.create(model="rag", messages=[{"role": "user", "content": QUESTION}])
    message = said.choices[0].message
    assert message.content
    assert "restore command" in message.content
    assert message.annotations
    cited = message.annotations[0].url_citation
    assert message.content[cited.start_index : cited.end_index] == "[1]"
    assert cited.title.startswith("docs/backup.md")
    assert said.choices[0].finish_reason == "stop"
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


def test_stream_of_the_openai_sdk(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="rag",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    sources = [chunk for chunk in chunks if chunk.model_extra and "sources" in chunk.model_extra]
    assert len(sources) == 1
    # Programs read `choices[0]` of every chunk; only the usage, which one asks for, has none.
    assert [len(chunk.choices) for chunk in chunks] == [1] * (len(chunks) - 1) + [0]
    assert sources[0].choices[0].delta.content is None
    told = [chunk.model_extra["rag"] for chunk in chunks if chunk.model_extra and "rag" in chunk.model_extra]
    assert told == [{"status": "answered", "reasons": [], "degraded": [], "notices": []}]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "restore command" in text
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finishes[-1] == "stop"
    assert finishes.count("stop") == 1
    assert chunks[-1].usage is not None
    assert not chunks[-1].choices


class Breaking:
    """Says two words and breaks."""

    fingerprint = "breaking"

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        yield "A restore "
        raise GeneratorError("the line was cut to 10.0.0.7")


def test_an_error_in_mid_stream_raises_in_the_openai_sdk(make: Callable[..., Service]) -> None:
    with (
        listening(make(generator=Breaking())) as found,
        openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0) as sdk,
    ):
        stream = sdk.chat.completions.create(
            model="rag", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert "10.0.0.7" not in str(caught.value)


def test_embeddings_of_the_openai_sdk(sdk: openai.OpenAI, running: Running) -> None:
    said = sdk.embeddings.create(model="embedder", input=["whales", "backups"])  # asks for base64
    expected = running.service.rag(None, "").embedder.embed_documents(["whales", "backups"])
    assert np.array_equal(np.array([row.embedding for row in said.data], "f4"), expected)
    plain = sdk.embeddings.create(model="embedder", input="whales", encoding_format="float")
    assert np.allclose(plain.data[0].embedding, expected[0])
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="../../etc/passwd", input="x")


def test_models_of_the_openai_sdk(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["rag", "embedder"]
    with pytest.raises(openai.NotFoundError, match="no such model"):
        sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])


def test_rerank_of_the_cohere_sdk(running: Running) -> None:
    texts = ["The sea is wide.", "Restore a backup so.", "A backup of the sea."]
    with httpx.Client() as transport:
        sdk = cohere.ClientV2(api_key="none", base_url=running.url, httpx_client=transport)
        said = sdk.rerank(model="rerank-v3.5", query="restore a backup", documents=texts, top_n=2)
    assert [result.index for result in said.results] == [1, 2]
    assert said.results[0].relevance_score == 1.0
    assert said.meta is not None
    assert said.meta.api_version is not None
    assert said.meta.api_version.version == "2"


def test_rerank_of_tei(client: httpx.Client) -> None:
    asked = {"query": "a whale", "texts": ["a ship", "a whale"], "raw_scores": False, "return_text": True}
    said = client.post("/rerank", json=asked | {"truncate": True, "truncation_direction": "right"})
    assert [(row["index"], row["text"]) for row in said.json()] == [(1, "a whale"), (0, "a ship")]
    refused = client.post("/rerank", json={"query": "a", "texts": []})
    assert refused.status_code == 422
    assert set(refused.json()) == {"error", "error_type"}


def test_rerank_of_open_webui(client: httpx.Client) -> None:
    """It posts every document with `top_n` of them all, and sorts what comes back by index."""
    texts = ["one", "two whales", "", "whale " * 2_000]
    asked = {"model": "anything", "query": "whale", "documents": texts, "top_n": len(texts)}
    said = client.post("/v1/rerank", json=asked).json()
    rows = sorted(said["results"], key=lambda row: row["index"])
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert all(isinstance(row["relevance_score"], float) for row in rows)


def test_chat_of_open_webui(client: httpx.Client) -> None:
    """Its payload carries much that nobody here knows; its sources are read from a chunk of their own."""
    asked = {
        "stream": True,
        "model": "rag",
        "messages": [{"role": "user", "content": QUESTION}],
        "params": {},
        "tool_servers": [],
        "features": {"web_search": False},
        "chat_id": "1",
        "background_tasks": {"title_generation": True},
    }
    said = client.post("/v1/chat/completions", json=asked)
    assert said.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in said.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    (sources,) = [line for line in lines if '"sources"' in line]
    assert '"delta": {}' in sources


def test_tools_in_memory(make: Callable[..., Service]) -> None:
    service = make()
    try:
        asyncio.run(_use_tools(Tools(service).server()))
    finally:
        service.close()


def test_tools_over_http(running: Running) -> None:
    asyncio.run(_use_tools(f"{running.url}/mcp"))


def test_addresses_lead_into_their_collection(make: Callable[..., Service], tmp_path: Path) -> None:
    """A citation of another collection than the default names it; the page finds the document there alone."""
    (tmp_path / "bees.md").write_text("To restore a hive, run the smoker command.", encoding="utf-8")
    service = make(collections={"bees": tmp_path / "bees.index"})
    service.rag("bees", "").ingest(tmp_path / "bees.md")
    asked = [{"role": "user", "content": "How do I restore a hive?"}]
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=20) as client:
        for model, query in (("rag", ""), ("rag/bees", "?collection=bees")):
            said = client.post("/v1/chat/completions", json={"model": model, "messages": asked}).json()
            cited = said["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
            source = said["sources"][0]["source"]["url"]
            for url in (cited, source):
                place, _, characters = url.removeprefix(f"{found.url}/d/").partition("#")
                identity, mark, rest = place.partition("?")
                assert mark + rest == query
                assert client.get(f"/api/v1/documents/{identity}{query}").status_code == 200
                assert characters.replace("-", "").isdigit()
        for server, base in ((f"{found.url}/mcp", found.url), (Tools(service).server(), "crossrag:")):
            urls = asyncio.run(_addresses(server, "bees"))
            assert len(urls) == 3
            own = re.compile(re.escape(base) + r"/d/d[0-9a-f]{24}\?collection=bees#\d+-\d+")
            assert all(own.fullmatch(url) for url in urls), urls


async def _addresses(server: object, collection: str) -> list[str]:
    async with Client(server) as tools:  # type: ignore[arg-type]
        found = await tools.call_tool("search", {"query": "restore a hive", "collection": collection})
        first = found.structured_content["results"][0]
        whole = await tools.call_tool("fetch", {"id": first["id"], "collection": collection})
        answer = await tools.call_tool(
            "ask", {"question": "How do I restore a hive?", "collection": collection}
        )
        cited = answer.structured_content["sources"][0]
        return [first["url"], whole.structured_content["url"], cited["url"]]


async def _use_tools(server: object) -> None:
    async with Client(server) as tools:  # type: ignore[arg-type]
        listed = await tools.list_tools()
        assert {tool.name for tool in listed.tools} == {"search", "fetch", "ask", "list_collections"}
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in listed.tools)
        found = await tools.call_tool("search", {"query": "restore a backup"})
        first = found.structured_content["results"][0]
        assert first["title"].startswith("docs/backup.md")
        whole = await tools.call_tool("fetch", {"id": first["id"]})
        assert "every night at two" in whole.structured_content["text"]
        answer = await tools.call_tool("ask", {"question": QUESTION})
        assert "restore command" in answer.structured_content["answer"]
        refused = await tools.call_tool("fetch", {"id": "d" + "0" * 24})
        assert refused.is_error
        assert "/" not in str(refused.content[0])
