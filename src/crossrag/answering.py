"""Context -> Answer, as a stream of events: text, its claims and citations, checked.

Asks any Generator and, by a `Verification`, any Grounder. Knows nothing of retrieval.
"""

from __future__ import annotations

import time
from collections.abc import Generator as Generator_
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from .citations import CitationReader
from .claims import ClaimReader, Sentence, states_something
from .errors import GeneratorError, reason
from .prompt import NO_ANSWER, once_more, refuses
from .timed import Timed
from .types import (
    Answer,
    Citation,
    Cited,
    Claim,
    Claimed,
    Context,
    Delta,
    Done,
    Event,
    Ranking,
    Retrieved,
    Status,
    Turn,
    Unsupported,
)
from .verification import Checker, Verification

if TYPE_CHECKING:
    from .protocols import Generator

OUT_OF_TIME = "There was no time to write an answer."
_BEGINNING_SHARE = 0.6
"""Of the time for writing: when a model must have begun, so that there is time to quote instead."""
_NOTHING_IN_TIME = "It wrote nothing in time"


def stream_answer(  # noqa: PLR0913 - what an answer depends on
    question: str,
    context: Context,
    *,
    generator: Generator,
    ranking: Ranking,
    history: Sequence[Turn] = (),
    verification: Verification | None = None,
    fallback: Generator | None = None,
    deadline: float | None = None,
) -> Iterator[Event]:
    """Retrieved, then text with its claims and citations as they come, then exactly one Done.

    With an empty context the generator is not asked: nothing was relevant, and the answer says so.

    Args:
        question: As it was asked.
        context: What the generator may use.
        generator: Writes the answer.
        ranking: Goes into the answer.
        history: Earlier turns.
        verification: How claims are checked; None checks numbers and quotes only.
        fallback: Answers where the generator fails, for a reason that may pass, before its first word.
        deadline: `time.monotonic()` value at which the answer ends, with what is written by then.

    Raises:
        GeneratorError: The generator failed; events that were given remain valid.
    """
    yield Retrieved(context, ranking)
    started = time.perf_counter()
    writing = _Writing(context, verification or Verification(), fallback, deadline)
    if context.sources and writing.twice:
        writing = yield from _twice(writing, question, generator, history)
    else:
        yield from writing.answered(question, generator, history)
    yield Done(writing.answer(question, ranking, time.perf_counter() - started))


def _twice(
    first: _Writing, question: str, generator: Generator, history: Sequence[Turn]
) -> Generator_[Event, None, _Writing]:
    """Both answers are held back: the first until it is checked, the second until it is whole."""
    events = list(first.answered(question, generator, history))
    if not first.worth_another:
        yield from events
        return first
    again, turns = once_more(question, first.text, first.failed, history)
    second = first.anew()
    try:
        rewritten = list(second.answered(again, generator, turns))
    except GeneratorError as error:
        first.not_rewritten = error.message
    else:
        if not second.expired:
            yield from rewritten
            return second
        first.not_rewritten = "there was no time for it"
    # The first answer with its marks is better than none, and than the beginning of another.
    yield from events
    return first


