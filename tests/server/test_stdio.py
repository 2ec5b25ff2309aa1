"""`crossrag mcp` over stdio: a client's whole way, and what is no JSON-RPC does not end it (promise 50)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

import crossrag

from .test_service import QUESTION


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stdio")
    (folder / "backup.md").write_text("To restore a backup, stop the service and run the restore command.")
    command = [sys.executable, "-m", "crossrag", "ingest", str(folder / "backup.md")]
    subprocess.run([*command, "--index", str(folder / "index")], check=True, capture_output=True)
    return folder / "index"


def test_a_client_over_stdio(index: Path) -> None:
    async def use() -> None:
        arguments = ["-m", "crossrag", "mcp", "--index", str(index)]
        server = StdioServerParameters(command=sys.executable, args=arguments)
        async with Client(stdio_client(server)) as tools:
            listed = await tools.list_tools()
            assert {tool.name for tool in listed.tools} == {"search", "fetch", "ask", "list_collections"}
            found = await tools.call_tool("search", {"query": QUESTION})
            first = found.structured_content["results"][0]
            whole = await tools.call_tool("fetch", {"id": first["id"]})
            assert "restore command" in whole.structured_content["text"]
            answer = await tools.call_tool("ask", {"question": QUESTION})
            assert "restore command" in answer.structured_content["answer"]
            for name, wrong in (
                ("fetch", {"id": "d" + "0" * 24}),
                ("search", {"query": "x", "collection": "no"}),
                ("add_document", {"name": "a.md", "text": "x"}),
            ):
                refused = await tools.call_tool(name, wrong)
                assert refused.is_error
                assert str(index.parent) not in str(refused.content)

    asyncio.run(use())


def test_a_client_that_leaves_is_no_error(index: Path) -> None:
    command = [sys.executable, "-m", "crossrag", "mcp", "--index", str(index)]
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        server.stdin.write(f"{line}\n".encode())
        server.stdin.flush()
        said = json.loads(server.stdout.readline())
        assert said["result"]["serverInfo"]["version"] == crossrag.__version__
        server.stdout.close()
        server.stdin.write(f"{line}\n".encode())
        server.stdin.close()
        told = server.stderr.read().decode()
        assert server.wait(60) == 0, told
        assert "not foreseen" not in told


def test_what_is_no_json_rpc_does_not_end_it(index: Path) -> None:
    command = [sys.executable, "-m", "crossrag", "mcp", "--index", str(index)]
    ask = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    ask["params"] = {"name": "list_collections", "arguments": {}}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        b"not json",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"jsonrpc": "1.0"}',
        b'{"jsonrpc": "2.0", "id": {}, "method": 5}',
        b"[" * 5_000,
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode(),
        b"more of it",
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        json.dumps(ask).encode(),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(b"\n".join(lines) + b"\n")
            server.stdin.flush()
            for line in server.stdout:
                said = json.loads(line)
                if said.get("id") == 7:
                    assert "default" in json.dumps(said["result"])
                    break
            else:
                pytest.fail("it ended without an answer")
        finally:
            server.kill()
