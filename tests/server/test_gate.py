"""Who may do what, by the table of routes; tenants; hosts and origins; sizes; names that are no paths."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.config import Settings
from crossrag.errors import ConfigError
from crossrag.server.app import create_app
from crossrag.server.auth import new_key
from crossrag.server.listening import check_closed
from crossrag.server_settings import ServerSettings

from .conftest import Running, listening, made

if TYPE_CHECKING:
    from crossrag.server.service import Service

PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/static/{name}"),
    ("GET", "/d/{document_id}"),
}
"""Said here once more, on purpose: whoever opens a route to everybody changes this too."""
ADMIN = {("GET", "/metrics")}
WRITES = {("POST", "/api/v1/documents"), ("DELETE", "/api/v1/documents/{document_id}")}
OTHER = "d" + "0" * 24
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    return {
        name: new_key(name, scope, tenant)  # type: ignore[arg-type]
        for name, scope, tenant in (
            ("reader", "read", ""),
            ("writer", "write", ""),
            ("admin", "admin", ""),
            ("blue", "write", "blue"),
            ("green", "write", "green"),
        )
    }


@pytest.fixture(scope="module")
def locked(keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with keys."""
    folder = tmp_path_factory.mktemp("locked")
    service = made(folder, keys=tuple(kept for _, kept in keys.values()), mcp_write=True)
    text = folder / "whales.txt"
    text.write_text("The blue whale is large.")
    service.rag(None, "").ingest(text)
    with listening(service) as found:
        yield found


def headers(keys: dict[str, Any], name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys[name][0]}"}


def routes(service: Service) -> list[tuple[str, str, str]]:
    return list(create_app(service).state.router.policies())


def test_every_route_is_authorised(locked: Running, keys: dict[str, Any]) -> None:
    table = routes(locked.service)
    assert len(table) > 20
    with httpx.Client(base_url=locked.url, timeout=20) as client:
        for method, path, policy in table:
            verb = "POST" if method == "*" else method
            url = path.replace("{document_id}", OTHER).replace("{name}", "x.js")
            where = f"{method} {path}"
            refused = [
                client.request(verb, url, headers=shown, content=b"{")
                for shown in (
                    {},
                    {"Authorization": "Bearer nonsense"},
                    {"Authorization": f"Basic {keys['writer'][0]}"},
                    {"x-api-key": keys["writer"][0]},
                )
            ]
            if (method, path) in PUBLIC:
                assert policy == "public", where
                assert all(reply.status_code in {200, 404} for reply in refused), where
                continue
            assert policy != "public", where
            assert [reply.status_code for reply in refused] == [401] * 4, where
            as_reader = client.request(verb, url, headers=headers(keys, "reader"))
            if (method, path) in WRITES | ADMIN:
                assert as_reader.status_code == 403, where
            else:
                assert as_reader.status_code not in {401, 403}, where
            if (method, path) in ADMIN:
                as_writer = client.request(verb, url, headers=headers(keys, "writer"))
                as_admin = client.request(verb, url, headers=headers(keys, "admin"))
                assert (as_writer.status_code, as_admin.status_code) == (403, 200), where


def test_a_route_without_a_policy_is_refused(make: Callable[..., Service]) -> None:
    service = make()
    app = create_app(service)
    app.add_api_route("/new", lambda: None)
    with pytest.raises(AssertionError, match="/new has no policy"):
        app.state.router.check()
    service.close()


