"""Any bytes under any suffix, and any name: clean text with exact offsets, or a LoadError; nothing else.

The seed is printed; CROSSRAG_TEST_BYTES says how many byte strings, 10 000 if nothing else is said.
"""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import pytest

from crossrag.chunking import split
from crossrag.errors import LoadError
from crossrag.loading import SUPPORTED_SUFFIXES, Loader, clean_text, find_files, load_bytes

COUNT = int(os.environ.get("CROSSRAG_TEST_BYTES", "10000"))
SEED = int(os.environ.get("CROSSRAG_TEST_SEED", "20261124"))
PIECES = (
    *(
        "\ud800",
        "\udfff",
        "\0",
        "\u202e",
        "\uffff",
        "\u0301" * 40,
        "\U000e0041",
        "\u2028",
        "\r\n",
        "\x85",
        "\x1b[1m",
    ),
    *(
        "word ",
        "word " * 50,
        "# ",
        "---\n",
        "a: b\n",
        "+++\n",
        "```\n",
        "|",
        ",",
        ";",
        '"',
        "{",
        "}",
        "[",
        "]",
        "é",
    ),
    *(
        "<p>",
        "<main>",
        "<table><tr><td>",
        "&#0;",
        "From: x\n",
        "\n\n",
        "Content-Type: multipart/mixed; boundary=b\n",
    ),
    *("--b\n", "=====\n", "%PDF-1.4\n", "PK\3\4", "\u200b", "x" * 3_000),
)


def check(data: bytes, suffix: str) -> None:
    try:
        document = load_bytes(data, suffix=suffix, document_id="1", source="a" + suffix)
    except LoadError as error:
        told = str(error)
        assert (bool(error.hint), clean_text(told)) == (True, told)  # noqa: PT017 - either outcome is right
        return
    for text in (document.text, document.title, *document.page_names, *document.notices):
        text.encode("utf-8")
        assert clean_text(text) == text
    starts = document.page_starts
    assert list(starts) == sorted(starts)
    assert not starts or starts[-1] <= len(document.text)
    assert len(document.page_names) in {0, len(starts)}
    for chunk in split(document, size=200, overlap=30):
        assert document.text[chunk.start : chunk.end] == chunk.text


def strings(seed: int, count: int) -> list[bytes]:
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311 - a test that can be repeated
    made = []
    for _ in range(count):
        if dice.random() < 0.3:
            made.append(dice.randbytes(dice.randrange(400)))
        else:
            text = "".join(dice.choices(PIECES, k=dice.randrange(30)))
            made.append(text.encode(dice.choice(("utf-8", "utf-16", "utf-32")), "surrogatepass"))
    return made


def test_any_bytes_under_any_suffix() -> None:
    dice = random.Random(SEED)  # noqa: S311
    for data in strings(SEED, COUNT):
        suffix = dice.choice(SUPPORTED_SUFFIXES)
        try:
            check(data, suffix)
        except Exception as error:
            raise AssertionError(f"{suffix} {data[:200]!r} of seed {SEED}") from error


def office_files() -> dict[str, bytes]:
    from openpyxl import Workbook
    from pptx import Presentation

    deck, book = Presentation(), Workbook()
    deck.slides.add_slide(deck.slide_layouts[0]).shapes.title.text = "Title"
    sheet = book.create_sheet("S", 0)
    sheet.append(["name", "role"])
    sheet.append(["Anna", 7])
    slides, rows, words = io.BytesIO(), io.BytesIO(), io.BytesIO()
    deck.save(slides)
    book.save(rows)
    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    with zipfile.ZipFile(words, "w") as archive:
        body = "<w:p><w:r><w:t>words</w:t></w:r></w:p>" * 3
        archive.writestr("word/document.xml", f"<w:document {namespace}><w:body>{body}</w:body></w:document>")
    return {".pptx": slides.getvalue(), ".xlsx": rows.getvalue(), ".docx": words.getvalue()}


def damaged(data: bytes, dice: random.Random) -> bytes:
    """The archive with bytes of one of its parts changed, and the archive itself whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = [name for name in old.namelist() if name.endswith((".xml", ".rels"))]
        chosen = dice.choice([name for name in names if "theme" not in name and "Layout" not in name])
        for name in old.namelist():
            part = bytearray(old.read(name))
            if name == chosen:
                for _ in range(dice.randrange(1, 4)):
                    at = dice.randrange(len(part))
                    part[at : at + dice.randrange(30)] = dice.choice(
                        (b"", b"<", b"&x;", b"9999999999", b"r:id='x'")
                    )
            new.writestr(name, bytes(part))
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")  # the libraries warn of what they mend
@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx"])
def test_damaged_office_files(suffix: str) -> None:
    dice = random.Random(SEED)  # noqa: S311
    whole = office_files()[suffix]
    check(whole, suffix)
    for number in range(COUNT // 50):
        data = damaged(whole, dice)
        try:
            check(data, suffix)
        except Exception as error:
            raise AssertionError(f"number {number} of seed {SEED}") from error


# --- names ------------------------------------------------------------------------------------------------


def hostile_names() -> list[str]:
    """Five hundred names that lead somewhere else when somebody takes them for paths."""
    steps = ["..", "..%2f", "..%5c", "%2e%2e", "..\\", "....//", "..;", "\u2025", "\uff0e\uff0e", "..\0"]
    slashes = ["/", "\\", "%2f", "\u2215", "\u2044", "\uff0f"]
    ends = ["etc/passwd", "etc\\passwd", "owned.txt", "CON", "NUL.txt", "~root/x", "$HOME/x", "C:\\x"]
    walks = [step + slash + end for step in steps for slash in slashes for end in ends]
    others = ["/etc/passwd", "//host/share", "file:///etc/passwd", "\\\\?\\C:\\x", "a" * 300, "a/" * 300]
    more = ["", ".", "..", "...", " ", "\n", "\u202egpj.txt", "\udcff", "`touch owned`", "$(touch owned)"]
    return [*walks, *others, *more, "a\0b", "\x1b[2J", "-rf", "|true"]


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_names_are_not_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = hostile_names()
    assert len(names) == 500
    folder = tmp_path / "a" / "b" / "docs"
    folder.mkdir(parents=True)
    for name in names:  # the files themselves, where a name of one part can be one
        part = name.replace("/", "_").replace("\0", "_")[:200]
        (folder / f"n{part}.txt").write_text("words", encoding="utf-8")
    lines = "\n".join(f'{{"source": {ascii(name)!s}, "x": 1}}'.replace("'", '"') for name in names[:200])
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(folder)
    before = tree(tmp_path)
    for name in names:
        document = load_bytes(b"words", suffix=".txt", document_id=name, source=name, metadata={"x": name})
        document.source.encode("utf-8")
        assert len(split(document)) == 1
    found = find_files(folder)
    assert len(found.known) > 400
    with Loader(workers=1) as loader:
        for path in found.known:
            assert loader.load(path, document_id=str(path), source=path.name).text == "words"
    assert tree(tmp_path) == before
