"""Everything that clients send to a service, good and bad, each with the statuses that may come back."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from .conftest import CORPUS

WORDS = [word for text in CORPUS.values() for word in text.replace("#", "").split()]
JSON = {"Content-Type": "application/json"}
MCP = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
BUSY = 429
LABELS = 12
"""Names of uploads: those that are there already are replaced."""
BROKEN = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"query": NaN}',
    b'{"query": "\xff"}',
    b'{"query": "\\ud800"}',
    b'{"query": "x", "top_k": "2"}',
    b'{"query": "x", "top_k": 1000000000}',
    b'{"query": "x", "where": {"a": null}}',
    b'{"query": "x", "nobody": "knows"}',
    b'{"question": "x", "history": 5}',
    b'{"query": "x", "where": ' + b'{"and": [' * 500 + b"]}" * 500 + b"}",
]


@dataclass
class Mixture:
    """One client, which sends each kind once, at random, and again; `odd` is what should not have come."""

    url: str
    chance: random.Random
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    deck: list[str] = field(default_factory=list)

    def run(self, client: httpx.Client) -> None:
        """Send one thing."""
        if not self.deck:
            self.deck = self.chance.sample(list(KINDS), len(KINDS))
        name = self.deck.pop()
        allowed, send = KINDS[name]
        status, text = send(self, client)
        self.seen[name, status] += 1
        if status not in {*allowed, BUSY}:
            self.odd.append(f"{name}: {status} {text[:300]}")

    def words(self, count: int = 5) -> str:
        """A question, most often a new one, so that its passages have to be read."""
        return " ".join(self.chance.choices(WORDS, k=count)) + "?"


Sent = tuple[int, str]
Send = Callable[[Mixture, httpx.Client], Sent]


def reply_of(reply: httpx.Response) -> Sent:
    return reply.status_code, reply.text


def post(path: str, body: Callable[[Mixture], Any], headers: dict[str, str] | None = None) -> Send:
    return lambda mix, client: reply_of(client.post(path, json=body(mix), headers=headers))


def get(*paths: str) -> Send:
    return lambda mix, client: reply_of(client.get(mix.chance.choice(paths)))


def broken(mix: Mixture, client: httpx.Client) -> Sent:
    path = mix.chance.choice(["/api/v1/search", "/api/v1/answer", "/v1/rerank", "/v1/chat/completions"])
    return reply_of(client.post(path, content=mix.chance.choice(BROKEN), headers=JSON))


def upload(mix: Mixture, client: httpx.Client) -> Sent:
    names = [f"{mix.chance.randrange(LABELS)}.md" for _ in range(mix.chance.randint(1, 3))]
    text = f"# {mix.words()}\n\n" + " ".join(mix.words(9) for _ in range(mix.chance.randint(1, 40)))
    return reply_of(client.post("/api/v1/documents", files=[("files", (name, text)) for name in names]))


def upload_of_rubbish(mix: Mixture, client: httpx.Client) -> Sent:
    name, content = mix.chance.choice(
        [
            ("a.pdf", mix.chance.randbytes(500)),
            ("a.exe", b"MZ"),
            ("empty.md", b""),
            ("../../x.html", b"<p>" * 200),
        ]
    )
    return reply_of(client.post("/api/v1/documents", files={"files": (name, content)}))


def delete(mix: Mixture, client: httpx.Client) -> Sent:
    """One of the uploaded ones, which another client may delete at the same time."""
    found = client.get("/api/v1/documents", params={"limit": 1000})
    if found.status_code != 200:
        return reply_of(found)
    ids = [row["id"] for row in found.json()["documents"] if row["uploaded"]]
    chosen = mix.chance.choice(ids or ["d" + "0" * 24])
    return reply_of(client.delete(f"/api/v1/documents/{chosen}"))


def cut_stream(mix: Mixture, client: httpx.Client) -> Sent:
    """The client leaves after a part of the answer."""
    native = {"question": mix.words(), "stream": True}
    chat = {"model": "rag", "stream": True, "messages": [{"role": "user", "content": mix.words()}]}
    path, body = mix.chance.choice([("/api/v1/answer", native), ("/v1/chat/completions", chat)])
    with client.stream("POST", path, json=body) as reply:
        pieces = reply.iter_bytes()
        for _ in range(mix.chance.randint(0, 2)):
            next(pieces, b"")
        return reply.status_code, ""


def vanish(mix: Mixture, _: httpx.Client) -> Sent:
    """The line is cut while the request is sent, or before its reply."""
    body = httpx.Request("POST", mix.url, json={"query": mix.words()}).content
    head = head_of("/api/v1/search", "application/json", len(body))
    whole = head + body
    return hang_up(mix, whole[: mix.chance.choice([10, len(head) + 5, len(whole), len(whole)])])


def cut_upload(mix: Mixture, _: httpx.Client) -> Sent:
    """A large file that never arrives as a whole."""
    head = head_of("/api/v1/documents", "multipart/form-data; boundary=b", 5_000_000)
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="cut.md"\r\n\r\n'
    return hang_up(mix, head + part + b"x" * mix.chance.choice([0, 100_000, 1_500_000]))


def head_of(path: str, kind: str, length: int) -> bytes:
    lines = ["Host: localhost", f"Content-Type: {kind}", f"Content-Length: {length}"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode()


def hang_up(mix: Mixture, sent: bytes) -> Sent:
    place = urlsplit(mix.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as line:
        line.sendall(sent)
    return 200, ""


def call(name: str, arguments: Callable[[Mixture], dict[str, Any]]) -> Send:
    return post(
        "/mcp",
        lambda mix: {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": name, "arguments": arguments(mix)},
        },
        MCP,
    )


def conversation(mix: Mixture) -> dict[str, Any]:
    said = [{"role": role, "content": mix.words()} for role in ("user", "assistant", "user")]
    return {
        "model": "rag",
        "messages": said[mix.chance.choice([0, 2]) :],
        "stream": mix.chance.random() < 0.5,
    }


KINDS: dict[str, tuple[set[int], Send]] = {
    "search": ({200}, post("/api/v1/search", lambda mix: {"query": mix.words(), "explain": True})),
    "filtered": (
        {200},
        post("/api/v1/search", lambda mix: {"query": mix.words(), "where": {"source": {"prefix": "b"}}}),
    ),
    "answer": ({200}, post("/api/v1/answer", lambda mix: {"question": mix.words()})),
    "stream": ({200}, post("/api/v1/answer", lambda mix: {"question": mix.words(), "stream": True})),
    "hurried": ({200, 504}, post("/api/v1/answer", lambda mix: {"question": mix.words(), "timeout": 0.01})),
    "chat": ({200}, post("/v1/chat/completions", conversation)),
    "rerank": (
        {200},
        post(
            "/v1/rerank",
            lambda mix: {"query": mix.words(), "documents": [mix.words(9) for _ in range(8)]},
        ),
    ),
    "embed": ({200}, post("/v1/embeddings", lambda mix: {"model": "embedder", "input": [mix.words()] * 3})),
    "mcp search": ({200}, call("search", lambda mix: {"query": mix.words()})),
    "mcp nothing": ({200}, call("no_such_tool", lambda _: {})),
    "mcp rubbish": ({400, 422}, post("/mcp", lambda _: {"jsonrpc": "1.0"}, MCP)),
    "thumb": (
        {201},
        post(
            "/api/v1/feedback",
            lambda mix: {"question": mix.words(), "verdict": "up", "kind": "answer"},
        ),
    ),
    "upload": ({200}, upload),
    "upload of rubbish": ({200}, upload_of_rubbish),
    "cut upload": ({200}, cut_upload),
    "delete": ({204, 403, 404}, delete),
    "look": (
        {200},
        get("/api/v1/documents", "/api/v1/status", "/metrics", "/healthz", "/readyz", "/", "/static/main.js"),
    ),
    "not there": ({404, 405}, get("/nothing", "/api/v1/answer", "/static/x", "/api/v1/documents/dx/text")),
    "other collection": (
        {404},
        post("/api/v1/search", lambda mix: {"query": mix.words(), "collection": "x"}),
    ),
    "broken": ({400, 422}, broken),
    "too large": ({413}, post("/api/v1/search", lambda _: {"query": "x" * 3_000_000})),
    "cut stream": ({200}, cut_stream),
    "vanish": ({200}, vanish),
}
"""Name -> the statuses that are right, beside 429, and how it is sent."""
