"""Chunks of any text: exact offsets, nothing lost, nothing too long, and the headings above each."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossrag.chunking import Unit, fingerprint, split
from crossrag.errors import UsageError
from crossrag.loading import clean_text
from crossrag.types import Chunk, Document

MARKUP = [
    "# ",
    "## ",
    "\n\n",
    "\n",
    "```\n",
    "- ",
    "---\n",
    "===\n",
    "| a | b |\n|--|--|\n",
    "> ",
    "<div>",
    "\n    ",
]
PIECES = [
    *MARKUP,
    "word ",
    "A sentence. ",
    "e\u0301",
    "\U0001f469\u200d\U0001f4bb",
    "中文。",
    "\r\n",
    "\u3000",
    "[^1]: ",
]


def document(text: str, *, markdown: bool = False, **fields: Any) -> Document:
    return Document(id="doc", source="doc.md", text=text, markdown=markdown, **fields)


def paths(text: str, size: int = 40) -> list[tuple[str, ...]]:
    return [chunk.title_path for chunk in split(document(text, markdown=True), size=size, overlap=0)]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token per word, one per sign; with the truncation and padding that model folders have."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path = tmp_path_factory.mktemp("model") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


# --- what holds for every text ----------------------------------------------------------------------------


def check(text: str, chunks: list[Chunk]) -> None:
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert all(chunk.text and chunk.text == chunk.text.strip() for chunk in chunks)
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert all(one.start < two.start and one.end < two.end for one, two in pairwise(chunks))
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    covered = 0
    for chunk in chunks:
        assert text[covered : max(covered, chunk.start)].strip() == ""
        covered = chunk.end
    assert text[covered:].strip() == ""


KINDS = st.sampled_from([{"markdown": True}, {"markdown": False}])
texts = st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))


@settings(max_examples=300)
@given(st.one_of(texts, texts.map(clean_text)), st.integers(1, 60), st.integers(0, 59), KINDS)
# The library's own trimming gives two chunks the same start here.
@example("中\n\n b\r中---\na_\x85` \U0001f469.= ", 3, 2, {"markdown": True})
@example("\x1f\n\x1e a", 1, 0, {"markdown": False})
def test_any_text(text: str, size: int, overlap: int, kind: dict[str, bool]) -> None:
    chunks = split(document(text, **kind), size=size, overlap=min(overlap, size - 1))
    check(text, chunks)
    assert all(len(chunk.text) <= size for chunk in chunks)


@settings(max_examples=100, deadline=None)
@given(text=texts, size=st.integers(1, 20), overlap=st.integers(0, 19), kind=KINDS)
def test_any_text_in_tokens(
    tokenizer_file: Path, text: str, size: int, overlap: int, kind: dict[str, bool]
) -> None:
    from tokenizers import Tokenizer

    counting = Tokenizer.from_file(str(tokenizer_file))
    counting.no_truncation()
    counting.no_padding()
    chunks = split(
        document(text, **kind),
        size=size,
        overlap=min(overlap, size - 1),
        unit="tokens",
        tokenizer_file=tokenizer_file,
    )
    check(text, chunks)
    assert all(len(counting.encode(chunk.text).ids) <= size for chunk in chunks)


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize("piece", ["a", "word ", "Some words.\n\n", "# a\n", "中", " ", "a\u0301", "- x\n"])
def test_long_texts_across_windows(piece: str, markdown: bool) -> None:  # noqa: FBT001
    text = piece * (90_000 // len(piece))
    chunks = split(document(text, markdown=markdown))
    check(text, chunks)
    assert all(len(chunk.text) <= 800 for chunk in chunks)


def test_windows_leave_no_trace() -> None:
    from semantic_text_splitter import TextSplitter

    text = "".join(
        f"This is sentence {number} of a text. " + "\n\n" * (number % 7 == 0) for number in range(3000)
    )
    whole = [piece.strip() for piece in TextSplitter(800, overlap=150, trim=False).chunks(text)]
    assert [chunk.text for chunk in split(document(text))] == whole


def test_time_grows_with_the_text_not_with_its_square() -> None:
    started = time.perf_counter()
    split(document("a" * 1_000_000))
    split(document("A line of words.\n\n# Heading\n" * 20_000, markdown=True))
    assert time.perf_counter() - started < 10


# --- chunks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   \n\n\t "])
def test_no_text_gives_no_chunks(text: str) -> None:
    assert split(document(text)) == []


def test_neighbours_overlap() -> None:
    text = " ".join(f"Sentence number {number}." for number in range(30))
    one, two = split(document(text), size=100, overlap=40)[:2]
    assert 0 < one.end - two.start <= 40
    assert all(two.start >= one.end for one, two in pairwise(split(document(text), size=100, overlap=0)))


def test_cuts_fall_between_paragraphs() -> None:
    text = "First one here.\n\nSecond one, longer.\n\nThird."
    assert [chunk.text for chunk in split(document(text), size=25, overlap=0)] == text.split("\n\n")


def test_a_chunk_has_what_its_document_has() -> None:
    [chunk] = split(document("text", title="Title", metadata={"team": "a"}))
    assert (chunk.document_id, chunk.source, chunk.title) == ("doc", "doc.md", "Title")
    assert chunk.metadata == {"team": "a"}
    assert chunk.page is None
    assert chunk.title_path == ()


def test_ids_tell_document_generation_position_and_text_apart_and_nothing_else() -> None:
    [one] = split(document("text", title="a"))
    [same] = split(document("text", title="b", metadata={"x": 1}))
    [other] = split(document("texts"))
    [later] = split(document("text", title="a"), generation="2")
    first, second = split(document("ab ab"), size=2, overlap=0)
    [elsewhere] = split(Document(id="\udcff.md", source="x", text="text"))
    assert one.id == same.id == "6f7ad4ce-f156-5045-a180-076826ca8cad"
    assert UUID(one.id).version == 5
    assert later.generation == "2"
    assert len({one.id, other.id, later.id, first.id, second.id, elsewhere.id}) == 6


def test_page_of_a_chunk_is_where_it_starts() -> None:
    pages = ("First page.", "", "Third page.", "Fourth page.")
    starts = (0, 13, 15, 28)
    chunks = split(document("\n\n".join(pages), page_starts=starts), size=12, overlap=0)
    assert [(chunk.text, chunk.page) for chunk in chunks] == [
        ("First page.", 1),
        ("Third page.", 3),
        ("Fourth page.", 4),
    ]


# --- headings ---------------------------------------------------------------------------------------------


def test_title_paths_follow_the_headings() -> None:
    text = (
        "Before any heading, some words.\n\n# A\n\nText of A that is long enough.\n\n"
        "## B\n\nText of B, which is long.\n\n"
        "### C\n\nText of C, which is long.\n\n## D\n\nText of D, which is long.\n\n"
        "# E\n\nText of E, which is long."
    )
    assert paths(text) == [(), ("A",), ("A", "B"), ("A", "B", "C"), ("A", "D"), ("E",)]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("# A\n\nx", ("A",)),
        ("### Deep first\n\n## Then higher\n\nx", ("Then higher",)),
        ("   # Indented\n\nx", ("Indented",)),
        ("    # code\n\nx", ()),
        ("#no-space\n\nx", ()),
        ("####### seven\n\nx", ()),
        ("# Closed ##\n\nx", ("Closed",)),
        ("# C#\n\nx", ("C#",)),
        ("# A\n\n##\n\nx", ("A",)),
        ("Title\n=====\n\nPart\n----\n\nx", ("Title", "Part")),
        ("Two\nlines\n---\n\nx", ("Two lines",)),
        ("# A\n\n---\n\nx", ("A",)),
        ("- item\n---\n\nx", ()),
        ("1. item\n   more\n---\n\nx", ()),
        ("> quote\n---\n\nx", ()),
        ("| a |\n---\n\nx", ()),
        ("```\n# code\n```\n\nx", ()),
        ("~~~sh\n# code\n```\n# code\n~~~\n\nx", ()),
        ("````\n```\n# code\n````\n# B\n\nx", ("B",)),
        ("- list\n\n      ```sh\n      # code\n      ```\n\n# B\n\nx", ("B",)),
        ("```never``` a fence\n\n# B\n\nx", ("B",)),
        ("# A\n\n```\n# unclosed\n\nx", ("A",)),
        ("<!--\n# hidden\n-->\n\nx", ()),
        ("<!-- short -->\n\n# B\n\nx", ("B",)),
        ("<pre>\n# raw\n</pre>\n\nx", ()),
        ("# The `--flag` **and** [link](http://e.test) {#anchor}\n\nx", ("The --flag and link",)),
        ("# snake_case 2 * 3 * 4 <a name='x'></a>\n\nx", ("snake_case 2 * 3 * 4",)),
    ],
)
def test_what_is_a_heading(text: str, path: tuple[str, ...]) -> None:
    chunks = split(document(text, markdown=True), size=len(text), overlap=0)
    last = split(document(text + "\n" * 9, markdown=True), size=1, overlap=0)[-1]
    assert last.text == "x"
    assert last.title_path == path
    assert len(chunks) == 1


def test_a_chunk_that_begins_with_a_heading_has_it_in_its_path() -> None:
    text = "# A\n\nSome text.\n\nB\n---\n\nOther text."
    chunks = split(document(text, markdown=True), size=20, overlap=0)
    assert [(chunk.text[:1], chunk.title_path) for chunk in chunks] == [("#", ("A",)), ("B", ("A", "B"))]


def test_headings_of_plain_text_do_not_count() -> None:
    assert split(document("# A\n\ntext"))[0].title_path == ()


def test_an_endless_heading_is_cut() -> None:
    chunks = split(document("# " + "word " * 2000, markdown=True))
    assert len(chunks) > 5
    assert all(len(chunk.title_path[0]) <= 200 for chunk in chunks)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (10, 10), (10, 11), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="Choose a size"):
        split(document("text"), size=size, overlap=overlap)


def test_an_unknown_unit_is_refused() -> None:
    unit: Any = "token"
    with pytest.raises(UsageError, match=r"unit is 'token'\. Did you mean 'tokens'"):
        split(document("text"), unit=unit)
    assert get_args(Unit) == ("characters", "tokens")


def test_tokens_need_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give tokenizer_file"):
        split(document("text"), unit="tokens")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    for path in (tmp_path / "tokenizer.json", tmp_path / "none.json"):
        with pytest.raises(UsageError, match=r"is no tokenizer.*tokenizer\.json"):
            split(document("text"), unit="tokens", tokenizer_file=path)


def test_fingerprints(tokenizer_file: Path, tmp_path: Path) -> None:
    assert fingerprint(800, 150) == "characters:800:150:v1"
    assert fingerprint(200, 40, "tokens") == "tokens:200:40:v1"
    named = fingerprint(200, 40, "tokens", tokenizer_file)
    copy = tmp_path / "copy.json"
    copy.write_bytes(tokenizer_file.read_bytes())
    assert named.startswith("tokens:200:40:")
    assert named == fingerprint(200, 40, "tokens", copy)
    copy.write_bytes(b"other")
    assert named != fingerprint(200, 40, "tokens", copy)
