"""Too much to do, clients that leave, time that is up, health, the order to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.errors import ModelError
from crossrag.server.admission import Admission, Overloaded
from crossrag.server.tickets import current
from crossrag.testing import OverlapReranker

from .conftest import Running, listening, wait_until

if TYPE_CHECKING:
    from crossrag.server.service import Service
    from crossrag.types import Context, Relevance, Turn

ASK = {"query": "a blue whale"}
QUESTION = {"question": "How large is the blue whale?", "stream": True}


class SlowReranker(OverlapReranker):
    """Takes its time in small steps, and stops when nobody waits; counts the steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, 0

    def score(self, query: str, texts: Sequence[str], **arguments: Any) -> Relevance:
        # What no request asks for is the warming up.
        until = time.monotonic() + (self.seconds if current() else 0)
        while time.monotonic() < until:
            time.sleep(0.005)
            self.steps += 1
            if (ticket := current()) is not None:
                ticket.check()
        return super().score(query, texts, **arguments)


class EndlessGenerator:
    """Speaks until it is closed."""

    fingerprint = "endless"

    def __init__(self) -> None:
        self.open = 0

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        self.open += 1
        try:
            while True:
                time.sleep(0.01)
                yield "word "
        finally:
            self.open -= 1


async def many(
    url: str, count: int, body: dict[str, Any], seconds: float
) -> tuple[list[tuple[int, float, str]], float]:
    """`count` clients, each asking one question after the other: status, seconds, Retry-After.

    The last number is the median time of a request that does nothing, sent by those who were refused.
    """
    found: list[tuple[int, float, str]] = []
    plain: list[float] = []
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=count)

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            reply = await http.post(f"{url}/api/v1/search", json=body)
            found.append(
                (reply.status_code, time.monotonic() - started, reply.headers.get("retry-after", ""))
            )
            if reply.status_code != 200:
                started = time.monotonic()
                await http.get(f"{url}/healthz")
                plain.append(time.monotonic() - started)
                await asyncio.sleep(0.1)

    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        await asyncio.gather(*(client(http) for _ in range(count)))
    return found, sorted(plain)[len(plain) // 2] if plain else 0.0


@pytest.mark.parametrize(
    ("seconds", "clients"), [(2.0, 24), pytest.param(60.0, 200, marks=pytest.mark.stress)]
)
def test_overload_is_bounded(make: Callable[..., Service], seconds: float, clients: int) -> None:
    budget, work = 0.5, 0.1
    service = make(reranker=SlowReranker(work), concurrency=2, queue_seconds=budget)
    with listening(service) as found:
        asyncio.run(many(found.url, 1, ASK, 0.5))
        replies, nothing = asyncio.run(many(found.url, clients, ASK, seconds))
        counts = Counter(status for status, _, _ in replies)
        print(counts)
        assert set(counts) == {200, 429}
        assert all(after and int(after) >= 1 for status, _, after in replies if status == 429)
        refused = sorted(took for status, took, _ in replies if status == 429)
        served = sorted(took for status, took, _ in replies if status == 200)
        # The clients share processor and lock with the server, so that even doing nothing takes its time.
        print(f"refused in {refused[len(refused) // 2]:.3f} s, nothing done in {nothing:.3f} s")
        assert refused[len(refused) // 2] < 0.1 + 2 * nothing
        assert served[-1] < budget + 2 * work + 1.0 + 10 * nothing
        wait_until(lambda: service.admission.running == service.admission.waiting == 0)
        ((status, took, _), *_), _ = asyncio.run(many(found.url, 1, ASK, 1.0))
        assert status == 200
        assert took < 5 * work + 1


def test_keys_take_turns() -> None:
    """One key with many requests, another with few: these start at once, or after one that is at work."""

    async def run() -> tuple[int, list[float]]:
        admission = Admission(permits=2, queue_seconds=1_000)
        ended = 0

        async def work(key: str) -> float:
            nonlocal ended
            started = time.monotonic()
            async with admission.permit(key):
                waited = time.monotonic() - started
                await asyncio.sleep(0.01)
                ended += key == "many"
                return waited

        busy = [asyncio.create_task(work("many")) for _ in range(200)]
        await asyncio.sleep(0.05)
        waits = [await work("few") for _ in range(10)]
        before = ended
        await asyncio.gather(*busy)
        assert admission.running == admission.waiting == 0
        return before, waits

    before, waits = asyncio.run(run())
    assert before < 150
    assert sorted(waits)[5] < 0.02


def test_a_burst_before_anything_is_known_is_bounded() -> None:
    """One model on few cores answers four a second, whatever the permits: what waits must be of it."""

    async def run() -> tuple[int, float]:
        admission = Admission(permits=16, queue_seconds=5)
        asked = [asyncio.create_task(admission.enter("a")) for _ in range(200)]
        await asyncio.sleep(0)
        waiting, known = admission.waiting, admission.interval
        for task in asked:
            task.cancel()
        said = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, Overloaded) for one in said) >= 160
        await admission.enter("b")
        admission.leave("b")
        assert admission.interval < known / 1.9, "the first to end says more than a guess"
        return waiting, known

    waiting, known = asyncio.run(run())
    assert waiting <= 20
    assert known == 0.25


