"""Searches through the server: per second and how long, alone and many at once; shared batches; overload.

    python bench/serve.py --data ../shared/data/ir/dev/scifact --documents 10000

One process serves, another asks, both on this machine and sharing its cores; the score cache is off.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from common import head, printed, sample, write

CLIENTS = (1, 4, 16, 64)


def main() -> None:
    """Parse, index, serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of a BEIR set")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each number of clients")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of it; 0 = none")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    parser.add_argument(
        "--peer", action="store_true", help="LangChain behind FastAPI, too (requirements.txt)"
    )
    parser.add_argument("--index", type=Path, help="keep the index here, and use it if it is there")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        index = arguments.index or Path(made) / "index"
        if not index.is_dir():
            _ingest(arguments.data, index, Path(made) / "documents", arguments.documents)
        questions = [json.loads(line)["text"] for line in _lines(arguments.data / "queries.jsonl")]
        lines = _report(arguments, index, sample(questions, 1_000))
        write((line for one in lines for line in printed((one,))), arguments.out)


def _report(arguments: argparse.Namespace, index: Path, questions: list[str]) -> Iterator[str]:
    yield from head(len(questions))
    yield "| way | clients | answers/s | p50 s | p95 s | p99 s | other replies |"
    yield "|---|---|---|---|---|---|---|"
    many = {"server.queue_seconds": "3600", "server.concurrency": "16"}
    served: dict[tuple[str, int], float] = {}
    for way, settings in (("shared", many), ("one at a time", many | {"server.concurrency": "1"})):
        for clients in arguments.clients:
            with _serving(index, settings) as (url, _):
                found = asyncio.run(_ask(url, questions, clients, arguments.seconds))
            served[way, clients] = _rate(found, arguments.seconds)
            yield f"| {way} | {clients} | {_row(found, arguments.seconds)} |"
    if arguments.peer:
        for clients in arguments.clients:
            with _peer(index) as url:
                found = asyncio.run(_ask(url, questions, clients, arguments.seconds, peer=True))
            yield f"| FastAPI and LangChain | {clients} | {_row(found, arguments.seconds)} |"
    yield ""
    ratios = (
        f"{served['shared', clients] / max(1e-9, served['one at a time', clients]):.2f} at {clients}"
        for clients in arguments.clients
    )
    yield f"Shared batches against one at a time, by number of clients: {', '.join(ratios)}."
    if arguments.overload:
        yield ""
        yield from _overload(index, questions, 10 * max(served.values()), arguments.overload)


