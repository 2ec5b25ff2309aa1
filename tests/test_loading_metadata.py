"""Front matter and `metadata.jsonl`: what of them reaches a document, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag.loading import find_files, load, load_bytes
from crossrag.loading.metadata import RESERVED, checked_value
from crossrag.types import Chunk, Document


def parse(text: str) -> Document:
    return load_bytes(text.encode(), suffix=".md", document_id="id", source="a.md")


# --- front matter -----------------------------------------------------------------------------------------

YAML = """---
title: Leave policy
team: blue
year: 2026
share: 0.5
public: true
date: 2026-11-03
reviewed: 2026-11-03 09:00:00+01:00
tags: [hr, leave, 7]
none:
---
# Text
"""
TOML = """+++
title = "Leave policy"
team = 'blue'
year = 2026
share = 0.5
public = true
date = 2026-11-03
reviewed = 2026-11-03T09:00:00+01:00
tags = ["hr", "leave", 7]
+++
# Text
"""


@pytest.mark.parametrize("text", [YAML, TOML])
def test_front_matter_becomes_metadata(text: str) -> None:
    document = parse(text)
    assert (document.title, document.text, document.notices) == ("Leave policy", "# Text\n", ())
    assert document.metadata == {
        "team": "blue",
        "year": 2026,
        "share": 0.5,
        "public": True,
        "date": "2026-11-03",
        "reviewed": "2026-11-03T09:00:00+01:00",
        "tags": ["hr", "leave", 7],
    }


@pytest.mark.parametrize(
    ("front", "notice"),
    [
        (
            "a: 1\nb:\n  c: 2",
            "line 3: 'b' is a group of values; text, numbers, true, false",
        ),
        ("a: 1\nb: [[2]]", "line 3: 'b' is a list within a list"),
        ("a: 1\nsource: x", "line 3: 'source' is a name that crossrag uses itself"),
        ("a: 1\nx: .inf", "line 3: 'x' is no finite number"),
        ("a: 1\nx: 99999999999999999999", "line 3: 'x' is a number beyond 2^53; write it as text"),
        ("a: 1\nlast updated: 2", "line 3: 'last updated' is no name to filter by"),
        ("a: 1\nx: !!python/name:os.system y", "line 3: is no YAML: could not determine a constructor"),
        ("a: &x 1\nb: *x", "line 3: is no YAML: references are not allowed"),
        ("title: A: b\na: 1", "line 2: is no YAML: mapping values are not allowed here"),
        ("a: 2026-99-99", "is no YAML: month must be in 1..12"),
        ("a: " + "[" * 5000, "is no YAML"),
    ],
)
def test_what_cannot_be_kept_is_said_with_its_line(front: str, notice: str) -> None:
    document = parse(f"---\n{front}\n---\nText.\n")
    assert document.text == "Text.\n"
    assert len(document.notices) == 1
    assert document.notices[0].startswith("front matter, line ")
    assert notice in document.notices[0]


def test_a_title_survives_yaml_that_is_none() -> None:
    assert parse("---\ntitle: Part 2: the end\n---\nText.\n").title == "Part 2: the end"


def test_broken_toml_is_said_with_its_line() -> None:
    document = parse("+++\na = 1\nb = = 2\n+++\nText.\n")
    assert document.notices == ("front matter, line 3: is no TOML: Invalid value",)
    assert (
        parse("+++\n[table]\nx = 1\n+++\n").notices[0].startswith("front matter, line 2: 'table' is a group")
    )


@pytest.mark.parametrize(
    "text", ["---\n---\nText.\n", "---\n\nText.\n---\n", "+++ b\nText.\n", "--- \n- a\n---\n"]
)
def test_what_is_no_front_matter_stays_text(text: str) -> None:
    document = parse(text)
    assert (document.text, document.metadata, document.notices) == (text, {}, ())


def test_no_name_of_the_payload_can_be_replaced() -> None:
    chunk = Chunk(
        id="1",
        document_id="2",
        source="s",
        text="t",
        start=0,
        end=1,
        position=0,
        page=1,
        page_name="slide 1",
    )
    assert set(chunk.payload()["metadata"]) <= RESERVED


@given(
    st.text(max_size=10) | st.just("key"),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
)
def test_a_value_is_kept_plain_or_refused_with_a_reason(key: str, value: object) -> None:
    kept, reason = checked_value(key, value)
    if not reason:
        values = kept if isinstance(kept, list) else [kept]
        assert all(
            isinstance(each, str | int | float | bool) or (each is None and kept is None) for each in values
        )


# --- metadata.jsonl ---------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_a_sidecar_describes_the_documents_below_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "handbook/leave.md": "---\nteam: red\nkind: policy\n---\n# Leave\n",
            "handbook/pay.txt": "Pay.",
            "metadata.jsonl": '{"source": "handbook/leave.md", "team": "blue", "title": "Leave!"}\n'
            '{"source": "handbook/leave.md", "year": 2026}\n'
            '\n{"source": "./handbook/pay.txt", "year": 2025}\n',
            "handbook/metadata.jsonl": '{"source": "leave.md", "year": 2027}\n',
        },
    )
    found = find_files(tmp_path)
    leave, pay = tmp_path / "handbook/leave.md", tmp_path / "handbook/pay.txt"
    assert found.known == (leave, pay)
    assert found.metadata == {leave: {"team": "blue", "year": 2027, "title": "Leave!"}, pay: {"year": 2025}}
    assert found.notices == ()
    document = load(leave, document_id="1", source="leave.md", metadata=found.metadata[leave])
    assert document.title == "Leave!"
    assert document.metadata == {"team": "blue", "year": 2027, "kind": "policy"}


def test_bad_lines_of_a_sidecar_are_said_and_the_others_count(tmp_path: Path) -> None:
    lines = [
        '{"source": "a.txt", "ok": 1}',
        '{"source": "a.txt", "page": 2, "also": [true, "x"]}',
        "{not json}",
        '["a.txt"]',
        '{"source": "b.txt", "x": 1}',
        '{"source": "../a.txt", "x": 1}',
        '{"source": "a.txt", "x": {"y": 1}}',
    ]
    write(tmp_path, {"a.txt": "A.", "metadata.jsonl": "\n".join(lines)})
    found = find_files(tmp_path)
    assert found.metadata == {tmp_path / "a.txt": {"ok": 1, "also": [True, "x"]}}
    assert len(found.notices) == 6
    for notice, part in zip(
        found.notices,
        [
            "metadata.jsonl, line 2: 'page' is a name",
            "metadata.jsonl, line 3: is no JSON: Expecting property name",
            'metadata.jsonl, line 4: is no object with a "source"',
            "metadata.jsonl, line 5: there is no document 'b.txt'",
            "metadata.jsonl, line 6: there is no document '../a.txt'",
            "metadata.jsonl, line 7: 'x' is a group",
        ],
        strict=True,
    ):
        assert part in notice


def test_a_sidecar_that_is_no_file_does_not_count(tmp_path: Path) -> None:
    import os

    write(tmp_path, {"a.txt": "A."})
    os.mkfifo(tmp_path / "metadata.jsonl")
    found = find_files(tmp_path)
    assert found.known == (tmp_path / "a.txt",)
    (notice,) = found.notices
    assert "metadata.jsonl is no regular file; it does not count" in notice


def test_metadata_are_bounded() -> None:
    many = "\n".join(f"n{number}: {number}" for number in range(70))
    document = parse(f"---\n{many}\n---\n")
    assert len(document.metadata) == 64
    assert document.notices[0] == "front matter, line 66: 'n64' would be more than 64 names"
    long = "\n".join(f"n{number}: {'x' * 4_000}" for number in range(10))
    document = parse(f"---\n{long}\n---\n")
    assert len(document.metadata) == 8
    assert "more than 32768 characters" in document.notices[0]
    wrong = "\n".join(f"source{'x' * (number % 2)}: {{}}" for number in range(300))
    assert parse(f"---\n{wrong}\n---\n").notices[-1] == "and 250 more of this kind"
