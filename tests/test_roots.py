"""Which folder is named, and in which order, does not change what a document is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrag import UsageError, maintenance, places
from crossrag.testing import HashedEmbedder

from .test_sync import digest, lines, opened, write

if TYPE_CHECKING:
    from crossrag import Rag


@pytest.fixture
def embedder() -> HashedEmbedder:
    return HashedEmbedder()


@pytest.fixture
def rag(in_own_memory: Path, embedder: HashedEmbedder) -> Iterator[Rag]:
    with opened(in_own_memory / "index", embedder) as made:
        yield made


@pytest.fixture
def docs(in_own_memory: Path) -> Path:
    folder = in_own_memory / "docs"
    write(folder, top="About the top.")
    write(folder / "sub", a=lines("a", 1, 3), b="About b.")
    return folder


def test_a_wider_folder_gives_its_name_and_embeds_nothing_again(
    rag: Rag, docs: Path, embedder: HashedEmbedder
) -> None:
    rag.ingest(docs / "sub")
    assert [entry.source for entry in rag.documents()] == ["sub/a.txt", "sub/b.txt"]
    calls = embedder.calls
    report = rag.ingest(docs)
    assert (report.added, report.updated, report.unchanged) == (1, 2, 0)
    assert embedder.calls == calls + 1
    names = [entry.source for entry in rag.documents()]
    assert names == ["docs/sub/a.txt", "docs/sub/b.txt", "docs/top.txt"]
    for narrower in (docs / "sub", docs / "sub" / "a.txt"):
        assert rag.ingest(narrower).updated == 0
    assert [entry.source for entry in rag.documents()] == names


def test_the_order_of_folders_does_not_matter(docs: Path, in_own_memory: Path) -> None:
    places = (docs, docs / "sub", docs / "sub" / "a.txt")
    digests = set()
    for number, order in enumerate(permutations(places)):
        with opened(in_own_memory / f"one after another {number}") as rag:
            for place in order:
                rag.ingest(place)
            digests.add(digest(rag))
        with opened(in_own_memory / f"at once {number}") as rag:
            rag.ingest(*order)
            digests.add(digest(rag))
    assert len(digests) == 1


def test_what_is_said_further_up_counts_whichever_folder_is_named(rag: Rag, docs: Path) -> None:
    write(docs / "sub", ign="To be left out.")
    (docs / ".gitignore").write_text("ign.txt\n", encoding="utf-8")
    (docs / "metadata.jsonl").write_text(
        '{"source": "sub/a.txt", "access": "confidential"}\n{"source": "top.txt", "access": "all"}\n',
        encoding="utf-8",
    )
    rag.ingest(docs)
    before = digest(rag)
    for narrower in (docs / "sub", docs / "sub" / "a.txt"):
        report = rag.ingest(narrower)
        assert (report.added, report.updated, report.notices) == (0, 0, ())
        assert digest(rag) == before
    found = rag.search("Line of a", where={"not": {"access": "confidential"}}, top_k=50)
    assert {one.chunk.source for one in found} == {"docs/sub/b.txt", "docs/top.txt"}


def test_a_new_index_of_a_part_is_told_too(rag: Rag, docs: Path) -> None:
    (docs / "metadata.jsonl").write_text(
        '{"source": "sub/a.txt", "access": "confidential", "year": 1}\nno json\n', encoding="utf-8"
    )
    (docs / "sub" / "metadata.jsonl").write_text('{"source": "a.txt", "year": 2}\n', encoding="utf-8")
    report = rag.ingest(docs / "sub" / "a.txt")
    assert [entry.metadata for entry in rag.documents()] == [{"access": "confidential", "year": 2}]
    (notice,) = report.notices
    assert f"{docs}/metadata.jsonl, line 2: is no JSON" in notice


def test_no_index_is_made_of_an_index(docs: Path) -> None:
    def names(rag: Rag) -> list[str]:
        return [entry.source for entry in rag.documents()]

    wanted = ["docs/sub/a.txt", "docs/sub/b.txt", "docs/top.txt"]
    with opened(docs / "other") as other:
        other.ingest(docs / "sub")
    with opened(docs / "other") as other:
        maintenance.reindex(other.index)  # into a subfolder that `current` names
    with opened(docs / "idx") as rag:
        for skipped in (["docs/other"], ["docs/idx", "docs/other"]):
            report = rag.ingest(docs)
            assert names(rag) == wanted
            assert [(one.source, one.reason) for one in report.skipped] == [
                (name, "is an index of crossrag") for name in skipped
            ]
        for folder in (docs / "idx", docs / "other"):
            with pytest.raises(UsageError, match=r"is the folder of an index\. Name the folder"):
                rag.ingest(folder)
    (docs / "near").mkdir()
    (docs / "near" / "fingerprint.json").write_text(
        '{"a": "A file that may be called so."}', encoding="utf-8"
    )
    with opened(docs / "idx") as rag:
        assert rag.ingest(docs).added == 1


def test_what_an_index_is_known_by(rag: Rag, docs: Path, in_own_memory: Path) -> None:
    rag.ingest(docs)
    assert places.is_index(in_own_memory / "index")
    assert not places.is_index(docs)
    assert not places.is_index(in_own_memory / "nowhere")