def test_tenants_see_their_own_documents_alone(locked: Running, keys: dict[str, Any]) -> None:
    with httpx.Client(base_url=locked.url, timeout=20) as client:
        ids = {}
        for tenant in ("blue", "green"):
            file = {"files": ("secret.md", f"The {tenant} penguin swims well.")}
            row = client.post("/api/v1/documents", files=file, headers=headers(keys, tenant)).json()["files"][
                0
            ]
            assert row["status"] == "added"
            ids[tenant] = row["document_id"]
        for tenant, other in (("blue", "green"), ("green", "blue")):
            mine = headers(keys, tenant)
            for where in (None, {"tenant": other}, {"or": [{"tenant": other}, {"source": "secret.md"}]}):
                asked = {"query": f"{other} penguin", "top_k": 50, "where": where}
                text = client.post("/api/v1/search", json=asked, headers=mine).text
                assert f"{other} penguin swims" not in text
            assert client.get("/api/v1/documents", headers=mine).json()["total"] == 1
            foreign = f"/api/v1/documents/{ids[other]}"
            absent = f"/api/v1/documents/{OTHER}"
            for url in (foreign, absent, f"{foreign}/text", f"{absent}/text"):
                assert client.get(url, headers=mine).status_code == 404
            assert client.delete(foreign, headers=mine).status_code == 404
            judged = {
                "question": "x",
                "verdict": "up",
                "kind": "passage",
                "passages": [{"document_id": ids[other], "start": 0, "end": 5}],
            }
            assert client.post("/api/v1/feedback", json=judged, headers=mine).status_code == 404
            assert client.get("/api/v1/status", headers=mine).json()["collections"][0]["documents"] == 1
        assert (
            client.delete(f"/api/v1/documents/{ids['blue']}", headers=headers(keys, "blue")).status_code
            == 204
        )


def test_beyond_loopback_a_key_is_needed() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org"):  # noqa: S104
        with pytest.raises(ConfigError, match="no key"):
            check_closed(ServerSettings(host=host))
        check_closed(ServerSettings(host=host, insecure_no_auth=True))
        check_closed(ServerSettings(host=host, keys=(new_key("a", "read")[1],)))
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        check_closed(ServerSettings(host=host))


