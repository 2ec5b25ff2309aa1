"""`kill -9` at any point of a run and at random: whole documents are seen, and the end is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import crashing

SEED = int(os.environ.get("STRESS_SEED", "20261124"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def text(name: str, version: int, lines: int) -> str:
    return "".join(f"Line {line} of document {name}, version {version}.\n\n" for line in range(lines))


@pytest.fixture
def folder(in_own_memory: Path) -> Path:
    """What survives a kill does not depend on the disk."""
    return in_own_memory


def before(corpus: Path) -> None:
    corpus.mkdir()
    for name, lines in (("edited", 5), ("renamed", 3), ("deleted", 3), ("same", 4), ("shrunk", 9)):
        (corpus / f"{name}.txt").write_text(text(name, 1, lines), encoding="utf-8")


def after(corpus: Path) -> None:
    (corpus / "edited.txt").write_text(text("edited", 2, 6), encoding="utf-8")
    (corpus / "shrunk.txt").write_text(text("shrunk", 2, 2), encoding="utf-8")
    (corpus / "renamed.txt").rename(corpus / "moved.txt")
    (corpus / "deleted.txt").unlink()
    (corpus / "new.txt").write_text(text("new", 1, 3), encoding="utf-8")


def kill(mode: str, folder: Path, *, step: int = 0, kills: int = 0) -> list[Any]:
    """At every `step`-th point of the work, and `kills` times at random."""
    command = [
        sys.executable,
        "-m",
        "tests.crashing",
        mode,
        folder / "base",
        folder / "index",
        folder / "docs",
    ]
    print(f"seed {SEED}")
    done = subprocess.run(
        [*map(str, command), str(step), str(kills), str(SEED)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def prepared(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """An index of the folder as it was; what is visible of it and of a new one; the new one's digest."""
    before(folder / "docs")
    crashing.work("ingest", folder / "base", folder / "docs")
    old = crashing.visible(folder / "base")
    after(folder / "docs")
    crashing.work("ingest", folder / "fresh", folder / "docs")
    return old, crashing.visible(folder / "fresh"), crashing.digest(folder / "fresh")


def check(runs: list[Any], old: dict[str, Any], new: dict[str, Any], digest: str) -> None:
    for run in runs:
        assert run["digest"] == digest, run
        for source, texts in run["seen"].items():
            assert texts in (old.get(source), new.get(source)), (source, run)
        names = {source.removeprefix("docs/") for source in run["seen"]}
        assert {"edited.txt", "same.txt", "shrunk.txt"} <= names, run
        assert len(names & {"renamed.txt", "moved.txt"}) == 1, run


def test_a_kill_at_any_point_of_an_ingestion_loses_and_doubles_nothing(folder: Path) -> None:
    old, new, digest = prepared(folder)
    runs = kill("ingest", folder, step=2, kills=5)
    assert len(runs) > 20
    check(runs, old, new, digest)


def test_a_kill_at_any_point_of_a_first_ingestion_needs_no_hand(folder: Path) -> None:
    _, _, digest = prepared(folder)
    shutil.rmtree(folder / "base")
    for run in kill("ingest", folder, step=2):
        assert run["digest"] == digest, run


def test_a_kill_at_any_point_of_a_reindex_leaves_the_old_or_the_new(folder: Path) -> None:
    before(folder / "docs")
    crashing.work("ingest", folder / "base", folder / "docs")
    old = crashing.visible(folder / "base")
    for name in ("edited", "renamed", "deleted", "same", "shrunk"):
        (folder / "docs" / f"{name}.txt").write_text(text(name, 2, 4), encoding="utf-8")
    crashing.work("ingest", folder / "fresh", folder / "docs")
    new, digest = crashing.visible(folder / "fresh"), crashing.digest(folder / "fresh")
    runs = kill("reindex", folder, step=2)
    assert len(runs) > 15
    for run in runs:
        assert run["seen"] in (old, new), run
        assert run["digest"] == digest, run
    assert {json.dumps(run["seen"]) for run in runs} == {json.dumps(old), json.dumps(new)}


@pytest.mark.stress
def test_two_hundred_random_kills_and_every_point(folder: Path) -> None:
    old, new, digest = prepared(folder)
    runs = kill("ingest", folder, step=1, kills=200)
    assert len(runs) > 250
    check(runs, old, new, digest)
