"""The first request is as quick as the next ones (promise 40), and long use changes nothing (39)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from crossrag import Settings
from crossrag.config import IndexSettings
from crossrag.server.service import Service

from .conftest import CORPUS, listening, wait_until
from .mixture import KINDS, Mixture

QUESTION = "How do I restore a backup?"
CLIENTS = 4
"""One more than the server has permits."""
SAMPLES = 60
SLACK = 3
"""Files, threads or processes that one more or less of a request makes."""
ENOUGH = 2_000
"""Requests: models keep the memory of their largest batch, so that it grows until they have met it."""
MEMORY = 8 * 2**20
"""Bytes that what is held may differ by, from the second third of the time to the last."""


def test_nothing_is_loaded_once_the_server_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import tokenizers

    (tmp_path / "backup.md").write_text("To restore a backup, run the restore command.")
    service = Service(Settings(index=IndexSettings(path=tmp_path / "index")))
    service.rag(None, "").ingest(tmp_path / "backup.md")
    with listening(service) as found:

        def loaded(*_: object, **__: object) -> None:
            raise AssertionError("a model is loaded by a request")

        monkeypatch.setattr(onnxruntime, "InferenceSession", loaded)
        monkeypatch.setattr(tokenizers.Tokenizer, "from_file", loaded, raising=False)
        reply = httpx.post(f"{found.url}/api/v1/answer", json={"question": QUESTION}, timeout=60)
        assert reply.json()["degraded"] == []
        assert "restore command" in reply.json()["text"]


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    memory: int
    """Resident bytes."""
    files: int
    threads: int
    children: int

    @classmethod
    def by(cls, process: int) -> Held:
        """As the system counts it."""
        place = Path(f"/proc/{process}")
        status = (place / "status").read_text(encoding="ascii")
        threads = list((place / "task").iterdir())
        return cls(
            memory=1024 * int(status.split("VmRSS:")[1].split()[0]),
            files=len(list((place / "fd").iterdir())),
            threads=len(threads),
            children=sum(len(children(one)) for one in threads),
        )


def children(thread: Path) -> list[str]:
    """Processes that a thread has started and that have not ended."""
    try:
        return (thread / "children").read_text(encoding="ascii").split()
    except OSError:  # it has ended since it was listed
        return []


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """`crossrag serve` with the bundled models, in a process of its own: ends well, logs no failure."""
    (folder / "docs").mkdir()
    for name, text in CORPUS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "crossrag"]
    index = ["--index", str(folder / "index")]
    subprocess.run([*command, "ingest", str(folder / "docs"), *index], check=True, capture_output=True)
    limits = {"concurrency": CLIENTS - 1, "feedback_per_minute": 1_000_000}
    settings = [part for name, value in limits.items() for part in ("--set", f"server.{name}={value}")]
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen([*command, "serve", *index, "--port", "0", *settings], stderr=file)
    try:
        wait_until(lambda: "Listening at" in log.read_text(), 60)
        url = log.read_text().split("Listening at ")[1].split(" ")[0]
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 60)
        yield url, server.pid
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
        lines = log.read_text().splitlines()
        assert [line for line in lines if "failed kind=" in line or "Traceback" in line] == []
    finally:
        server.kill()
        server.wait()


def figure(url: str, name: str) -> float:
    """One of `/metrics`."""
    (line,) = [row for row in httpx.get(f"{url}/metrics").text.splitlines() if row.startswith(f"{name} ")]
    return float(line.split()[1])


def busy(mixture: Mixture, until: float) -> None:
    """One client until then, with a new connection for every round; the first round is sent whole."""
    is_first = True
    while is_first or time.monotonic() < until:
        with httpx.Client(base_url=mixture.url, timeout=60) as client:
            for _ in KINDS:
                if is_first or time.monotonic() < until:
                    mixture.run(client)
        is_first = False


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
@pytest.mark.parametrize("seconds", [6.0, pytest.param(600.0, marks=pytest.mark.stress)])
def test_minutes_of_mixed_requests_leave_nothing_behind(tmp_path: Path, seconds: float) -> None:
    is_long = seconds > 60
    seconds = float(os.environ.get("STRESS_SECONDS", seconds)) if is_long else seconds
    seed = int(os.environ.get("STRESS_SEED", "20261124"))
    print(f"seed {seed}, {seconds:.0f} s")
    measured: list[Held] = []
    with serving(tmp_path) as (url, process), ThreadPoolExecutor(CLIENTS) as threads:
        mixtures = [Mixture(url, random.Random(seed + number)) for number in range(CLIENTS)]  # noqa: S311
        busy(mixtures[0], 0)  # one round, so that all was used when measuring begins
        until = time.monotonic() + seconds
        clients = [threads.submit(busy, mixture, until) for mixture in mixtures]
        while not all(client.done() for client in clients):
            time.sleep(seconds / SAMPLES)
            measured.append(Held.by(process))
        for client in clients:
            client.result()
        odd = [line for mixture in mixtures for line in mixture.odd]
        seen = sum((mixture.seen for mixture in mixtures), Counter[tuple[str, int]]())
        print(dict(sorted(seen.items())))
        assert odd == []
        wait_until(lambda: figure(url, "crossrag_running") == figure(url, "crossrag_waiting") == 0)
        # And all of it still works.
        with ThreadPoolExecutor(CLIENTS - 1) as all_at_once:
            asked = {"question": QUESTION}
            ends = all_at_once.map(
                lambda _: httpx.post(f"{url}/api/v1/answer", json=asked, timeout=60), range(2 * CLIENTS)
            )
            assert {reply.status_code for reply in ends} == {200}
    assert {name for name, _ in seen} == set(KINDS)
    is_enough = seen.total() >= ENOUGH
    if is_long and not is_enough:
        print(f"NOT TESTED: memory; {seen.total()} requests are no more than warming up")
    check_flat(measured, bounds=is_long and is_enough)


def check_flat(measured: list[Held], *, bounds: bool) -> None:
    """What is held in the end is what was held once all was warm; `bounds`: memory too."""
    warm, end = measured[len(measured) // 3 : 2 * len(measured) // 3], measured[2 * len(measured) // 3 :]

    def grown(read: Callable[[Held], int]) -> float:
        return float(np.median([read(one) for one in end]) - np.median([read(one) for one in warm]))

    memory = grown(lambda one: one.memory)
    print(f"memory {end[-1].memory / 1e6:.0f} MB, grown by {memory / 1e6:.1f} MB; {end[-1]}")
    assert grown(lambda one: one.files) <= SLACK, "open files"
    assert grown(lambda one: one.threads) <= SLACK, "threads"
    assert grown(lambda one: one.children) <= SLACK, "processes"
    assert memory <= MEMORY or not bounds, "memory"


@pytest.mark.parametrize("name", ["memory", "files", "threads", "children"])
def test_what_grows_is_seen(name: str) -> None:
    rising = {name: 40 * (2**20 if name == "memory" else 1)}
    level = Held(memory=400 * 2**20, files=30, threads=20, children=1)
    steps = [
        replace(level, **{key: getattr(level, key) + n * by // 30 for key, by in rising.items()})
        for n in range(30)
    ]
    check_flat([level] * 30, bounds=True)
    with pytest.raises(AssertionError):
        check_flat(steps, bounds=True)