def test_other_hosts_and_origins_are_refused(client: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8777"):
        assert client.get("/api/v1/status", headers={"Host": host}).status_code == 421, host
    for host in ("localhost", "localhost:99", "127.0.0.1:1"):
        assert client.get("/api/v1/status", headers={"Host": host}).status_code == 200, host
    ask = {"query": "whale"}
    assert (
        client.post("/api/v1/search", json=ask, headers={"Origin": "http://evil.example"}).status_code == 403
    )
    assert client.post("/api/v1/search", json=ask, headers={"Origin": "null"}).status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.post("/api/v1/search", json=ask, headers={"Origin": own}).status_code == 200
    preflight = client.options("/api/v1/search", headers={"Access-Control-Request-Method": "POST"})
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_every_reply_has_the_safe_headers(client: httpx.Client) -> None:
    for path in ("/", "/api/v1/status", "/nothing", "/healthz"):
        found = client.get(path, headers={"X-Request-Id": "mine-1"}).headers
        assert found["x-request-id"] == "mine-1"
        assert "default-src 'self'" in found["content-security-policy"]
        assert found["x-content-type-options"] == "nosniff"
    assert (
        client.get("/healthz", headers={"X-Request-Id": "a\tb" * 40}).headers["x-request-id"] != "a\tb" * 40
    )


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/search", {"query": "x" * 1_000_000}, 413),
        ("/api/v1/search", {"query": "x", "top_k": 10**9}, 422),
        ("/api/v1/search", {"query": "x", "top_k": 101}, 422),
        ("/api/v1/search", {"query": "x", "where": {"a b": 1}}, 422),
        ("/api/v1/search", {"query": "x", "model": "/etc/passwd"}, 422),
        ("/api/v1/search", {"query": " \n "}, 422),
        ("/api/v1/search", {"query": "x", "timeout": -1}, 422),
        ("/api/v1/search", {"query": "x", "collection": "../x"}, 422),
        ("/api/v1/search", {"query": "x", "collection": "other"}, 404),
        ("/api/v1/answer", {"question": "x", "history": [{"role": "user", "text": "y"}] * 65}, 422),
        ("/v1/rerank", {"query": "x", "documents": ["a"] * 100_000}, 413),
        ("/rerank", {"query": "x", "texts": ["a"] * 1_001}, 413),
        ("/v1/chat/completions", {"model": "rag", "messages": []}, 422),
        ("/v1/embeddings", {"model": "embedder", "input": ["a"] * 257}, 413),
    ],
)
def test_limits(client: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    started = time.monotonic()
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text[:300]
    assert time.monotonic() - started < 2


def test_limits_of_bodies(client: httpx.Client) -> None:
    deep = b'{"query": "x", "where": ' + b'{"and": [' * 1_000 + b"]}" * 1_000 + b"}"
    json = {"Content-Type": "application/json"}
    assert client.post("/api/v1/search", content=deep, headers=json).status_code == 422
    assert client.post("/api/v1/search", content=b"[" * 100_000, headers=json).status_code == 422
    assert client.post("/api/v1/search", content=b'{"query": NaN}', headers=json).status_code == 422
    assert client.post("/api/v1/search", content=b'{"query": "\xff"}', headers=json).status_code in {400, 422}
    large = (b"x" * 65_536 for _ in range(64))
    assert client.post("/api/v1/search", content=large, headers=json).status_code == 413
    assert client.get("/api/v1/status", headers={f"x-{n}": "1" for n in range(120)}).status_code == 431
    assert client.get("/api/v1/documents", params={"contains": "x" * 9_000}).status_code == 414
    many = [("files", (f"{n}.md", "x")) for n in range(40)]
    assert client.post("/api/v1/documents", files=many).status_code == 400
    assert client.post("/api/v1/documents", data={"files": "text"}).status_code == 422


@pytest.mark.parametrize("path", ["/healthz", "/", "/static/main.js", "/openapi.json", "/nowhere"])
def test_a_body_that_nobody_reads_is_not_waited_for(locked: Running, path: str) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: 2000000\r\n\r\n[".encode()
        )
        status = int(line.recv(4_096).split(b" ")[1])
    assert status == (401 if path == "/nowhere" else 405)


def test_a_large_body_stops_nobody(client: httpx.Client) -> None:
    """2 MB that are one long word, and 2 MB of brackets: looked through beside the event loop."""
    word = b'{"query": "' + b"x" * 2_000_000 + b'"}'
    assert client.post("/api/v1/search", content=word, headers=JSON).status_code in {413, 422}
    brackets = b'{"query": "x", "where": [' + b"[]," * 600_000 + b"[]]}"
    assert client.post("/api/v1/search", content=brackets, headers=JSON).status_code == 422


def test_a_body_that_drips_is_cut_off(make: Callable[..., Service]) -> None:
    with listening(make(body_seconds=0.5)) as found:
        host, port = found.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(
                b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 100\r\n\r\n{"query"'
            )
            started = time.monotonic()
            assert b" 408 " in line.recv(4_096).split(b"\r\n")[0]
            assert time.monotonic() - started < 5


TRAVERSALS = [
    f"{prefix}{step * count}{target}"
    for prefix in ("", "/", "C:\\", "\\\\host\\", "file://", "~/")
    for step in ("../", "..\\", "..%2f", "....//", "\uff0e\uff0e\uff0f", "%2e%2e/")
    for count in (1, 3, 8)
    for target in ("x.md", "etc/passwd.md", "CON.md", "a\x00b.md", "." * 5 + "md")
]
ODD = [".", "..", ".md", "a" * 300 + ".md", "\u202egnp.md", "nul.md", "-rf.md"]


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.stress)])
def test_names_are_not_paths(make: Callable[..., Service], tmp_path: Path, step: int) -> None:
    names = [*TRAVERSALS[::step], *ODD]
    service = make(upload_files=1_000)
    with listening(service) as found, httpx.Client(base_url=found.url, timeout=60) as client:
        before = tree(tmp_path)
        for at in range(0, len(names), 250):
            parts = [("files", (name, "text", "text/plain")) for name in names[at : at + 250]]
            reply = client.post("/api/v1/documents", files=parts)
            assert reply.status_code == 200, reply.text[:300]
            for row in reply.json()["files"]:
                assert "/" not in row["name"]
                assert "\\" not in row["name"]
                assert "\x00" not in row["name"]
        uploads = tmp_path / "index" / "uploads" / "shared"
        new = tree(tmp_path) - before
        outside = {path for path in new if not path.is_relative_to(tmp_path / "index")}
        assert not outside
        named = {path.name for path in uploads.iterdir()}
        assert all(len(name) <= 40 and name.removesuffix(".md").isalnum() for name in named), named
        for name in names:
            for path in (f"/static/{name}", f"/d/{name}", f"/api/v1/documents/{name}"):
                try:
                    assert "root:" not in client.get(path).text
                except httpx.InvalidURL:
                    continue


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_settings_of_the_server_are_refused_when_wrong() -> None:
    with pytest.raises(ValueError, match="no name of a collection"):
        Settings.model_validate({"server": {"collections": {"../x": "y"}}})
