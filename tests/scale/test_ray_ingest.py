"""Ingestion on a local Ray of two CPUs: the very index of the local engine, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import memory

pytestmark = [
    pytest.mark.skipif(
        find_spec("ray") is None, reason="NOT TESTED: ingestion on Ray; pip install 'crossrag[ray]'"
    ),
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]
ROOT = Path(__file__).parent.parent.parent
FILES = 130
"""Three shelves."""


@dataclass
class Driver:
    """A process that ingests what it is told to."""

    process: subprocess.Popen[str]
    log: Path
    """What it says to people."""

    def told(self, order: dict[str, Any]) -> Any:
        """The report of an ingestion, or its error; None where the process died."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line and self.process.wait(30) != -signal.SIGKILL:
            pytest.fail(self.log.read_text(encoding="utf-8")[-3000:])
        return json.loads(line) if line else None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of the cluster and its drivers: this project's code, the plug-in, and nobody's home."""
    home = tmp_path_factory.mktemp("home")
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests" / "scale" / "plugin", ROOT)))
    own = {
        "PYTHONPATH": path,
        "HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CROSSRAG_", "RAY_"))}
    return kept | own


@contextmanager
def running(arguments: list[str], environment: dict[str, str]) -> Iterator[Driver]:
    log = Path(environment["HOME"]) / f"{time.monotonic_ns()}.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.scale.ingest_driver", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=environment,
        )
    try:
        yield Driver(process, log)
    finally:
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    with running(["cluster"], environment) as cluster:
        assert cluster.process.stdout
        yield json.loads(cluster.process.stdout.readline())["address"]


@pytest.fixture(scope="module")
def driver(address: str, environment: dict[str, str]) -> Iterator[Driver]:
    with running([address, "0"], environment) as made:
        yield made


@dataclass
class Place:
    """Documents, and where indexes of them are made."""

    folder: Path

    @property
    def docs(self) -> Path:
        return self.folder / "docs"

    def order(self, index: str, **more: Any) -> dict[str, Any]:
        calls = self.folder / "calls"
        calls.mkdir(exist_ok=True)
        settings = {
            "index": {"path": str(self.folder / index)},
            "embedder": {"model": f"slowly:{calls}"},
            "reranking": {"model": "none"},
            "chunking": {"size": 200, "overlap": 20},
        }
        return {"settings": settings, "docs": str(self.docs), **more}

    def command(self, order: dict[str, Any], address: str) -> list[str]:
        """The same by the command line."""
        pairs = [
            f"{part}.{key}={text}" for part, keys in order["settings"].items() for key, text in keys.items()
        ]
        made = [sys.executable, "-m", "crossrag", "ingest", order["docs"], "--engine", "ray"]
        for pair in (*pairs, f"ray.address={address}"):
            made += ["--set", pair]
        return made

    def calls(self) -> set[str]:
        return {file.name for file in (self.folder / "calls").glob("*-*")}


@pytest.fixture
def place(in_own_memory: Path) -> Place:
    assert memory() is None or in_own_memory.is_dir()
    made = Place(in_own_memory)
    made.docs.mkdir()
    for number in range(FILES):
        text = f"# Document {number}\n\n" + "".join(
            f"Line {line} of document {number} says what it says.\n\n" for line in range(number % 7 * 3)
        )
        (made.docs / f"{number:04d}.md").write_text(text, encoding="utf-8")
    (made.docs / "bad.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    (made.docs / "metadata.jsonl").write_text(
        '{"path": "0003.md", "year": 2021, "share": 0.1, "tags": ["a", "b"]}\n', encoding="utf-8"
    )
    return made


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {**one, "seconds": 0} == {**other, "seconds": 0}


def test_the_index_and_the_report_are_those_of_the_local_engine(driver: Driver, place: Place) -> None:
    on_ray = driver.told(place.order("ray", engine="ray"))
    embedders = {name.partition("-")[0] for name in place.calls()}
    local = driver.told(place.order("local"))
    assert same(on_ray, local), (on_ray, local)
    assert on_ray["added"] == FILES
    assert on_ray["chunks"] > FILES
    (failure,) = on_ray["failed"]
    assert failure["source"] == "docs/bad.pdf"
    assert len(embedders) == 1, "one process holds the model"
    assert str(driver.process.pid) not in embedders

    before = place.calls()
    again = driver.told(place.order("ray", engine="ray"))
    assert (again["unchanged"], again["embedded"], again["digest"]) == (FILES, 0, on_ray["digest"])

    (place.docs / "0005.md").write_text("# Document 5\n\nLine 0 of document 5 says more.\n", encoding="utf-8")
    (place.docs / "0006.md").rename(place.docs / "moved.md")
    with (place.docs / "0013.md").open("a", encoding="utf-8") as file:
        file.write("One more line.\n")
    (place.docs / "0007.md").unlink()
    edited, edited_here = driver.told(place.order("ray", engine="ray")), driver.told(place.order("local"))
    assert same(edited, edited_here), (edited, edited_here)
    assert (edited["updated"], edited["renamed"], edited["deleted"]) == (2, 1, 1)
    assert 0 < edited["embedded"] < edited["chunks"]
    assert sum(int((place.folder / "calls" / name).read_text()) for name in place.calls() - before) == (
        edited["embedded"] + edited_here["embedded"]
    ), "what the index holds is embedded by nobody"


def test_a_worker_that_is_killed_costs_nothing_but_time(
    driver: Driver, place: Place, address: str, environment: dict[str, str]
) -> None:
    order = place.order("ray", engine="ray")
    (place.folder / "calls" / "die").touch()
    command = [*place.command(order, address), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 6, done.stderr
    killed = json.loads(done.stdout)
    assert not (place.folder / "calls" / "die").exists()
    assert len({name.partition("-")[0] for name in place.calls()}) == 2, "the first one and the one after it"
    local, again = driver.told(place.order("local")), driver.told(order)
    assert (killed["chunks"], killed["failed"]) == (local["chunks"], local["failed"])
    assert again["digest"] == local["digest"]


def test_a_driver_that_is_killed_is_made_good_by_the_next_run(
    driver: Driver, place: Place, address: str, environment: dict[str, str]
) -> None:
    with running([address, "2"], environment) as doomed:
        assert doomed.told(place.order("ray", engine="ray")) is None
        assert doomed.process.returncode == -signal.SIGKILL
    resumed = driver.told(place.order("ray", engine="ray"))
    whole = driver.told(place.order("local"))
    assert 0 < resumed["unchanged"] < FILES
    assert resumed["digest"] == whole["digest"]


def test_ctrl_c_leaves_a_whole_index_that_is_gone_on_with(
    driver: Driver, place: Place, address: str, environment: dict[str, str]
) -> None:
    order = place.order("ray", engine="ray")
    command = place.command(order, address)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 60
    while not place.calls() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert driver.told(order)["digest"] == driver.told(place.order("local"))["digest"]


def test_readers_wait_for_a_slow_embedder(driver: Driver, place: Place) -> None:
    shutil.rmtree(place.docs)
    place.docs.mkdir()
    shelves = 18
    for number in range(shelves):
        text = f"Line of the long document {number}, which is a shelf of its own.\n\n" * 2_600
        (place.docs / f"{number:04d}.txt").write_text(text[:150_000], encoding="utf-8")
    order = place.order("ray", engine="ray", in_flight=1_500_000)
    order["settings"]["chunking"] = {"size": 100_000, "overlap": 0}
    (place.folder / "calls" / "seconds").write_text("0.35", encoding="utf-8")
    assert driver.told(order)["added"] == shelves
    # What had been read, less what had been taken up by the embedder, whenever a shelf was read.
    ahead = [
        int(file.stem) + 1 - int(file.read_text(encoding="utf-8"))
        for file in (place.folder / "calls").glob("*.read")
    ]
    assert len(ahead) == shelves
    # With room for all of them it comes to two thirds.
    assert 1 < max(ahead) <= shelves // 2, sorted(ahead)


def test_other_models_than_the_index_has_are_refused(driver: Driver, place: Place) -> None:
    said = driver.told(place.order("ray", engine="ray", given=True))
    assert said["error"] == "ModelError"
    assert not place.calls()


def test_the_first_failure_ends_a_run_that_wants_it(driver: Driver, place: Place) -> None:
    said = driver.told(place.order("ray", engine="ray", fail_fast=True))
    assert said["error"] == "LoadError"
    assert "bad.pdf" in said["message"]
