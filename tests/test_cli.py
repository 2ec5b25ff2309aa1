"""The command as a user runs it: real processes, the bundled models, exit codes, stdout apart from stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def crossrag(*arguments: str | Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossrag", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"} | environ,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from .conftest import CORPUS

    folder = tmp_path_factory.mktemp("cli")
    (folder / "docs").mkdir()
    for name, text in CORPUS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    made = crossrag("ingest", "docs", folder=folder)
    assert made.returncode == 0, made.stderr
    assert made.stdout.split()[:2] == ["added", "3"]
    return folder


def test_ask_prints_the_answer_and_its_sources(indexed: Path) -> None:
    done = crossrag("ask", "How do I restore a backup?", "--show-context", folder=indexed)
    assert done.returncode == 0
    assert "To restore a backup, stop the service and run the restore command. [1]" in done.stdout
    assert "[1] docs/backup.md, Backup" in done.stdout
    assert "retrieve" in done.stderr
    assert "--- [1] docs/backup.md" in done.stderr


def test_ask_says_when_there_is_no_answer(indexed: Path) -> None:
    done = crossrag("ask", "What is the boiling point of liquid helium?", "--json", folder=indexed)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["citations"], answer["context"]["sources"]) == ("no_answer", [], [])


def test_search_explains_and_filters(indexed: Path) -> None:
    done = crossrag("search", "largest animal", "--explain", "-k", "2", folder=indexed)
    assert done.stdout.splitlines()[0].endswith("docs/whales.txt")
    assert "dense #1" in done.stdout
    assert "reranked #1" in done.stdout
    only = crossrag(
        "search", "largest animal", "--where", "source=docs/office.html", "--json", folder=indexed
    )
    found = json.loads(only.stdout)["candidates"]
    assert {candidate["chunk"]["source"] for candidate in found} == {"docs/office.html"}
    both = ("--where", '{"source": {"prefix": "docs/"}}', "--where", "source=docs/whales.txt")
    found = json.loads(crossrag("search", "largest animal", *both, "--json", folder=indexed).stdout)
    assert {candidate["chunk"]["source"] for candidate in found["candidates"]} == {"docs/whales.txt"}


def test_the_same_call_prints_the_same(indexed: Path) -> None:
    calls = [
        json.loads(
            crossrag(
                "ask", "When does the office open?", "--json", folder=indexed, PYTHONHASHSEED=seed
            ).stdout
        )
        for seed in ("1", "2")
    ]
    for call in calls:
        call.pop("timings")
        call["ranking"].pop("timings")
    assert calls[0] == calls[1]


def test_status_doctor_and_config(indexed: Path) -> None:
    assert json.loads(crossrag("status", "--json", folder=indexed).stdout)["documents"] == 3
    checked = crossrag("doctor", folder=indexed)
    assert checked.returncode == 0, checked.stdout
    assert "3 documents" in checked.stdout
    (indexed / "crossrag.toml").write_text("[reranking]\ntop_k = 3\n", encoding="utf-8")
    shown = crossrag(
        "config",
        "show",
        "--json",
        "--set",
        "context.token_budget=99",
        folder=indexed,
        CROSSRAG_OPENAI__API_KEY="sk-abc",
    )
    rows = json.loads(shown.stdout)
    assert rows["reranking.top_k"] == {"value": "3", "origin": "crossrag.toml"}
    assert rows["context.token_budget"] == {"value": "99", "origin": "argument"}
    assert rows["openai.api_key"] == {"value": "**********", "origin": "CROSSRAG_OPENAI__API_KEY"}
    assert rows["retrieval.rrf_k"]["origin"] == "default"
    (indexed / "crossrag.toml").unlink()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serch", "x"], 2, "Did you mean 'search'"),
        (["search"], 2, "Missing argument"),
        (["search", "x", "--nope"], 2, "--nope"),
        (["search", " "], 2, "question is empty"),
        (["ingest", "nowhere"], 2, "does not exist"),
        (["search", "x", "--where", "source"], 2, "KEY=VALUE"),
        (["search", "x", "--where", '{"year": {"gt3": 1}}'], 2, "Did you mean 'gt'"),
        (["search", "x", "--where", "{year"], 2, "no JSON"),
        (["search", "x", "--index", "none"], 3, "crossrag ingest PATH"),
        (["search", "x", "--set", "embedder.model=onnx:gone"], 4, "model.onnx is missing"),
        (["ask", "how to restore a backup", "--set", "generator.model=openai:m"], 5, "OPENAI_API_KEY"),
        (["search", "x", "--set", "reranking.topk=3"], 7, "Did you mean 'top_k'"),
        (["search", "x", "--set", "reranking.top_k=many"], 7, "reranking.top_k"),
        (["search", "x", "--set", "index.store=pinecone"], 7, "Choices: adopted, edge"),
        (["search", "x", "--set", "chunking.size=500"], 7, "--rebuild"),
        (["ask", "x", "--config", "none.toml"], 7, "none.toml"),
    ],
)
def test_errors_say_what_and_how_to_mend_it(
    indexed: Path, arguments: list[str], code: int, says: str
) -> None:
    done = crossrag(*arguments, folder=indexed)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_some_files_failing_is_told_by_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Good text.", encoding="utf-8")
    (tmp_path / "bad.pdf").write_bytes(b"no pdf")
    done = crossrag("ingest", ".", "--index", tmp_path.parent / "partial", folder=tmp_path)
    assert done.returncode == 6
    assert "bad.pdf" in done.stderr
    again = crossrag("ingest", ".", "--allow-failed", "--index", tmp_path.parent / "partial", folder=tmp_path)
    assert again.returncode == 0
    assert "bad.pdf" in again.stderr


def test_help_of_every_command_has_an_example_or_says_what_it_does() -> None:
    for command in ("ingest", "search", "ask", "status", "doctor", "demo", "config"):
        done = crossrag(command, "-h", folder=Path.cwd())
        assert done.returncode == 0
        assert command in done.stdout


@pytest.mark.parametrize("command", ["search", "ask"])
def test_a_filter_that_lets_nothing_through_is_named(indexed: Path, command: str) -> None:
    typed = crossrag(command, "When does it open?", "--where", "year=2024", folder=indexed)
    assert typed.returncode == 0
    assert "note: Nothing was found that the filter lets through" in typed.stderr
    assert """numbers want JSON: --where '{"year": 2024}'""" in typed.stderr
    text = crossrag(command, "When does it open?", "--where", "team=blue", "--json", folder=indexed)
    assert "JSON" not in text.stderr
    assert "Nothing was found that the filter lets through" in text.stdout


JUDGED = (
    ("How do I restore a backup?", "backup.md"),
    ("When is a backup written?", "backup.md"),
    ("What do I stop before I restore a backup?", "backup.md"),
    ("Which command brings a backup back?", "backup.md"),
    ("Which animal is the largest?", "whales.txt"),
    ("Are whales mammals?", "whales.txt"),
    ("What is a blue whale?", "whales.txt"),
    ("What lived on Earth?", "whales.txt"),
    ("When does the office open?", "office.html"),
    ("When does the office close?", "office.html"),
    ("Is the office open at nine in the morning?", "office.html"),
    ("Is anybody in the office at eight?", "office.html"),
)


def test_nothing_in_a_help_is_lost_as_markup() -> None:
    from typer.main import get_command

    from crossrag.cli.app import app

    def helps(command: Any) -> Iterator[str]:
        yield command.help or ""
        yield from (getattr(one, "help", None) or "" for one in command.params)
        for below in getattr(command, "commands", {}).values():
            yield from helps(below)

    texts = list(helps(get_command(app)))
    assert sum("section \\[ray]" in text for text in texts) == 1
    assert [text for text in texts if re.search(r"(?<!\\)\[[a-z/#@]", text)] == []
    assert "[ray]" in crossrag("ingest", "-h", folder=Path.cwd()).stdout


def test_calibrate_makes_a_threshold_out_of_a_wish(indexed: Path) -> None:
    wish = ("ask", "How do I restore a backup?", "--set", "reranking.threshold=precision>=0.9")
    before = crossrag(*wish, folder=indexed)
    assert before.returncode == 7
    assert "crossrag calibrate" in before.stderr
    lines = [json.dumps({"question": question, "source": source}) for question, source in JUDGED]
    (indexed / "few.jsonl").write_text("\n".join(lines[:3]), encoding="utf-8")
    few = crossrag("calibrate", "few.jsonl", folder=indexed)
    assert few.returncode == 2
    assert "Of 3 questions 3 have a relevant place" in few.stderr
    (indexed / "judged.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = crossrag("calibrate", "judged.jsonl", folder=indexed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 questions")
    assert "warning: 12 questions are few" in done.stderr
    status = crossrag("status", folder=indexed)
    assert "a calibration of 12 questions is in force; `crossrag calibrate --remove`" in status.stdout
    after = crossrag(*wish, folder=indexed)
    assert after.returncode == 0, after.stderr
    assert "restore command. [1]" in after.stdout
    assert "calibration.json" in crossrag("calibrate", "--remove", folder=indexed).stdout
    assert not (indexed / ".crossrag" / "calibration.json").exists()
    assert "There is no calibration at" in crossrag("calibrate", "--remove", folder=indexed).stdout
    assert "calibration" not in crossrag("status", folder=indexed).stdout
    for arguments in ((), ("judged.jsonl", "--remove")):
        assert crossrag("calibrate", *arguments, folder=indexed).returncode == 2


def test_train_says_what_is_missing(indexed: Path) -> None:
    done = crossrag("train", "--out", "model", folder=indexed)
    assert done.returncode == 2
    assert "--data FOLDER or --judgements FILE" in done.stderr
    few = crossrag("train", "--out", "model", "--judgements", "none.jsonl", folder=indexed)
    assert few.returncode == 2
    assert "none.jsonl does not exist" in few.stderr