def test_who_is_done_first_does_not_hide_how_long_the_last_must_wait() -> None:
    """Eight at work share a processor and are done one after the other: what the first took is no measure."""

    async def run() -> float:
        admission = Admission(permits=8, queue_seconds=1)
        for _ in range(6):
            await admission.enter("a")
        for _ in range(6):
            await asyncio.sleep(0.1)
            admission.leave("a")
        return admission.interval

    assert 0.1 <= asyncio.run(run()) < 0.2


def test_a_rest_is_no_work() -> None:
    async def run() -> float:
        admission = Admission(permits=2, queue_seconds=1)
        for _ in range(3):
            async with admission.permit("a"):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
        return admission.interval

    assert asyncio.run(run()) < 0.2


def test_admission_keeps_no_count_of_who_gave_up() -> None:
    async def run() -> None:
        admission = Admission(permits=1, queue_seconds=100)
        await admission.enter("a")
        waiting = [asyncio.create_task(admission.enter("b")) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[:4]:
            task.cancel()
        await asyncio.sleep(0)
        assert admission.waiting == 1
        admission.leave("a")
        waiting[4].cancel()  # its turn has come, and it does not know yet
        await asyncio.gather(*waiting, return_exceptions=True)
        assert admission.running == admission.waiting == 0
        tight = Admission(permits=1, queue_seconds=0.1)
        await tight.enter("a")
        with pytest.raises(Overloaded):
            await tight.enter("a")

    asyncio.run(run())


@pytest.mark.parametrize("body", [QUESTION, ASK], ids=["stream", "whole"])
def test_who_leaves_frees_everything(make: Callable[..., Service], body: dict[str, Any]) -> None:
    reranker, generator = SlowReranker(0.0 if body is QUESTION else 30.0), EndlessGenerator()
    service = make(reranker=reranker, generator=generator, concurrency=8, queue_seconds=1_000)
    path = "/api/v1/answer" if body is QUESTION else "/api/v1/search"
    with listening(service) as found:
        host, port = found.url.removeprefix("http://").split(":")
        text = httpx.Request("POST", found.url, json=body).content
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n"
        ).encode()
        lines = [socket.create_connection((host, int(port))) for _ in range(20)]
        for line in lines:
            line.sendall(head + text)
        wait_until(lambda: service.admission.running >= 6)
        for line in lines:
            line.close()
        wait_until(lambda: service.admission.running == service.admission.waiting == 0, 5)
        wait_until(lambda: generator.open == 0, 2)

        def still() -> bool:
            """Requests that arrived with their sender's farewell may begin before that is read."""
            steps = reranker.steps
            time.sleep(0.1)
            return reranker.steps == steps

        wait_until(still, 5)
        assert service.admission.running == service.admission.waiting == 0
        assert httpx.get(f"{found.url}/readyz").status_code == 200


def test_time_that_is_up(make: Callable[..., Service]) -> None:
    with listening(make(reranker=SlowReranker(30.0), generator=EndlessGenerator())) as found:
        for path, body in (("search", ASK), ("answer", {"question": "a whale", "stream": False})):
            started = time.monotonic()
            reply = httpx.post(f"{found.url}/api/v1/{path}", json=body | {"timeout": 0.5}, timeout=20)
            # What was found so far, and that is said; or nothing was.
            assert reply.status_code in {200, 504}
            if reply.status_code == 200:
                assert reply.json()["degraded"]
            else:
                assert reply.json()["code"] == "timeout"
            assert 0.4 <= time.monotonic() - started < 1.5


