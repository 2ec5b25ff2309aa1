"""`serve --engine ray` on a Ray of this machine: the plain server's answers, through failures and exchanges.

Ray runs in a program of its own (`driver`), since it opens sockets and warns as it likes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from crossrag import Rag
from crossrag.config import load_settings
from crossrag.registry import BUNDLED_MODELS
from crossrag.server.service import Service
from tests.server.conftest import listening, wait_until

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")

DOCUMENTS = {
    "boiler": "The boiler is serviced every October. Anna has a key to the cellar and lets in the engineer.",
    "backup": "Backups are made every night at two. To restore one, stop the service and run the script.",
    "leave": "Leave is asked for in writing, two weeks ahead. The head of the department decides.",
    "parking": "Parking is free behind the house. The spaces by the gate belong to visitors.",
    "cat": "The cat of the caretaker sleeps in the boiler room in winter and must not be locked in.",
}
MANUAL = (
    "The manual of the house describes pumps, valves, filters and pipes, in this order, and says for each of "
    "them who looks after it, how often, with which tool, and whom to call when it fails in the night. "
)
"""Long passages keep the reranker busy, so that a replica that is killed is killed at work."""
QUESTIONS = [
    "Who lets the engineer into the cellar?",
    "How do I restore a backup?",
    "Where may visitors park?",
    "Who decides about leave?",
    "Where does the cat sleep?",
]
Answers = dict[str, str]


class Driver:
    """The program that has Ray, and where its API answers."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.url = f"http://127.0.0.1:{arguments['server']['port']}"
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.scale.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.deployed = self._said(arguments)

    def tell(self, what: str, argument: object) -> Any:
        return self._said([what, argument])

    def close(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        assert self._program.wait(120) == 0
        assert self._program.stdout is not None
        self._program.stdout.close()

    def _said(self, message: object) -> Any:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(message) + "\n")
        self._program.stdin.flush()
        while not (line := self._program.stdout.readline()).startswith(("[", '"', "null", *"0123456789")):
            assert line, "the program ended"
        return json.loads(line)


def search(client: httpx.Client, question: str) -> httpx.Response:
    return client.post("/api/v1/search", json={"query": question, "top_k": 5})


def substance(reply: httpx.Response) -> str:
    """A reply without its times."""
    assert reply.status_code == 200, reply.text
    said = reply.json()
    said.pop("timings", None)
    return json.dumps(said, sort_keys=True)


def alike(reply: httpx.Response, expected: str) -> bool:
    """The same passages in the same order with the same scores, but for what adding in another order does.

    A batch that holds pairs of several questions is padded in another way; the plain server's is too.
    """
    return _near(json.loads(substance(reply)), json.loads(expected))


def _near(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-4
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return bool(one == other)


def all_answers(client: httpx.Client) -> Answers:
    return {question: substance(search(client, question)) for question in QUESTIONS}


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled reranker with another calibration: the same order, other relevances."""
    folder = tmp_path_factory.mktemp("model") / "other"
    shutil.copytree(BUNDLED_MODELS / "progressive-reranker", folder)
    (folder / "SHA256SUMS").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["calibration"]["slope"] /= 2
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "documents" / f"{name}.md").write_text(text, encoding="utf-8")
    for number in range(12):
        text = f"Part {number} of the house. " + MANUAL * 3
        (folder / "documents" / f"manual-{number}.md").write_text(text, encoding="utf-8")
    with Rag.open(folder / "index") as rag:
        rag.ingest(folder / "documents")
    return folder


def arguments_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "index": {"path": str(folder / "index")},
        "verification": {"model": "none"},
        "retrieval": {"duplicates": 0.0},
        "server": {"score_cache": False, "port": 0},
        "ray": {"reranker_replicas": 2, "reranker_max_replicas": 2, "embedder_max_replicas": 1},
    } | more


@pytest.fixture(scope="module")
def plain(folder: Path, other_model: Path) -> tuple[Answers, Answers]:
    """What the plain server answers with either model."""
    found = []
    for model in ("progressive:bundled", f"progressive:{other_model}"):
        given = arguments_of(folder, reranking={"model": model})
        service = Service(load_settings(given, environ={}).settings)
        with listening(service) as running, httpx.Client(base_url=running.url, timeout=60) as client:
            found.append(all_answers(client))
    assert found[0] != found[1]
    return found[0], found[1]


def test_the_command_starts_a_ray_of_its_own_and_ends_it_in_order(
    folder: Path, plain: tuple[Answers, Answers], free_port: int, tmp_path: Path
) -> None:
    given = [
        f"index.path={folder / 'index'}", "verification.model=none", "retrieval.duplicates=0",
        "server.score_cache=false", f"server.port={free_port}", "ray.num_cpus=2", f"ray.spill={tmp_path}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "crossrag", "serve", "--engine", "ray"]
    for one in given:
        command += ["--set", one]
    # Ray must neither follow the one nor do the other.
    environ = os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "RAY_USAGE_STATS_ENABLED": "1"}
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        assert program.stderr is not None
        said = ""
        while "Listening" not in said and (line := program.stderr.readline()):
            said += line
        assert f"http://127.0.0.1:{free_port} (Ctrl-C ends it)" in said, said
        with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=120) as client:
            assert substance(search(client, QUESTIONS[0])) == plain[0][QUESTIONS[0]]
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=180)
    finally:
        program.kill()
    assert (program.returncode, out) == (0, ""), err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def driver(folder: Path, plain: tuple[Answers, Answers], free_port: int) -> Iterator[Driver]:
    del plain  # first: an embedded index has one server
    made = Driver(arguments_of(folder, server={"score_cache": False, "port": free_port}))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def client(driver: Driver) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=driver.url, timeout=120) as made:
        wait_until(lambda: made.get("/readyz").status_code == 200, seconds=120)
        yield made


class Load:
    """Clients that ask without a pause until the block ends; `replies` is what they got."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self._url, self._clients = url, clients
        self._over = threading.Event()
        self.replies: list[tuple[str, httpx.Response]] = []

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(self._clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait(self, count: int) -> None:
        """Until that many further replies have come."""
        wanted = len(self.replies) + count
        wait_until(lambda: len(self.replies) >= wanted, seconds=120)

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._over.is_set():
                question = QUESTIONS[number % len(QUESTIONS)]
                self.replies.append((question, search(client, question)))
                number += 1


def test_it_answers_as_the_plain_server_byte_for_byte(
    driver: Driver, client: httpx.Client, plain: tuple[Answers, Answers]
) -> None:
    assert sorted(driver.deployed) == ["crossrag", "crossrag-embedder", "crossrag-reranker"]
    assert all_answers(client) == plain[0]
    # And in company, when batches hold pairs of several questions.
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda question: (question, search(client, question)), QUESTIONS * 4))
    assert all(alike(reply, plain[0][question]) for question, reply in replies)


