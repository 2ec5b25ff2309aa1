"""Near-duplicates are one candidate that stands for all; what differs in a number is two."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag import Rag, likeness
from crossrag.config import RetrievalSettings
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.types import Candidate, Chunk, Scores

from .test_sync import opened, write

TEXT = (
    "A backup is written every night at two and kept for thirty days. To restore it, stop the service, run"
    " the restore command with the name of the backup, and start the service again. The command asks before"
    " it overwrites anything, and says how many records were restored when it is done. Keep a copy elsewhere."
)


def candidate(text: str, number: int = 0) -> Candidate:
    chunk = Chunk(
        id=str(number),
        document_id=str(number),
        source=f"{number}.txt",
        text=text,
        start=0,
        end=len(text),
        position=0,
        minhash=likeness.mark(text),
    )
    return Candidate(chunk=chunk, scores=Scores())


@pytest.mark.parametrize(
    ("other", "threshold", "alike"),
    [
        (TEXT, 1.0, True),
        (TEXT.upper().replace(".", " !"), 1.0, True),
        (TEXT.replace("Keep a copy", "Keep copies"), 0.9, True),
        (TEXT.replace("Keep a copy", "Keep copies"), 1.0, False),
        (TEXT + " This is said in 2024.", 0.8, False),
        (TEXT[:150], 0.9, False),
        ("Whales are mammals; the blue whale is the largest animal that ever lived.", 0.5, False),
        ("", 0.5, False),
    ],
)
def test_what_counts_as_the_same(*, other: str, threshold: float, alike: bool) -> None:
    kept = likeness.collapse([candidate(TEXT), candidate(other, 1)], threshold=threshold)
    assert len(kept) == (1 if alike else 2)
    assert [chunk.id for chunk in kept[0].duplicates] == (["1"] if alike else [])


def test_numbers_keep_passages_apart() -> None:
    years = [candidate(f"{TEXT} The budget of {year} was met.", year) for year in (2023, 2024)]
    assert len(likeness.collapse(years, threshold=0.5)) == 2


def test_empty_and_unmarked_passages_stay() -> None:
    empty = [candidate("", number) for number in range(3)]
    assert likeness.collapse(empty, threshold=0.9) == empty
    assert likeness.collapse([], threshold=0.9) == []


def test_a_mark_is_the_same_in_every_version() -> None:
    """Marks are stored: if this fails, raise `likeness.FINGERPRINT`."""
    assert likeness.mark("one two three four") == MARK


MARK = "OUnGF4mGa5b0xLNV5XnXINmp1ebAWobKJlOELBzGMlzjELnuKd7g/6zKQ29QG633yDVZWLQDTZ6wBV9+3ohdRg=="


def test_duplicates_are_found_once_and_told(in_memory: Path) -> None:
    docs = in_memory / "likeness"
    write(
        docs, first=TEXT, copy=TEXT.replace("asks before", "will ask before"), other="Whales restore nothing."
    )
    with opened(in_memory / "likeness-index") as rag:
        rag.ingest(docs)
        everything = rag.search("restore a backup", top_k=20)
        settings = rag.settings.model_copy(update={"retrieval": RetrievalSettings()})
    with Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms()) as rag:
        found = rag.search("restore a backup", top_k=20)
    collapsed = [one for one in found if one.duplicates]
    assert {chunk.source for one in collapsed for chunk in (one.chunk, *one.duplicates)} == {
        "likeness/first.txt",
        "likeness/copy.txt",
    }
    assert "likeness/other.txt" in {one.chunk.source for one in found}
    assert len({one.chunk.text for one in found}) == len(found)
    assert len(everything) == len(found) + sum(len(one.duplicates) for one in found)
