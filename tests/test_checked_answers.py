"""Claims are checked against their sources; what does not hold is marked, dropped or written again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import pytest

from crossrag.answering import stream_answer
from crossrag.errors import GeneratorError
from crossrag.prompt import NO_ANSWER
from crossrag.testing import CannedGenerator, OverlapGrounder
from crossrag.types import (
    Context,
    Delta,
    Done,
    Event,
    Turn,
)
from crossrag.verification import Verification

from .answers import (
    AGAIN,
    BACKUPS,
    CHECKED,
    DROPPING,
    FALSE,
    NOTHING_RANKED,
    TRUE,
    CutGenerator,
    FailingGrounder,
    answer,
    check,
    context,
    events,
    kinds,
)

# --- what is found out about a claim ----------------------------------------------------------------------


def test_events_of_a_sentence_follow_its_text() -> None:
    found = events([f"{TRUE} {FALSE}"], BACKUPS, verification=CHECKED)
    assert kinds([event for event in found if not isinstance(event, Delta)]) == (
        ["Retrieved", "Claimed", "Cited", "Claimed", "Cited", "Unsupported", "Done"]
    )
    last = found[-1]
    assert isinstance(last, Done)
    assert [claim.supported for claim in last.answer.claims] == [True, False]
    assert last.answer.status == "partial"
    assert last.answer.reasons == ("1 statement was not supported by the sources cited",)


def test_a_claim_comes_before_the_next_sentence_is_written() -> None:
    generator = CannedGenerator([TRUE, " And the rest of it", " came later."])
    order = kinds(events([], BACKUPS, verification=CHECKED, generator=generator))
    assert order.index("Claimed") < len(order) - 3


def test_quotes_have_their_place_in_the_document() -> None:
    said = answer(["It says a backup is written every night [1]."], BACKUPS, verification=CHECKED)
    (citation,) = said.citations
    assert (citation.quote, citation.quote_start) == ("A backup is written every night", 100)
    assert citation.supported is not None


def test_a_sentence_of_the_source_needs_no_model() -> None:
    grounder = FailingGrounder()
    said = answer(["It is kept for thirty days. [1]"], BACKUPS, verification=Verification(grounder=grounder))
    assert grounder.calls == 0
    assert (said.claims[0].verbatim, said.claims[0].supported, said.claims[0].support) == (True, True, 1.0)


def test_a_part_of_a_sentence_may_say_the_opposite() -> None:
    used = context("It is not true that whales are fish.")
    said = answer(["Whales are fish [1]."], used, verification=Verification(grounder=OverlapGrounder()))
    assert not said.claims[0].verbatim


@pytest.mark.parametrize(
    ("claim", "source", "whole"),
    [
        ("Whales are fish.", "Whales are fish only in tales.", False),
        ("Whales are fish.", "It is not true that\nwhales are fish.", False),
        ("Whales are fish.", "Whales are fish\nonly in tales.", False),
        ("Whales are fish.", "Whales are fish; so says nobody.", False),
        ("It rose by 3.", "It rose by 3.5 points.", False),
        ("It rose by 3 %.", "It rose by 3.", False),
        ("It rose by 3.", "It rose by 3 %.", False),
        ("The value is > 5.", "The value is < 5.", False),
        ("Whales are fish.", "They say so. Whales are fish!", True),
        ("Whales are fish", "## Whales are fish\n\nNot so.", True),
        ("Whales are fish (all).", "So. Whales are fish (all). No.", True),
        ("- whales are fish", "It is said that:\n- whales are fish\n- cows are birds", True),
        ("| whales | fish |", "| animal | kind |\n| whales | fish |\n| cows | birds |", True),
        ("\u9cb8\u662f\u9c7c\u3002", "\u725b\u662f\u9e1f\u3002\u9cb8\u662f\u9c7c\u3002\u4e0d\u3002", True),
        ("Do this:\n\n```\nx --all\n```", "Do this:\n\n```\nx --all\n```\n\nThen wait.", True),
    ],
)
def test_only_a_whole_sentence_is_verbatim(claim: str, source: str, whole: bool) -> None:  # noqa: FBT001
    said = answer([f"{claim}\n[1]"], context(source), verification=Verification())
    assert said.claims[0].verbatim is whole


def test_words_in_quotation_marks_must_stand_in_the_source() -> None:
    real = 'The rule is that it "is kept for thirty days" [1].'
    invented = 'The rule is that a backup "is kept for thirty years" [1].'
    said = answer([f"{real} {invented}"], BACKUPS, verification=Verification())
    assert [claim.supported for claim in said.claims] == [None, False]


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        # Between two short quotes stands what nobody has quoted.
        ('The "keys" lie here and of course the "locks" lie elsewhere [1].', None),
        ("The \u201ckeys\u201d lie here and of course the \u201clocks\u201d lie elsewhere [1].", None),
        ("The \u201ekeys\u201c lie here and of course the \u201elocks\u201c lie elsewhere [1].", None),
        ("The \u00bbkeys\u00ab lie here and of course the \u00bblocks\u00ab lie elsewhere [1].", None),
        ("The \u00abkeys\u00bb lie here and of course the \u00ablocks\u00bb lie elsewhere [1].", None),
        ('A 5" pipe is not as wide as a 7" pipe here [1].', None),
        ('After the "keys" it says "all of the doors" [1].', False),
        ("After the \u00bbkeys\u00ab it says \u00bball of the doors\u00ab [1].", False),
        ('So it "fell by -5 % over the year" [1].', None),
        ('So it "fell by \u22125 % over the year" [1].', None),
        ('So it "fell by 5 % over the year" [1].', False),
        ('So it "fell by -5 over the year" [1].', False),
        ('It was "-5 % over the year" [1].', None),
        ('It was "5 % over the year" [1].', False),
        ('In a room it is "warm at 21 \u00b0C in winter" [1].', None),
        ('In a room it is "warm at 21 C in winter" [1].', False),
        ('It is "written in C++" [1].', None),
        ('It is "written in C today" [1].', False),
        ('It is "written in C" [1].', False),
        ('It "rose by 3.5 over ten" [1].', None),
        ('It "rose by 3,5 over ten" [1].', False),
    ],
)
def test_quotes_are_paired_and_keep_their_signs(said: str, holds: bool | None) -> None:  # noqa: FBT001
    used = context(
        "Sales fell by -5 % over the year. A room is warm at 21 \u00b0C in winter. "
        "It is written in C++ today. It rose by 3.5 over ten years. The keys and locks are here."
    )
    assert answer([said], used, verification=Verification()).claims[0].supported is holds


def test_one_of_several_places_with_the_same_words_is_enough() -> None:
    used = context("It fell by 5 points in May.\n\nThen it fell by -5 points in June. It fell by -5 points.")
    said = answer(['We read "fell by -5 points" there [1].'], used, verification=Verification())
    assert said.claims[0].supported is None
    said = answer(["It fell by -5 points. [1]"], used, verification=Verification())
    assert said.claims[0].verbatim


def test_a_claim_of_two_sources_is_checked_against_both_together() -> None:
    used = context("Anna wrote the first part.", "Bert wrote the second part.")
    said = answer(["Anna wrote the first and Bert the second part [1][2]."], used, verification=CHECKED)
    assert said.claims[0].supported
    assert [citation.number for citation in said.citations] == [1, 2]
    assert all((citation.support or 0) < (said.claims[0].support or 0) for citation in said.citations)


def test_a_claim_without_a_citation_is_checked_against_everything() -> None:
    said = answer(["A backup is written each night. Elephants ate tapes."], BACKUPS, verification=CHECKED)
    assert [claim.supported for claim in said.claims] == [True, False]
    assert said.reasons == ("1 statement was supported by no source, and cited none",)


def test_what_states_nothing_is_not_checked() -> None:
    said = answer([f"Here is what I found:\n\n{TRUE}"], BACKUPS, verification=CHECKED)
    assert [claim.supported for claim in said.claims] == [None, True]
    assert said.status == "answered"


# --- what becomes of it -----------------------------------------------------------------------------------


def test_dropped_sentences_leave_exact_offsets() -> None:
    found = events(
        [f"{FALSE} {TRUE}\n\n{FALSE}", " It is kept for thirty days [1]."], BACKUPS, verification=DROPPING
    )
    last = found[-1]
    assert isinstance(last, Done)
    assert last.answer.text == f"{TRUE}\n\nIt is kept for thirty days [1]."
    assert "".join(event.text for event in found if isinstance(event, Delta)) == last.answer.text
    assert kinds(found).count("Unsupported") == 2
    assert last.answer.reasons == ("2 statements were not supported and left out",)
    check(found)


def test_an_answer_of_nothing_but_lies_is_none() -> None:
    said = answer([FALSE], BACKUPS, verification=DROPPING)
    assert (said.text, said.status, said.citations) == (NO_ANSWER, "no_answer", ())


class Learning:
    """Lies until it is told which statements do not hold."""

    fingerprint = "learning"

    def __init__(self, second: str = TRUE) -> None:
        self.asked: list[tuple[str, tuple[Turn, ...]]] = []
        self._second = second

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        self.asked.append((question, tuple(history)))
        yield FALSE if len(self.asked) == 1 else self._second


def test_regenerating_says_what_was_wrong_and_shows_the_second_answer() -> None:
    generator = Learning()
    found = events([], BACKUPS, verification=AGAIN, generator=generator)
    last = found[-1]
    assert isinstance(last, Done)
    assert (last.answer.text, last.answer.status) == (TRUE, "answered")
    assert FALSE in generator.asked[1][0]
    assert [turn.text for turn in generator.asked[1][1]] == ["q", FALSE]
    assert last.answer.notices == (
        "The answer was written again: of the first, 1 statement was not supported",
    )
    check(found)


def test_it_is_done_once_and_then_marked() -> None:
    generator = Learning(second=FALSE)
    said = answer([], BACKUPS, verification=AGAIN, generator=generator)
    assert (len(generator.asked), said.status) == (2, "partial")


def test_a_good_first_answer_is_not_written_again() -> None:
    generator = CannedGenerator([TRUE])
    answer([], BACKUPS, verification=AGAIN, generator=generator)
    assert len(generator.asked) == 1


# --- what fails on the way --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2])
def test_without_its_grounder_the_answer_still_comes(at: int) -> None:
    grounder = FailingGrounder(at=at)
    said = answer([f"{TRUE} {FALSE} {TRUE}"], BACKUPS, verification=Verification(grounder=grounder))
    assert said.degraded == ("grounding",)
    assert [claim.supported for claim in said.claims] == [True] * (at - 1) + [None] * (4 - at)
    assert grounder.calls == at  # it is not asked again
    assert any("out of memory" in notice for notice in said.notices)


@pytest.mark.parametrize("said", [[math.nan], [], [0.5, 0.5, 0.5], [math.inf]])
def test_what_is_no_number_is_no_support(said: list[float]) -> None:
    found = answer([TRUE], BACKUPS, verification=Verification(grounder=FailingGrounder(said=said)))
    assert (found.degraded, found.claims[0].supported, found.status) == (("grounding",), None, "answered")


def test_when_the_model_is_down_sentences_are_quoted() -> None:
    said = answer([], BACKUPS, generator=CutGenerator(), fallback=CannedGenerator([TRUE]))
    assert (said.text, said.degraded) == (TRUE, ("llm",))
    assert any("The server hung up" in notice for notice in said.notices)


@pytest.mark.parametrize(
    "generator", [CutGenerator("A backup is"), CutGenerator(retryable=False)], ids=["begun", "for good"]
)
def test_otherwise_its_failure_is_the_callers(generator: CutGenerator) -> None:
    stream = stream_answer(
        "q", BACKUPS, generator=generator, ranking=NOTHING_RANKED, fallback=CannedGenerator([TRUE])
    )
    found: list[Event] = []
    with pytest.raises(GeneratorError, match="hung up"):
        found.extend(event for event in stream)
    assert "Done" not in kinds(found)


def test_what_nobody_has_seen_may_be_given_up_for_quotes() -> None:
    """With `regenerate`, the beginning of an answer is held back."""
    cut = CutGenerator("A backup is", retryable=True)
    said = answer([], BACKUPS, generator=cut, fallback=CannedGenerator([TRUE]), verification=AGAIN)
    assert (said.text, said.degraded) == (TRUE, ("llm",))


def test_a_failing_second_answer_leaves_the_first() -> None:
    class Once(Learning):
        def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
            if self.asked:
                raise GeneratorError("busy", retryable=True)
            yield from super().stream(question, context, history)

    said = answer([], BACKUPS, verification=AGAIN, generator=Once())
    assert (said.text, said.status) == (FALSE, "partial")


class SlowSecond(Learning):
    """Begins a second answer and does not end it in time."""

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        yield from super().stream(question, context, history)
        if len(self.asked) > 1:
            time.sleep(2)
            yield " It is kept for thirty days [1]."


class CutSecond(Learning):
    """Fails in the middle of its second answer."""

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        yield from super().stream(question, context, history)
        if len(self.asked) > 1:
            raise GeneratorError("The server hung up", retryable=True)


@pytest.mark.parametrize(
    ("generator", "why"),
    [(SlowSecond(), "there was no time for it"), (CutSecond(), "The server hung up")],
    ids=["slow", "cut"],
)
def test_half_a_second_answer_leaves_the_first_with_its_marks(generator: Learning, why: str) -> None:
    found = events([], BACKUPS, verification=AGAIN, generator=generator, deadline=time.monotonic() + 0.6)
    said = check(found)
    assert (said.text, said.status, said.degraded) == (FALSE, "partial", ())
    assert [claim.supported for claim in said.claims] == [False]
    assert said.notices == (f"The answer could not be written again: {why}",)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "The sources do not contain information about this.",
        "Unfortunately, the provided documents don't mention it.",
        f"{NO_ANSWER} [1]",
    ],
)
def test_other_words_for_no_are_a_refusal_too(text: str) -> None:
    said = answer([text], BACKUPS, verification=CHECKED)
    assert said.status == "no_answer"
    assert said.reasons


def test_half_an_answer_is_partial() -> None:
    said = answer([f"{TRUE} The documents do not say how much it costs."], BACKUPS, verification=CHECKED)
    assert said.status == "partial"
    assert said.reasons == ("The documents do not contain all that was asked",)
