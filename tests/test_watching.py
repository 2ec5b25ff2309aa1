"""Watching: whatever changes is indexed, also if it did in the middle of a run or a run failed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crossrag import Rag, StoreLockedError, UsageError, watching
from crossrag.cli import ingestion
from crossrag.planning import Selection
from crossrag.types import IngestReport

from .test_cli import crossrag
from .test_sync import write

pytest.importorskip("watchfiles", reason="needs the extra crossrag[watch]")


def test_changes_are_told_and_hidden_ones_are_not(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write(docs, one="One.")
    (docs / "index").mkdir()
    stop, told = threading.Event(), threading.Event()
    seen: list[int] = []

    def listen() -> None:
        for count in watching.changes([docs], ignored=docs / "index", stop=stop):
            if count:
                seen.append(count)
                told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    until = time.monotonic() + 30
    number = 0
    while not told.wait(0.3) and time.monotonic() < until:
        number += 1
        (docs / ".hidden").write_text(str(number), encoding="utf-8")
        (docs / "index" / "x").write_text(str(number), encoding="utf-8")
        if number > 3:
            assert seen == []
            write(docs, one=f"{number}.")
    stop.set()
    listener.join()
    assert seen
    with pytest.raises(UsageError, match="does not exist"):
        next(iter(watching.changes([tmp_path / "nowhere"])))


def test_watch_keeps_the_index_equal_until_ctrl_c(in_memory: Path) -> None:
    folder = in_memory / "watched"
    folder.mkdir()
    write(folder / "docs", one="The first file is about whales.")
    command = [sys.executable, "-m", "crossrag", "ingest", "docs", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching_process:
        assert watching_process.stdout is not None
        assert watching_process.stderr is not None
        assert json.loads(watching_process.stdout.readline())["added"] == 1
        assert watching_process.stderr.readline().startswith("Watching")
        reader = threading.Thread(target=_keep_writing, args=(folder / "docs", stop := threading.Event()))
        reader.start()
        assert json.loads(watching_process.stdout.readline())["added"] == 1
        stop.set()
        reader.join()
        watching_process.send_signal(signal.SIGINT)
        watching_process.communicate(timeout=60)
    assert watching_process.returncode == 130
    assert crossrag("verify", folder=folder).returncode == 0


def _keep_writing(docs: Path, stop: threading.Event) -> None:
    """Again and again, as the watch may begin a little after it says so."""
    while not stop.wait(0.7):
        write(docs, two=f"The second file was written at {time.time_ns()} by process {os.getpid()}.")


def test_from_the_first_number_on_nothing_is_missed(tmp_path: Path) -> None:
    write(tmp_path / "docs", one="One.")
    stop = threading.Event()
    numbers = watching.changes([tmp_path / "docs"], stop=stop)
    assert next(numbers) == 0
    for name in ("late.txt", ".gitignore", "metadata.jsonl"):
        (tmp_path / "docs" / name).write_text("x", encoding="utf-8")
        time.sleep(0.5)  # nobody asks meanwhile
        assert sum(next(numbers) for _ in range(3)), name
    stop.set()


def test_a_file_that_is_named_is_watched_also_when_it_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, one="One.", two="Two.")
    stop = threading.Event()
    numbers = watching.changes([tmp_path / "one.txt"], stop=stop)
    assert next(numbers) == 0
    write(tmp_path, two="Not named.")
    assert sum(next(numbers) for _ in range(2)) == 0
    for number in range(3):
        (tmp_path / "new").write_text(f"{number}", encoding="utf-8")
        (tmp_path / "new").replace(tmp_path / "one.txt")  # as editors save
        assert sum(next(numbers) for _ in range(2)) == 1
    (tmp_path / "one.txt").unlink()
    assert next(numbers) == 1
    stop.set()


@contextmanager
def watched(folder: Path, *, also: str = "") -> Iterator[subprocess.Popen[str]]:
    """`crossrag ingest docs --watch --json` in a process of its own, which is ended by Ctrl-C."""
    command = [sys.executable, "-c", f"{also}\nfrom crossrag.cli import app; app.main()"]
    with subprocess.Popen(
        [*command, "ingest", "docs", "--watch", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def added(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(json.loads(process.stdout.readline())["added"])


def test_what_changes_during_the_first_run_is_indexed(in_own_memory: Path) -> None:
    write(in_own_memory / "docs", one="The first file is about whales.")
    during = (
        "from pathlib import Path; from crossrag.cli import ingestion; real = ingestion.once\n"
        "def once(*arguments, **named):\n"
        "    report = real(*arguments, **named)\n"
        "    Path('docs/late.txt').write_text('It came when the files had been looked at.')\n"
        "    return report\n"
        "ingestion.once = once"
    )
    with watched(in_own_memory, also=during) as process:
        assert [added(process), added(process)] == [1, 1]


def test_what_changed_while_the_index_was_in_use_is_indexed_when_it_is_free(in_own_memory: Path) -> None:
    write(in_own_memory / "docs", one="The first file is about whales.")
    with watched(in_own_memory) as process:
        assert added(process) == 1
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Watching")
        with Rag.open(in_own_memory / ".crossrag") as rag:
            rag.store  # noqa: B018 - opens it
            write(in_own_memory / "docs", two="The second file.")
            until = time.monotonic() + 60
            while "is tried again" not in process.stderr.readline():
                assert time.monotonic() < until
        assert added(process) == 1


def test_each_report_says_when_and_how_many_files_changed(capsys: pytest.CaptureFixture[str]) -> None:
    tries: Iterator[StoreLockedError | IngestReport] = iter(
        [StoreLockedError("Process 7 has it open", hint="Wait"), IngestReport(added=3)]
    )

    def ingest(*_: Any, **__: Any) -> IngestReport:
        done = next(tries)
        if isinstance(done, StoreLockedError):
            raise done
        return done

    rag = cast("Rag", SimpleNamespace(ingest=ingest, close=lambda: None))
    ingestion.watch(rag, [], Selection(), iter([0, 1, 2]), engine=None, as_json=True)
    *_, told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  3 files changed", told)


def test_a_run_that_fails_is_tried_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    tried: list[float] = []

    def ingest(*_: Any, **__: Any) -> IngestReport:
        tried.append(now[0])
        if now[0] < 300:
            raise StoreLockedError("Process 7 has it open", hint="Wait")
        return cast("IngestReport", SimpleNamespace(added=0, updated=0, renamed=0, deleted=0, failed=()))

    def seconds() -> Iterator[int]:
        for second in range(500):
            now[0] = float(second)
            yield int(second == 2)

    monkeypatch.setattr("crossrag.cli.ingestion.time.monotonic", lambda: now[0])
    rag = cast("Rag", SimpleNamespace(ingest=ingest, close=lambda: None))
    ingestion.watch(rag, [], Selection(), seconds(), engine=None, as_json=True)
    assert tried == [2, 3, 5, 9, 17, 33, 65, 125, 185, 245, 305]
    assert capsys.readouterr().err.count("Process 7 has it open") == 1
