"""What the generator may use: neighbours taken in, copies left out, the budget kept, offsets exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag.context import assemble
from crossrag.types import Candidate, Chunk, Scores

from .answers import candidate

SENTENCES = [f"Sentence {number} of this small document ends here." for number in range(8)]
DOCUMENT = "\n\n".join(SENTENCES)
CHUNKS = [
    Chunk(
        id=str(number),
        document_id="d",
        source="d.md",
        text=text,
        start=DOCUMENT.index(text),
        end=DOCUMENT.index(text) + len(text),
        position=number,
        title_path=("Top",) if number < 6 else ("Top", "Below") if number == 6 else ("Other",),
    )
    for number, text in enumerate(SENTENCES)
]


def found(*numbers: int) -> list[Candidate]:
    return [
        Candidate(chunk=CHUNKS[n], scores=Scores(relevance=1 - rank / 10)) for rank, n in enumerate(numbers)
    ]


def around(radius: int) -> Callable[[Chunk], Sequence[Chunk]]:
    return lambda chunk: [one for one in CHUNKS if abs(one.position - chunk.position) <= radius]


def spans(candidates: Sequence[Candidate], **options: object) -> list[tuple[int, int]]:
    used = assemble(candidates, **options)  # type: ignore[arg-type]
    for source in used.sources:
        assert DOCUMENT[source.chunk.start : source.chunk.end] == source.chunk.text
    return [(source.chunk.start, source.chunk.end) for source in used.sources]


def test_a_passage_takes_in_its_neighbours_with_exact_offsets() -> None:
    assert spans(found(3)) == [(CHUNKS[3].start, CHUNKS[3].end)]
    assert spans(found(3), neighbours=around(1)) == [(CHUNKS[2].start, CHUNKS[4].end)]
    assert spans(found(0), neighbours=around(2)) == [(0, CHUNKS[2].end)]


def test_two_that_meet_become_one_in_the_place_of_the_better() -> None:
    used = assemble(found(4, 0, 2), neighbours=around(1))
    assert len(used.sources) == 1
    assert used.sources[0].chunk_ids == ("0", "2", "4")
    assert used.sources[0].relevance == 1.0
    assert used.sources[0].chunk.text == DOCUMENT[: CHUNKS[5].end]


def test_neighbours_of_another_section_stay_out() -> None:
    # Below belongs to Top, Other does not.
    assert spans(found(5), neighbours=around(2)) == [(CHUNKS[3].start, CHUNKS[6].end)]
    assert spans(found(7), neighbours=around(2)) == [(CHUNKS[7].start, CHUNKS[7].end)]


def test_neighbours_never_push_out_what_was_found() -> None:
    cost = len(SENTENCES[0])
    options = {"count_tokens": len, "neighbours": around(1)}
    assert len(spans(found(1, 4), token_budget=2 * cost, **options)) == 2
    # Room for one more sentence is no room for the two beside the first.
    assert spans(found(1, 4), token_budget=3 * cost, **options) == spans(found(1, 4))
    # With it, it goes to the better passage, and is the one behind.
    assert spans(found(1, 5), token_budget=3 * cost + 2, **options) == [
        (CHUNKS[1].start, CHUNKS[2].end),
        (CHUNKS[5].start, CHUNKS[5].end),
    ]
    wide = spans(found(1, 5), token_budget=4 * cost + 10, **options)
    assert wide == [(0, CHUNKS[2].end), (CHUNKS[5].start, CHUNKS[5].end)]


def test_of_chunks_that_touch_the_best_ones_fit() -> None:
    """Together they are larger than the budget; that is no reason to lose all of them, or to keep all."""
    text = "".join(f"This is part {number} of it. " for number in range(6))
    size = len(text) // 6
    parts = [candidate(text[at : at + size], start=at) for at in range(0, len(text), size)]
    other = candidate("Another passage of a document.", document="b")
    used = assemble([parts[2], other, *parts[3:], *parts[:2]], token_budget=4 * size + 10, count_tokens=len)
    assert [source.chunk_ids for source in used.sources] == [("a44", "a66", "a88"), ("b0",)]
    assert used.sources[0].chunk.text == text[2 * size : 5 * size]
    assert (used.tokens, used.dropped) == (3 * size + 30, 3)
    # Not the best one, and too long as a whole: what fits of it goes in.
    used = assemble([other, *parts], token_budget=30 + 2 * size, count_tokens=len)
    assert [source.chunk_ids for source in used.sources] == [("b0",), ("a0", "a22")]


def test_the_best_neighbours_are_the_nearest() -> None:
    cost = len(SENTENCES[0])
    options = {"count_tokens": len, "neighbours": around(2)}
    spread = [spans(found(3), token_budget=(1 + more) * cost + 2 * more, **options)[0] for more in range(5)]
    wanted = [(3, 3), (3, 4), (2, 4), (2, 5), (1, 5)]
    assert spread == [(CHUNKS[first].start, CHUNKS[last].end) for first, last in wanted]


def test_a_neighbour_too_long_for_one_side_leaves_the_other() -> None:
    long = replace(CHUNKS[4], text=CHUNKS[4].text + "x" * 200, end=CHUNKS[4].end + 200)
    used = assemble(
        found(3),
        count_tokens=len,
        token_budget=130,
        neighbours=lambda _: [CHUNKS[2], long, replace(CHUNKS[5], start=long.end + 2, end=long.end + 54)],
    )
    assert used.sources[0].chunk.text == DOCUMENT[CHUNKS[2].start : CHUNKS[3].end]


def test_a_short_chunk_that_is_left_out_is_no_white_space() -> None:
    """What stands beyond it does not join on, however near it is."""
    short = replace(CHUNKS[4], text="So.", end=CHUNKS[4].start + 3, title_path=("Other",))
    beyond = replace(CHUNKS[5], start=short.end + 2, end=short.end + 2 + len(CHUNKS[5].text))
    used = assemble(found(3), neighbours=lambda _: [short, beyond])
    assert used.sources[0].chunk.text == CHUNKS[3].text


def test_without_room_nobody_is_asked_for_neighbours() -> None:
    def never(chunk: Chunk) -> Sequence[Chunk]:
        raise AssertionError(chunk)

    assert assemble(found(3), token_budget=1, neighbours=never).sources


def test_copies_and_parts_are_dropped() -> None:
    whole = candidate("A backup is written every night.\nAt two.", document="a")
    copy = candidate("A backup is written  every night. At two.", document="b")
    part = candidate("At two.", document="c")
    used = assemble([whole, copy, part])
    assert [source.chunk.document_id for source in used.sources] == ["a"]
    assert used.dropped == 0
    # A better part is no reason to lose the whole.
    assert len(assemble([part, whole]).sources) == 2


def test_both_ends() -> None:
    five = [candidate(f"text {name}", document=name) for name in "abcde"]
    used = assemble(five, order="both-ends")
    assert [source.chunk.document_id for source in used.sources] == ["a", "c", "e", "d", "b"]
    assert [source.number for source in used.sources] == [1, 3, 5, 4, 2]
    assert sorted(source.number for source in used.sources) == [1, 2, 3, 4, 5]


def test_titles_are_kept() -> None:
    titled = replace(CHUNKS[3], title="Handbook", page=2)
    used = assemble([Candidate(chunk=titled, scores=Scores())], neighbours=around(1))
    assert used.sources[0].chunk.title == "Handbook"
    # Its neighbour before stands on another page, and is not what was found.
    assert used.sources[0].chunk.page == 2
    assert used.sources[0].chunk.title_path == ("Top",)
    assert used.sources[0].relevance is None


@given(st.lists(st.integers(0, 7), unique=True), st.integers(0, 3), st.integers(1, 600))
def test_whatever_was_found_the_budget_and_the_offsets_hold(
    numbers: list[int], radius: int, budget: int
) -> None:
    used = assemble(found(*numbers), token_budget=budget, count_tokens=len, neighbours=around(radius))
    assert used.tokens == sum(len(source.chunk.text) for source in used.sources)
    assert used.tokens <= budget or len(used.sources) == 1
    for source in used.sources:
        assert DOCUMENT[source.chunk.start : source.chunk.end] == source.chunk.text
    ids = [key for source in used.sources for key in source.chunk_ids]
    assert len(ids) == len(set(ids))
    if numbers:
        assert str(numbers[0]) in used.sources[0].chunk_ids


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_the_same_twice(radius: int) -> None:
    one, two = (assemble(found(4, 0, 7, 2), neighbours=around(radius)) for _ in range(2))
    assert one == two