def test_the_command_finds_that_all_is_there_and_says_where(driver: Driver, folder: Path) -> None:
    # Serve is there and stays where it is, whatever port is wanted.
    file = folder / "crossrag.toml"
    own = {"ray": driver.arguments["ray"] | {"address": driver.tell("address", None)}, "server": {"port": 1}}
    merged = {name: values | own.get(name, {}) for name, values in driver.arguments.items()}
    lines = [
        f"{section}.{key} = {json.dumps(value)}\n"
        for section, keys in merged.items()
        for key, value in keys.items()
    ]
    file.write_text("".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "crossrag", "serve", "--engine", "ray", "--config", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"Listening at {driver.url} (`serve shutdown` ends it)" in done.stderr
    assert done.stdout == ""


def test_a_lost_replica_loses_no_answer(
    driver: Driver, client: httpx.Client, plain: tuple[Answers, Answers]
) -> None:
    wait_until(lambda: driver.tell("replicas", "crossrag-reranker") == 2, seconds=120)
    with Load(driver.url, clients=6) as load:
        load.wait(6)
        killed = driver.tell("kill", "crossrag-reranker")
        load.wait(12)
    assert "RerankerReplica" in killed
    # `alike` fails where one was refused; "degraded" would make it another text.
    assert all(alike(reply, plain[0][question]) for question, reply in load.replies)
    wait_until(lambda: driver.tell("replicas", "crossrag-reranker") == 2, seconds=120)
    assert all_answers(client) == plain[0]


def test_a_model_is_exchanged_without_a_failed_request(
    driver: Driver, other_model: Path, plain: tuple[Answers, Answers]
) -> None:
    changed = driver.arguments | {"reranking": {"model": f"progressive:{other_model}"}}
    with Load(driver.url) as load:
        load.wait(3)
        assert driver.tell("deploy", changed) == ["crossrag-reranker"]
        wait_until(lambda: alike(load.replies[-1][1], plain[1][load.replies[-1][0]]), seconds=120)
    before = [alike(reply, plain[0][question]) for question, reply in load.replies]
    after = [alike(reply, plain[1][question]) for question, reply in load.replies]
    # Each by one of the two models, whole.
    assert all(one or other for one, other in zip(before, after, strict=True))
    assert before[0]
    assert after[-1]
    driver.arguments = changed
    assert driver.tell("deploy", changed) == []


def test_too_much_to_do_is_503_with_retry_after(driver: Driver, client: httpx.Client) -> None:
    one = driver.arguments["ray"] | {"reranker_replicas": 1, "reranker_max_replicas": 1}
    narrow = driver.arguments | {"ray": one | {"max_ongoing_requests": 1, "max_queued_requests": 1}}
    assert "crossrag-reranker" in driver.tell("deploy", narrow)
    statuses: set[int] = set()
    until = time.monotonic() + 60
    with ThreadPoolExecutor(8) as threads:
        while statuses != {200, 503} and time.monotonic() < until:
            for reply in threads.map(lambda question: search(client, question), QUESTIONS * 8):
                statuses.add(reply.status_code)
                if reply.status_code == 503:
                    assert int(reply.headers["Retry-After"]) >= 1
                    assert reply.json()["code"] == "unavailable"
                    assert "too much to do" in reply.json()["detail"]
    assert statuses == {200, 503}
