"""Make a folder of files that have hurt other readers: bombs, circles, lies about size and type, broken text.

    python scripts/hostile_files.py FOLDER

`FOLDER/good` holds one whole file of every format; everything else is hostile. Same bytes on every run.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from hostile_documents import office_file, office_files, pdfs, small_pdf

MIB = 2**20
LAUGHS = (
    "<!DOCTYPE l [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    + "]><l>&a9;</l>"
)


def texts() -> Iterator[tuple[str, bytes]]:
    """Broken encodings, floods, bombs in front matter."""
    noise = random.Random(1)  # noqa: S311 - the same noise every time
    yield "empty.txt", b""
    yield "only-nul.txt", bytes(4096)
    yield "nul-within.txt", b"before\0after\n" * 2 + b"more words " * 40
    yield "random.txt", noise.randbytes(100_000)
    yield "random.md", noise.randbytes(5_000)
    yield "random.py", noise.randbytes(5_000)
    yield "latin1.txt", "Où êtes-vous allés à la fête ?\n".encode("latin-1") * 2_000
    yield (
        "mixed-encodings.txt",
        "naïve ".encode() * 9 + "naïve ".encode("latin-1") * 9 + "ж".encode("koi8-r") * 9,
    )
    yield "surrogates.txt", "a\ud800b\udfffc".encode("utf-8", "surrogatepass") * 100
    yield "utf16-without-mark.txt", "words ".encode("utf-16-le") * 100
    yield "half-utf32.txt", b"\xff\xfe\0\0abc"
    yield "marks.txt", ("a" + "\u0301\u0323" * 300_000).encode()
    yield "bidi.txt", "\u202e\u2066\u2069 abc \u202d".encode() * 10_000
    yield "noncharacters.txt", "\uffff\ufffe\U0010ffff".encode() * 1_000
    yield "one-line.txt", b"word " * MIB
    yield "one-word.txt", b"x" * (4 * MIB)
    yield "escapes.log", b"\x1b[31m\x1b]0;title\x07" * 5_000
    yield "laughs.xml", LAUGHS.encode()
    yield "fences.md", b"```\n" * 50_001
    yield "quotes.md", b">" * 100_000 + b" deep\n"
    yield "brackets.md", b"[" * 100_000
    yield (
        "yaml-references.md",
        (
            "---\na: &a [x]\n"
            + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
        ).encode()
        + b"---\ntext\n",
    )
    yield "yaml-deep.md", b"---\na: " + b"[" * 30_000 + b"\n---\ntext\n"
    yield "yaml-command.md", b"---\na: !!python/object/apply:os.system ['touch owned']\n---\ntext\n"
    yield "toml-broken.md", b"+++\na = = 1\n+++\ntext\n"


def pages() -> Iterator[tuple[str, bytes]]:
    """Web pages too deep, too wide, never closed."""
    yield "deep.html", b"<div>" * 1_000_000 + b"x"
    yield "deep-table.html", b"<table><tr><td>" * 100_000
    yield "attributes.html", b"<p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">x"
    yield "unclosed.html", b"<main><p>text <b><i><a href='" * 20_000
    yield "laughs.xhtml", LAUGHS.replace("<l>", "<html><body>").encode()
    yield "script.html", b"<script>" + b"a" * MIB
    yield "entities.html", b"&#x110000;&#xd800;&#0;&nosuch;" * 30_000
    yield "comment.html", b"<!--" * 200_000


def records() -> Iterator[tuple[str, bytes]]:
    """JSON, tables and mail too deep, too long, cut."""
    yield "deep.json", b"[" * 1_000_000
    yield "deep-whole.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    yield "number.json", b'{"n": ' + b"9" * 1_000_000 + b"}"
    yield "infinity.json", b'{"n": 1e999999, "m": NaN, "t": "words"}'
    yield "cut.json", b'{"text": "half of it'
    yield "cut.jsonl", b'{"text": "whole"}\n{"text": "ha'
    yield "surrogates.json", b'{"text": "\\ud800 \\udfff"}'
    yield "keys.json", b"{" + b",".join(b'"k%d":"v"' % n for n in range(100_000)) + b"}"
    yield "huge-line.csv", b"name,text\nx," + b"y" * (9 * MIB)
    yield "open-quote.csv", b'name,text\n"' + b"a,b\n" * 200_000
    yield "wide.csv", b",".join(b"c%d" % n for n in range(200_000)) + b"\n" + b"1," * 200_000
    yield "nul.tsv", b"a\tb\n\0\t1\n"
    yield "ragged.csv", b"a,b\n" + b"1,2,3,4\n\n,\n" * 1_000
    yield (
        "deep.eml",
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3_000)),
    )
    yield "header.eml", b"Subject: " + b"x" * (8 * MIB) + b"\n\ntext"
    yield "no-headers.eml", b"\n\nnothing but text"
    yield (
        "charset.eml",
        b"Subject: =?nosuch?b?/////w==?=\nContent-Type: text/plain; charset=nosuch\n\n\xff\xfe text",
    )
    yield (
        "base64.eml",
        b"Subject: x\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(bytes(MIB))[:-3],
    )


def disguises() -> Iterator[tuple[str, bytes]]:
    """One type under the suffix of another, and nothing at all."""
    png, old_office = b"\x89PNG\r\n\x1a\n" + bytes(64), b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
    yield "picture.txt", png
    yield "picture.pdf", png
    yield "photo.docx", b"\xff\xd8\xff\xe0" + bytes(64)
    yield "document.txt", small_pdf("text")
    yield "page.pdf", b"<!doctype html><title>Log in</title>"
    yield "page.docx", b"<html><body>Log in</body></html>"
    yield "words.pdf", b"These are only words.\n"
    yield "words.docx", b"These are only words.\n"
    yield "words.pptx", b"These are only words.\n"
    yield "workbook.docx", office_file("xl/workbook.xml", "<workbook/>")
    yield "document.xlsx", office_file("word/document.xml", "<document/>")
    yield "archive.md", office_file("a.txt", "words")
    yield "packed.json", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(64)
    yield "encrypted.docx", old_office
    yield "old.xlsx", old_office
    yield "program.py", b"\x7fELF\2\1\1" + bytes(64)
    yield "empty.pdf", b""
    yield "empty.docx", b""
    yield "empty.xlsx", b""
    yield "empty.eml", b""


def names() -> Iterator[tuple[bytes, bytes]]:
    """Names that are long, or look like paths or commands."""
    yield b"n" * 251 + b".txt", b"a long name\n"
    yield b"line\nbreak.txt", b"a name in two lines\n"
    yield b"no-utf8-\xff\xfe.txt", b"a name in no encoding\n"
    yield b"no-utf8-\xff\xfe.html", b"<p>a name in no encoding"
    yield b"..%2f..%2fetc%2fpasswd.txt", b"a name that looks like a path\n"
    yield b"back\\slash.txt", b"a name that looks like a path elsewhere\n"
    yield "\u202etxt.fdp.txt".encode(), b"a name that reads backwards\n"
    yield b"$(touch owned);`touch owned`.txt", b"a name that is a command\n"


def special(folder: Path) -> None:
    """What is no regular file, or larger than it is."""
    for name in ("sparse.txt", "sparse.pdf", "sparse.csv"):
        with (folder / name).open("wb") as file:
            file.truncate(2**30)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "circle.txt").symlink_to(folder / "circle.txt")
    (folder / "nowhere.txt").symlink_to(folder / "there-is-none.txt")
    (folder / "zeros.txt").symlink_to("/dev/zero")
    (folder / "out.txt").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.txt")
    os.mkfifo(folder / "pipe.pdf")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s.md"))
    deep = folder / "deep"
    deep.mkdir()
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(deep)
        for _ in range(30):  # 30 times 200 is more than a path may have
            os.mkdir("d" * 200)  # noqa: PTH102 - no path reaches there
            os.chdir("d" * 200)
    finally:
        os.fchdir(here)
        os.close(here)


def beside(folder: Path) -> None:
    """Files that say something of other files, and lie."""
    (folder / ".gitignore").write_bytes(
        b"*a*a*a*a*a*a*a*a*b\n[z-a]\n**/a/**/a/**/a/**/b\n" + b"x" * 10_000 + b"\n\xff\xfe\nignored*\n"
    )
    (folder / "ignored.txt").write_bytes(b"not to be read\n")
    (folder / "metadata.jsonl").write_bytes(
        b'{"source": "../../../etc/passwd", "a": 1}\n{"source": "one-line.txt", "page": 7, "ok": "yes"}\n'
        b'{"source": "one-line.txt", "deep": {"a": {}}, "big": 1e999}\nno json\n' + b"[" * 100_000 + b"\n"
        b'{"source": 7}\n{"source": "one-line.txt", "k": "' + b"v" * MIB + b'"}\n'
    )


def good() -> Iterator[tuple[str, bytes]]:
    """One whole file of every format that needs no extra."""
    yield "a.txt", b"Plain words.\n"
    yield "b.md", b"---\ntitle: Guide\nteam: blue\n---\n# Guide\n\nText.\n"
    yield "c.rst", b"Title\n=====\n\nText.\n"
    yield "d.html", b"<title>Page</title><main><p>Text.</p></main>"
    yield "e.pdf", small_pdf("First page", "Second page")
    yield "f.csv", b"name,role\nAnna,nurse\n"
    yield "g.json", b'{"title": "T", "text": "Words."}'
    yield "h.jsonl", b'{"text": "one"}\n{"text": "two"}\n'
    yield "i.eml", b"From: a@example.org\nSubject: Hello\n\nText.\n"
    yield "j.py", b"def answer():\n    return 42\n"


def make(folder: Path) -> None:
    """Fill an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good").mkdir()
    for name, data in good():
        (folder / "good" / name).write_bytes(data)
    for group in (texts(), pages(), records(), disguises(), pdfs(), office_files()):
        for name, data in group:
            (folder / name).write_bytes(data)
    for raw, data in names():
        (folder / os.fsdecode(raw)).write_bytes(data)
    special(folder)
    beside(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args().folder
    make(chosen)
    print(f"{sum(1 for _ in os.scandir(chosen))} entries in {chosen}")