def test_an_index_that_is_too_slow_is_time_that_is_up(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    index = service.rag(None, "").index
    search = index.search

    def slowly(*asked: Any, **rest: Any) -> Any:
        time.sleep(1)
        return search(*asked, **rest)

    with listening(service) as found:
        monkeypatch.setattr(index, "search", slowly)
        reply = httpx.post(f"{found.url}/api/v1/search", json=ASK | {"timeout": 0.3}, timeout=20)
        assert (reply.status_code, reply.json()["code"]) == (504, "timeout")
        assert "longer timeout" in reply.json()["hint"]


def test_a_stream_ends_in_time_and_with_one_last_event(make: Callable[..., Service]) -> None:
    with listening(make(generator=EndlessGenerator())) as found:
        started = time.monotonic()
        reply = httpx.post(f"{found.url}/api/v1/answer", json=QUESTION | {"timeout": 2}, timeout=20)
        assert time.monotonic() - started < 5
        names = [
            line.removeprefix("event: ") for line in reply.text.split("\n") if line.startswith("event: ")
        ]
        assert names[0] == "retrieved"
        assert names[-1] in {"error", "done"}
        assert names.count("error") + names.count("done") == 1


def test_silence_is_filled_with_comments(make: Callable[..., Service]) -> None:
    class Silent:
        fingerprint = "silent"

        def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
            time.sleep(0.5)
            yield "At last [1]."

    with listening(make(generator=Silent(), heartbeat_seconds=0.1)) as found:
        reply = httpx.post(f"{found.url}/api/v1/answer", json=QUESTION)
        assert 2 <= reply.text.count(": ping\n\n") <= 5
        assert "event: done" in reply.text


def test_health_is_honest(make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    service = make()
    started = threading.Event()
    real = service.warm_up
    monkeypatch.setattr(service, "warm_up", lambda: (started.wait(10), real()))
    with listening_early(service) as found:
        wait_until(lambda: answers(found.url))
        assert httpx.get(f"{found.url}/healthz").status_code == 200
        assert httpx.get(f"{found.url}/readyz").status_code == 503
        started.set()
        wait_until(lambda: httpx.get(f"{found.url}/readyz").status_code == 200)

        def broken() -> None:
            raise ModelError("the store at /secret/place is gone")

        monkeypatch.setattr(service, "check", broken)
        reply = httpx.get(f"{found.url}/readyz")
        assert reply.status_code == 503
        assert "/secret" not in reply.text
        assert httpx.get(f"{found.url}/healthz").status_code == 200
        monkeypatch.undo()
        assert httpx.get(f"{found.url}/readyz").status_code == 200


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def listening_early(service: Service) -> Any:
    """As `listening`, without waiting for the models."""
    from contextlib import contextmanager

    import uvicorn

    from crossrag.server.app import create_app

    @contextmanager
    def serve() -> Iterator[Running]:
        taken = socket.socket()
        taken.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            yield Running(f"http://127.0.0.1:{taken.getsockname()[1]}", service)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            taken.close()

    return serve()


def test_the_order_to_stop(tmp_path: Path) -> None:
    """SIGTERM: a running request ends well, the code is 0, and the next process gets the index."""
    command = [sys.executable, "-m", "crossrag"]
    index = ["--index", str(tmp_path / "index")]
    plain = ["--set", "verification.model=none"]
    (tmp_path / "whales.txt").write_text("The blue whale is the largest animal.")
    subprocess.run(
        [*command, "ingest", str(tmp_path / "whales.txt"), *index], check=True, capture_output=True
    )
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen([*command, "serve", *index, "--port", "0", *plain], stderr=file)
    try:
        wait_until(lambda: "Listening at" in log.read_text(), 60)
        url = log.read_text().split("Listening at ")[1].split(" ")[0]
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 60)
        reply = httpx.post(f"{url}/api/v1/answer", json={"question": "Which animal is largest?"}, timeout=60)
        assert "blue whale" in reply.json()["text"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.wait()
    done = subprocess.run([*command, "status", *index], check=True, capture_output=True, text=True)
    assert "1 documents" in done.stdout
    assert (tmp_path / "index" / "scores.sqlite").is_file(), "the cache is on by default"
