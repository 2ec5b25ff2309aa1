"""A folder of over a hundred hostile files: each ends within its limit with a reason, the good ones load.

Promises: parsers cannot hurt the service, any bytes, names are not paths.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrag.chunking import split
from crossrag.errors import LoadError
from crossrag.loading import Found, Limits, Loader, clean_text, find_files

if TYPE_CHECKING:
    from crossrag.types import Document

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit on memory")

SCRIPT = Path(__file__).parent.parent / "scripts" / "hostile_files.py"
LIMITS = Limits(
    file_bytes=64 * 2**20,
    memory_bytes=256 * 2**20,
    cpu_seconds=1,
    seconds=120,
    text_characters=8_000_000,
)
REASONS = {
    "ascii85.pdf": "more than 256 MiB of memory",
    "attributes.html": "more than 1 s of processor time",
    "bomb.docx": "would unpack to 1 files of 2048 MiB",
    "bomb.pptx": "would unpack to",
    "bomb.xlsx": "would unpack to",
    "core-laughs.docx": "defines entities",
    "cut.jsonl": "line 2 is no JSON",
    "cyclic-pages.pdf": "cyclic",
    "deep.html": "crash",
    "deep.json": "nested too deeply",
    "document.txt": "is a PDF by its first bytes, but its suffix is .txt. Give it the suffix .pdf",
    "empty.pdf": "is no PDF that can be read",
    "encrypted.docx": "old or encrypted office file",
    "encrypted.pdf": "encrypted with a password",
    "far-cells.xlsx": "more than 1 s of processor time",
    "flate-2gb.pdf": "is no PDF that can be read",
    "laughs-utf16.docx": "is no Word document that can be read",
    "laughs.docx": "defines entities",
    "locked.docx": "encrypted with a password",
    "only-nul.txt": "is binary, not text",
    "operators.pdf": "takes more than",
    "page.pdf": "is a web page by its first bytes",
    "parts.docx": "would unpack to 25003 files",
    "passwd.docx": "defines entities",
    "photo.docx": "is a JPEG picture",
    "sparse.csv": "has 1024 MiB, more than the 64 MiB allowed",
    "sparse.pdf": "has 1024 MiB",
    "sparse.txt": "has 1024 MiB",
    "workbook.docx": "is an Excel workbook",
}
SKIPPED = {
    "circle.txt": "is a link that leads in a circle",
    "loop": "is a link to a folder",
    "nowhere.txt": "cannot be read: No such file or directory",
    "out.txt": "is a link that leads out of the folder",
    "pipe.pdf": "is a pipe",
    "pipe.txt": "is a pipe",
    "s.md": "is a socket",
    "zeros.txt": "is a device",
}


@dataclass(frozen=True)
class Outcome:
    folder: Path
    found: Found
    documents: dict[str, Document]
    errors: dict[str, LoadError]
    seconds: dict[str, float]
    grown_bytes: int
    left_behind: set[Path]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Every file of the folder, loaded once."""
    folder = tmp_path_factory.mktemp("hostile") / "files"
    subprocess.run([sys.executable, SCRIPT, folder], check=True, capture_output=True)
    listed = _listing(folder)
    found = find_files(folder)
    documents, errors, seconds = {}, {}, {}
    before = _resident_bytes()
    with Loader(LIMITS, workers=1) as loader:
        for path in found.known:
            name = path.relative_to(folder).as_posix()
            started = time.perf_counter()
            try:
                documents[name] = loader.load(path, document_id=name, source=name)
            except LoadError as error:
                errors[name] = error
            seconds[name] = time.perf_counter() - started
    held = sum(len(document.text) for document in documents.values())
    grown = _resident_bytes() - before - held
    yield Outcome(folder, found, documents, errors, seconds, grown, _listing(folder) ^ listed)
    subprocess.run(["rm", "-rf", folder], check=True)  # noqa: S607 - paths too long for Python's own


def _listing(folder: Path) -> set[Path]:
    return {*folder.iterdir(), *folder.parent.iterdir(), *Path().glob("*owned*")}


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_there_are_enough_of_them(outcome: Outcome) -> None:
    assert len(outcome.found.known) + len(outcome.found.skipped) >= 130
    assert len(outcome.errors) >= 60


def test_every_good_file_loads(outcome: Outcome) -> None:
    good = {path.relative_to(outcome.folder).as_posix() for path in (outcome.folder / "good").iterdir()}
    assert len(good) == 10
    assert good <= set(outcome.documents)
    assert all(outcome.documents[name].text.strip() for name in good)


@pytest.mark.parametrize("name", sorted(REASONS))
def test_a_hostile_file_fails_with_its_reason(outcome: Outcome, name: str) -> None:
    assert REASONS[name] in str(outcome.errors[name])


def test_every_failure_names_the_file_and_a_way_out(outcome: Outcome) -> None:
    for name, error in outcome.errors.items():
        assert error.message.startswith(clean_text(name))
        assert error.hint
        assert clean_text(str(error)) == str(error), "a message must not carry what a file holds"


def test_every_file_ends_within_its_limit(outcome: Outcome) -> None:
    slowest = max(outcome.seconds, key=outcome.seconds.__getitem__)
    assert outcome.seconds[slowest] < LIMITS.seconds + 5, slowest


def test_the_parent_stays_small(outcome: Outcome) -> None:
    assert outcome.grown_bytes < 100 * 2**20


def test_what_is_no_file_is_skipped_with_a_reason(outcome: Outcome) -> None:
    reasons = {path.relative_to(outcome.folder).as_posix(): reason for path, reason in outcome.found.skipped}
    assert SKIPPED.items() <= reasons.items()
    (deep,) = set(reasons) - set(SKIPPED)
    assert reasons[deep] == "is nested too deeply to be opened"


def test_lies_beside_documents_become_notices(outcome: Outcome) -> None:
    assert outcome.found.metadata == {outcome.folder / "one-line.txt": {"ok": "yes"}}
    told = "\n".join(outcome.found.notices)
    for part in (
        "line 1: the pattern has more than 3 wildcards",
        "line 2: the pattern is no pattern",
        "line 4: the pattern is longer than 256",
        "line 1: there is no document '../../../etc/passwd'",
        "line 2: 'page' is a name that crossrag uses itself",
        "line 5: is nested too deeply",
        "line 7: is longer than 1000000 bytes",
    ):
        assert part in told
    assert outcome.folder / "ignored.txt" not in outcome.found.known


def test_whatever_loaded_is_clean_and_cut_exactly(outcome: Outcome) -> None:
    for document in outcome.documents.values():
        document.text.encode("utf-8")
        assert clean_text(document.text) == document.text
        if len(document.text) < 300_000:
            assert all(document.text[chunk.start : chunk.end] == chunk.text for chunk in split(document))


def test_nothing_was_run_and_nothing_was_written(outcome: Outcome) -> None:
    assert outcome.left_behind == set()
    assert not Path("/tmp/owned.txt").exists()  # noqa: S108 - where an archive in the folder points
    assert not any("root:" in document.text for document in outcome.documents.values())
