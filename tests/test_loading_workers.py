"""Parsing in child processes: the same documents as in this one, every limit kept, no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossrag.errors import LoadError, UsageError
from crossrag.loading import Limits, Loader, load
from crossrag.loading.process import ParsingProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

EXAMPLES = Path(__file__).parent.parent / "src" / "crossrag" / "examples"
BUSY = b"<p " + b" ".join(b"a%d=1" % number for number in range(200_000)) + b">x"
"""A page that takes the parser a long time."""


@pytest.fixture
def loader() -> Iterator[Loader]:
    with Loader(Limits(cpu_seconds=1, seconds=120), workers=2) as made:
        yield made


def children_of(pid: int) -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.add(int(folder.name))
    return found


_BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def _others() -> None:
    """Whoever tested before may have left children, which are none of ours."""
    _BEFORE.clear()
    _BEFORE.update(children_of(os.getpid()))


def parsers() -> set[int]:
    """Children that came since the test began."""
    return children_of(os.getpid()) - _BEFORE


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids: set[int], *, seconds: float = 10) -> set[int]:
    until = time.monotonic() + seconds
    while (left := {pid for pid in pids if is_running(pid)}) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def test_a_child_reads_what_this_process_would(loader: Loader) -> None:
    paths = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".pdf", ".html", ".md", ".txt"})
    assert len(paths) > 20
    for path in paths:
        metadata = {"team": "blue", "years": [2025, 2026]}
        expected = load(path, document_id="1", source=path.name, metadata=metadata)
        assert loader.load(path, document_id="1", source=path.name, metadata=metadata) == expected


def test_errors_are_those_of_this_process(loader: Loader, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"no pdf")
    (tmp_path / "b.xyz").write_bytes(b"?")
    for name in ("a.pdf", "b.xyz", "none.pdf"):
        errors = []
        for read in (load, loader.load):
            with pytest.raises(LoadError) as caught:
                read(tmp_path / name, document_id="1", source=name)
            errors.append((caught.value.message, caught.value.hint))
        assert errors[0] == errors[1]


def test_one_process_serves_many_files(loader: Loader) -> None:
    path = EXAMPLES / "quick-reference.pdf"
    loader.load(path, document_id="1", source="a.pdf")
    first = parsers()
    for _ in range(5):
        loader.load(path, document_id="1", source="a.pdf")
    assert parsers() == first
    loader.close()
    assert not wait_until_gone(first)
    with pytest.raises(UsageError, match="loader is closed"):
        loader.load(path, document_id="1", source="a.pdf")
    loader.close()


def test_a_large_parent_does_not_make_its_children_seem_large(loader: Loader) -> None:
    ballast = bytearray(b"x") * (400 * 2**20)
    loader.load(EXAMPLES / "bm25.html", document_id="1", source="b")
    first = parsers()
    loader.load(EXAMPLES / "bm25.html", document_id="1", source="b")
    assert len(ballast) > 0
    assert first
    assert parsers() == first


def test_a_child_that_has_grown_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_bytes(b"word " * 12_000_000)
    with Loader(Limits(text_characters=10_000), workers=1) as loader:
        loader.load(EXAMPLES / "quick-reference.pdf", document_id="1", source="b")
        first = parsers()
        with pytest.raises(LoadError, match="has 60000000 characters of text, more than 10000"):
            loader.load(tmp_path / "large.txt", document_id="1", source="large")
        assert not wait_until_gone(first)


def test_threads_share_the_pool(loader: Loader) -> None:
    paths = [EXAMPLES / name for name in ("quick-reference.pdf", "bm25.html", "own-models.html")] * 8
    with ThreadPoolExecutor(6) as threads:
        texts = list(
            threads.map(lambda path: loader.load(path, document_id="1", source=path.name).text, paths)
        )
    assert texts == [load(path, document_id="1", source=path.name).text for path in paths]
    assert len(loader._all) <= 2


def test_processor_time_is_limited_and_the_next_file_is_read(loader: Loader, tmp_path: Path) -> None:
    (tmp_path / "busy.html").write_bytes(BUSY)
    for _ in range(2):
        with pytest.raises(LoadError, match=r"^busy\.html: takes more than 1 s of processor time"):
            loader.load(tmp_path / "busy.html", document_id="1", source="busy.html")
        assert loader.load(EXAMPLES / "bm25.html", document_id="1", source="b").text


def test_the_clock_is_the_last_resort(tmp_path: Path) -> None:
    (tmp_path / "busy.html").write_bytes(BUSY)
    with Loader(Limits(seconds=3), workers=1) as loader:
        loader.load(EXAMPLES / "bm25.html", document_id="1", source="warm")
        started = time.perf_counter()
        with pytest.raises(LoadError, match=r"takes more than 3 s to parse"):
            loader.load(tmp_path / "busy.html", document_id="1", source="busy.html")
        assert time.perf_counter() - started < 15
        assert loader.load(EXAMPLES / "bm25.html", document_id="1", source="b").text


def test_size_of_file_and_text_is_limited(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * 2_000)
    (tmp_path / "long.csv").write_bytes(b"a,b\n" + b"1,2\n" * 200)
    with Loader(Limits(file_bytes=1_000, text_characters=500), workers=1) as loader:
        with pytest.raises(LoadError, match=r"big\.txt: has 2000 bytes, more than the 1000 bytes allowed"):
            loader.load(tmp_path / "big.txt", document_id="1", source="big.txt")
        with pytest.raises(LoadError, match=r"has 2199 characters of text, more than 500"):
            loader.load(tmp_path / "long.csv", document_id="1", source="long.csv")


def test_a_child_that_dies_while_idle_is_no_files_fault(loader: Loader) -> None:
    path = EXAMPLES / "bm25.html"
    loader.load(path, document_id="1", source="b")
    (process,) = loader._all
    os.kill(process._child.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert loader.load(path, document_id="1", source="b").text


def test_an_interrupted_wait_kills_the_child(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    loader.load(EXAMPLES / "bm25.html", document_id="1", source="b")
    children = parsers()
    monkeypatch.setattr(ParsingProcess, "ask", interrupted)
    (tmp_path / "a.html").write_bytes(b"<p>a")
    with pytest.raises(KeyboardInterrupt):
        loader.load(tmp_path / "a.html", document_id="1", source="a")
    assert not wait_until_gone(children)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "busy.html").write_bytes(BUSY)
    code = (
        "import sys; from pathlib import Path; from crossrag.loading import Loader\n"
        "with Loader(workers=1) as loader:\n"
        f"    loader.load(Path({str(EXAMPLES / 'bm25.html')!r}), document_id='1', source='b')\n"
        "    print('warm', flush=True)\n"
        f"    loader.load(Path({str(tmp_path / 'busy.html')!r}), document_id='1', source='busy')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"warm\n"
        children = children_of(parent.pid)
        assert len(children) == 1
        time.sleep(0.3)
        parent.send_signal(how)
        parent.wait(10)
    assert not wait_until_gone(children)


@pytest.mark.parametrize(
    "attempt",
    [
        "open('owned', 'w')",
        "import os; os.open('owned', os.O_CREAT | os.O_WRONLY)",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.remove('precious')",
    ],
)
def test_a_parser_may_only_read(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    code = (
        "import sys; from crossrag.loading import worker; sys.addaudithook(worker._refuse)\n"
        f"try:\n    {attempt}\nexcept PermissionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("a parser may not")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_keys_do_not_reach_the_child(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    loader.load(EXAMPLES / "bm25.html", document_id="1", source="b")
    (process,) = loader._all
    environment = Path(f"/proc/{process._child.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"canary" not in environment


def test_threads_do_not_wait_for_a_closed_loader() -> None:
    loader = Loader(workers=1)
    loader.load(EXAMPLES / "bm25.html", document_id="1", source="b")
    closer = threading.Thread(target=loader.close)
    closer.start()
    closer.join(10)
    assert not loader._all