def _overload(index: Path, questions: list[str], rate: float, seconds: float) -> Iterator[str]:
    with _serving(index, {"server.queue_seconds": "5"}) as (url, process):
        asyncio.run(_ask(url, questions, 1, 5))
        memory = [_memory(process)]
        found = asyncio.run(_arrive(url, questions, rate, seconds, lambda: memory.append(_memory(process))))
        after = asyncio.run(_ask(url, questions, 1, 10))
    refused = sorted(took for status, took in found if status in {429, 503})
    counts = dict(sorted(Counter(status for status, _ in found).items()))
    yield f"Overload, ten times as many as can be served ({rate:.0f} a second) for {seconds:.0f} s,"
    yield f"at most 5 s of queue: {counts};"
    if refused:
        yield f"refused in p50 {_at(refused, 0.5):.3f} s, p99 {_at(refused, 0.99):.3f} s;"
    yield f"served | {_row(found, seconds)} |;"
    quarter = max(memory[: max(1, len(memory) // 4)])
    yield (
        f"memory {memory[0] / 1e6:.0f} MB before, at most {quarter / 1e6:.0f} MB in the first quarter and"
        f" {max(memory) / 1e6:.0f} MB at all;"
    )
    yield f"one client afterwards | {_row(after, 10)} |."


async def _ask(
    url: str, questions: list[str], clients: int, seconds: float, *, peer: bool = False
) -> list[tuple[int, float]]:
    """Status and seconds of every reply."""
    found: list[tuple[int, float]] = []
    until = time.monotonic() + seconds
    following = iter(range(10**9))

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            question = questions[next(following) % len(questions)]
            reply = await _reply(http, url, question, peer=peer)
            found.append(reply)
            if reply[0] != 200:
                await asyncio.sleep(0.2)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return found


async def _arrive(
    url: str, questions: list[str], rate: float, seconds: float, watch: Callable[[], None]
) -> list[tuple[int, float]]:
    """As `_ask`, but a request comes when its time has come, whatever became of those before it."""
    found: list[tuple[int, float]] = []
    began = time.monotonic()

    async def one(http: httpx.AsyncClient, number: int) -> None:
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        found.append(await _reply(http, url, questions[number % len(questions)]))

    async def watching() -> None:
        while True:
            watch()
            await asyncio.sleep(1)

    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=1_000)) as http:
        watched = asyncio.ensure_future(watching())
        await asyncio.gather(*(one(http, number) for number in range(int(rate * seconds))))
        watched.cancel()
    return found


async def _reply(
    http: httpx.AsyncClient, url: str, question: str, *, peer: bool = False
) -> tuple[int, float]:
    """Status and seconds of one."""
    started = time.monotonic()
    path, body = ("invoke", {"input": question}) if peer else ("api/v1/search", {"query": question})
    reply = await http.post(f"{url}/{path}", json=body)
    return reply.status_code, time.monotonic() - started


def _row(found: list[tuple[int, float]], seconds: float) -> str:
    served = sorted(took for status, took in found if status == 200)
    others = len(found) - len(served)
    if not served:
        return f"0 | | | | {others}"
    times = " | ".join(f"{_at(served, share):.2f}" for share in (0.5, 0.95, 0.99))
    return f"{_rate(found, seconds):.2f} | {times} | {others}"


def _rate(found: list[tuple[int, float]], seconds: float) -> float:
    """Answers per second of the time, or of that of the slowest answer where it is longer."""
    served = [took for status, took in found if status == 200]
    return len(served) / max([seconds, *served])


def _at(numbers: list[float], share: float) -> float:
    return numbers[min(len(numbers) - 1, int(share * len(numbers)))]


@contextmanager
def _serving(index: Path, settings: dict[str, str]) -> Iterator[tuple[str, int]]:
    said = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command = [
        *(sys.executable, "-m", "crossrag", "serve", "--index", str(index), "--port", "0"),
        *("--set", "server.score_cache=false", "--set", "verification.model=none"),
        *said,
    ]
    with _started(command) as running:
        yield running


@contextmanager
def _peer(index: Path) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("serve_peer.py")), "--index", str(index)]
    with _started(command) as (url, _):
        yield url


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[str, int]]:
    """Where it listens, and its number."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            url = _address(log.fileno(), process)
            while httpx.get(f"{url}/readyz").status_code != 200:
                time.sleep(0.1)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()


def _memory(process: int) -> int:
    """Bytes that it holds, as Linux counts them."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return 1024 * int(text.split("VmRSS:")[1].split()[0])


def _address(log: int, process: subprocess.Popen[bytes]) -> str:
    import os

    while True:
        text = os.pread(log, 65_536, 0).decode()
        if process.poll() is not None:
            raise SystemExit(f"It did not start: {text}")
        if "Listening at " in text and " (Ctrl-C" in text:
            return text.split("Listening at ")[1].split(" ")[0]
        time.sleep(0.05)


def _lines(file: Path) -> Iterator[str]:
    """Of a file or of the same one packed."""
    packed = file.with_name(f"{file.name}.gz")
    with (
        gzip.open(packed, "rt", encoding="utf-8")
        if packed.is_file()
        else file.open(encoding="utf-8") as lines
    ):
        yield from lines


def _ingest(data: Path, index: Path, folder: Path, most: int) -> None:
    """One file per document, as a user's folder is."""
    folder.mkdir()
    for number, line in zip(range(most), _lines(data / "corpus.jsonl"), strict=False):
        row = json.loads(line)
        (folder / f"{number}.txt").write_text(f"{row.get('title', '')}\n\n{row['text']}", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "crossrag", "ingest", str(folder), "--index", str(index)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