class _Writing:
    """One answer in the making: what was written, what was found out about it."""

    def __init__(
        self,
        context: Context,
        verification: Verification,
        fallback: Generator | None,
        deadline: float | None,
        *,
        failed_before: int = 0,
    ) -> None:
        self._context = context
        self._verification = verification
        self._fallback = fallback
        self._deadline = deadline
        self._failed_before = failed_before
        self.not_rewritten = ""
        """Why there is no second answer, though one was wanted; empty otherwise."""
        self._begin()

    @property
    def twice(self) -> bool:
        """Whether statements that do not hold are a reason to write again."""
        return self._verification.policy == "regenerate"

    @property
    def worth_another(self) -> bool:
        """Whether a second answer may be better than this one."""
        return bool(self.failed) and not self.expired and not self._llm_failure

    @property
    def failed(self) -> list[Claim]:
        """What the sources do not support."""
        return [claim for claim in self._claims if claim.supported is False]

    @property
    def text(self) -> str:
        """What is written so far."""
        return "".join(self._text)

    def anew(self) -> _Writing:
        """A second one, which knows how much of this did not hold."""
        return _Writing(
            self._context,
            self._verification,
            None,
            self._deadline,
            failed_before=len(self.failed),
        )

    def _begin(self) -> None:
        self._checker = Checker(self._context, self._verification, deadline=self._deadline)
        self._text: list[str] = []
        self._length = 0
        self._gap = ""
        self._claims: list[Claim] = []
        self._citations: list[Citation] = []
        self._dropped: list[Claim] = []
        self._unknown = 0
        self._told: tuple[str, ...] = ()
        self._llm_failure = ""
        self._begun = False
        self.expired = False
        """Whether the time ran out before it was complete."""

    def answered(self, question: str, generator: Generator, history: Sequence[Turn]) -> Iterator[Event]:
        if not self._context.sources:
            yield from self._say(NO_ANSWER)
        else:
            yield from self._asked(question, generator, history)
        if not self.text.strip():
            # Nothing quotable in the passages, or a model that said nothing: no empty answer.
            yield from self._say(OUT_OF_TIME if self.expired else NO_ANSWER)

    def _asked(self, question: str, generator: Generator, history: Sequence[Turn]) -> Iterator[Event]:
        begin = None
        if self._deadline is not None and self._fallback is not None:
            now = time.monotonic()
            begin = now + _BEGINNING_SHARE * (self._deadline - now)
        try:
            pieces = generator.stream(question, self._context, history)
            yield from self._written(Timed(pieces, self._deadline, of=generator.fingerprint, begin=begin))
            if self._fallback is not None and self.expired and not self._begun:
                raise GeneratorError(_NOTHING_IN_TIME, retryable=True)
        except GeneratorError as error:
            shown = bool(self._text) and not self.twice
            if self._fallback is None or shown or not error.retryable:
                raise
            self._begin()
            self._llm_failure = reason(error)
            pieces = self._fallback.stream(question, self._context)
            yield from self._written(Timed(pieces, self._deadline, of=self._fallback.fingerprint))

    def _written(self, timed: Timed[str]) -> Iterator[Event]:
        reader, claims = CitationReader(self._context), ClaimReader()
        with closing(iter(timed)) as given:
            try:
                for piece in given:
                    for text, citation in reader.feed(piece):
                        yield from self._read(text, claims.feed(text, citation))
            except TimeoutError as error:
                raise GeneratorError(str(error), retryable=True) from error
        for text, citation in reader.finish():
            yield from self._read(text, claims.feed(text, citation))
        for sentence in claims.finish():
            yield from self._sentence(sentence)
        self._unknown, self._told = reader.unknown, timed.told
        self.expired, self._begun = timed.expired, timed.begun

    def _read(self, text: str, sentences: Iterator[Sentence]) -> Iterator[Event]:
        if self._verification.policy != "drop" and text:
            yield from self._say(text)
        for sentence in sentences:
            yield from self._sentence(sentence)

    def _sentence(self, sentence: Sentence) -> Iterator[Event]:
        checked = self._checker.check(sentence)
        claim, citations = checked.claim, checked.citations
        if self._verification.policy == "drop":
            # What was left out before does not count in the offsets of the answer.
            self._gap = max(self._gap, sentence.gap, key=lambda gap: gap.count("\n"))
            gap = self._gap if self._length else ""
            start = self._length + len(gap)
            if claim.supported is False:
                claim = replace(claim, start=start, end=start)
                self._dropped.append(claim)
                yield Claimed(claim)
                yield Unsupported(claim)
                return
            moved = start - claim.start
            claim = replace(claim, start=start, end=claim.end + moved)
            citations = tuple(replace(c, start=c.start + moved, end=c.end + moved) for c in citations)
            self._gap = ""
            yield from self._say(gap + sentence.text)
        self._claims.append(claim)
        yield Claimed(claim)
        for citation in citations:
            self._citations.append(citation)
            yield Cited(citation)
        if claim.supported is False:
            yield Unsupported(claim)

    def _say(self, text: str) -> Iterator[Event]:
        self._text.append(text)
        self._length += len(text)
        yield Delta(text)

    def answer(self, question: str, ranking: Ranking, seconds: float) -> Answer:
        """What `Done` holds."""
        status, reasons = self._status()
        degraded = (
            *ranking.degraded,
            *(("llm",) if self._llm_failure else ()),
            *(("grounding",) if self._checker.failure else ()),
            *(("answer",) if self.expired else ()),
        )
        return Answer(
            question=question,
            text=self.text,
            status=status,
            citations=tuple(self._citations),
            context=self._context,
            ranking=ranking,
            claims=tuple(self._claims),
            reasons=tuple(reasons),
            degraded=degraded,
            notices=(*ranking.notices, *self._notices(status)),
            timings=_with(ranking.timings, "answer", seconds),
        )

    def _status(self) -> tuple[Status, list[str]]:
        said = [claim for claim in self._claims if states_something(claim.text)]
        refused = [claim for claim in self._claims if refuses(claim.text)]
        stated = [claim for claim in said if not refuses(claim.text)]
        reasons = list(_reasons(stated, self._dropped, refused=bool(refused), expired=self.expired))
        if not self._context.sources:
            return "no_answer", ["No passage is relevant enough"]
        if stated or (self._claims and not refused):
            return ("partial" if reasons else "answered"), reasons
        return "no_answer", reasons or ["The passages that were found do not answer the question"]

    def _notices(self, status: Status) -> Iterator[str]:
        if self._llm_failure:
            instead = ", so the best sentences are quoted" if self._claims else ""
            yield f"The language model failed{instead}: {self._llm_failure}"
        yield from self._told
        if self._failed_before:
            yield f"The answer was written again: of the first, {_count(self._failed_before)} not supported"
        if self.not_rewritten:
            yield f"The answer could not be written again: {self.not_rewritten}"
        if self._checker.failure:
            yield self._checker.failure
        if self._unknown:
            yield f"{self._unknown} citations of sources that do not exist were removed"
        if status != "no_answer" and not self._citations:
            yield "The answer cites no source"
        if self._context.dropped:
            yield f"{self._context.dropped} relevant passages did not fit the token budget"


def _reasons(
    stated: Sequence[Claim], dropped: Sequence[Claim], *, refused: bool, expired: bool
) -> Iterator[str]:
    failed = [claim for claim in stated if claim.supported is False]
    if cited := sum(bool(claim.citations) for claim in failed):
        yield f"{_count(cited)} not supported by the sources cited"
    if bare := sum(not claim.citations for claim in failed):
        yield f"{_count(bare)} supported by no source, and cited none"
    if dropped:
        yield f"{_count(len(dropped))} not supported and left out"
    if refused and stated:
        yield "The documents do not contain all that was asked"
    if expired:
        yield "The time ran out before the answer was complete"


def _count(number: int) -> str:
    return "1 statement was" if number == 1 else f"{number} statements were"


def _with(timings: Mapping[str, float], stage: str, seconds: float) -> dict[str, float]:
    return {**timings, stage: seconds}
