"""Sentence of an answer and context -> claim and citations, checked.

Of each claim: which sources it cites, whether what it quotes stands there word for word, and whether a
grounding model says that they support it. Asks any Grounder; knows nothing of who wrote the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .claims import Sentence, states_something
from .errors import reason
from .lexical import find_all_words, find_run, signs
from .prompt import refuses
from .timed import within
from .types import Citation, Claim, Context, Source

if TYPE_CHECKING:
    from .protocols import Grounder

Policy = Literal["mark", "drop", "regenerate"]
_QUOTED = re.compile(
    "\u201e([^\u201c\u201d\u201e]*)[\u201c\u201d]|\u201c([^\u201c\u201d]*)\u201d|\u00ab([^\u00ab\u00bb]*)\u00bb|"
    "(?<!\\w)\u00bb(?=\\S)([^\u00ab\u00bb]*)\u00ab|"
    '(?<!\\w)"(?=\\S)([^"]*)"'
)
"""A mark that opens, with the next one that closes it: a straight one opens where no word is before it."""
_LEAST_QUOTED = 3
_LEAST_RUN = 3
"""Words that must stand together before they are shown as a quote."""
_CLOSER = "[\"'\u201d\u2019\u00bb)\\]*_`]*"
_WIDE = "[\u3002\uff01\uff1f\uff61]"
_BULLET = "(?:[-*+\u2022|>]|#{1,6}|\\d{1,3}[.)])[^\\S\n]+"
_SENTENCE_BEFORE = re.compile(
    f"(?:[.!?:;\u2026]{_CLOSER}\\s|{_WIDE}{_CLOSER}|\n[^\\S\n]*\n)\\s*(?:{_BULLET})?$|(?:^|\n)\\s*{_BULLET}$"
)
"""What stands before a sentence, whatever it begins with."""
_LINE_BEFORE = re.compile(r"(?:^|\n)\s*$")
_SENTENCE_BEHIND = re.compile(
    f"{_CLOSER}(?:[.!?\u2026]+{_CLOSER}(?:\\s|$)|{_WIDE})|[^\\w\n]*(?:$|\n(?![^\\S\n]*[^\\W_A-Z]))"
)
"""What stands behind one: a stop, or a line's end where the next line does not go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How the claims of an answer are checked, and what becomes of those that do not hold."""

    grounder: Grounder | None = None
    """None: only numbers and quotes are checked."""
    policy: Policy = "mark"
    threshold: float = 0.5
    """Least probability with which a claim counts as supported."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim and its citations, with what was found out; offsets are those of the sentence."""

    claim: Claim
    citations: tuple[Citation, ...]


class Checker:
    """Checks the sentences of one answer. A grounder that fails is not asked again.

    Args:
        context: What the answer may cite.
        verification: How.
        deadline: `time.monotonic()` value at which the grounder is not waited for any more.
    """

    def __init__(
        self, context: Context, verification: Verification, *, deadline: float | None = None
    ) -> None:
        self._sources = {source.number: source for source in context.sources}
        self._grounder = verification.grounder
        self._threshold = verification.threshold
        self._deadline = deadline
        self.failure = ""
        """Why the grounder could not be asked, in words; empty while it could."""

    def check(self, sentence: Sentence) -> Checked:
        """Never raises: what cannot be checked has `supported` None."""
        numbers = tuple(dict.fromkeys(citation.number for citation in sentence.citations))
        bare = sentence.bare
        claim = Claim(
            start=sentence.start,
            end=sentence.start + len(sentence.text),
            text=sentence.text,
            citations=numbers,
        )
        cited = [self._sources[number] for number in numbers]
        quoted = {number: self._quote(bare, self._sources[number]) for number in numbers}
        whole = {source.number for source in cited if _stands_whole(bare, source.chunk.text)}
        if refuses(sentence.text) or not states_something(sentence.text):
            return Checked(claim, tuple(_with_quote(each, quoted) for each in sentence.citations))
        pool = cited or list(self._sources.values())
        support, alone = self._support(bare, pool, whole)
        invented = bool(pool) and any(
            not any(_stands(words, source.chunk.text) for source in pool) for words in _quotes(bare)
        )
        claim = replace(
            claim,
            supported=False if invented else self._verdict(support),
            support=support,
            verbatim=bool(whole),
        )
        return Checked(
            claim,
            tuple(
                replace(
                    _with_quote(each, quoted),
                    support=alone.get(each.number),
                    supported=self._verdict(alone.get(each.number)),
                )
                for each in sentence.citations
            ),
        )

    def _support(
        self, claim: str, pool: Sequence[Source], whole: set[int]
    ) -> tuple[float | None, dict[int, float | None]]:
        """Of all sources together, and of each; a sentence that stands in one needs no model."""
        alone: dict[int, float | None] = dict.fromkeys(whole, 1.0)
        asked = [source for source in pool if source.number not in whole]
        pairs = [(source.chunk.described, claim) for source in asked]
        if len(pool) > 1 and not whole:
            pairs.append(("\n\n".join(source.chunk.described for source in pool), claim))
        said = self._ask(pairs)
        alone |= {source.number: value for source, value in zip(asked, said, strict=False)}
        if whole:
            return 1.0, alone
        known = [value for value in said if value is not None]
        # Together they may say what none says alone; and what one says does not get weaker by the others.
        return (max(known) if known else None), alone

    def _ask(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        if self._grounder is None or self.failure or not pairs:
            return [None] * len(pairs)
        grounder = self._grounder
        try:
            said = list(within(lambda: grounder.support(pairs), self._deadline, of=grounder.fingerprint))
        except TimeoutError as error:
            self.failure = f"Some claims were not checked: {error}"
            return [None] * len(pairs)
        except Exception as error:  # noqa: BLE001 - an answer is better than none, whatever a model does
            self.failure = f"The claims were not checked: {reason(error)}"
            return [None] * len(pairs)
        if len(said) != len(pairs) or not all(math.isfinite(value) for value in said):
            self.failure = "Some claims were not checked: the grounding model gave no number"
        if len(said) != len(pairs):
            return [None] * len(pairs)
        return [float(value) if math.isfinite(value) else None for value in said]

    def _verdict(self, support: float | None) -> bool | None:
        return None if support is None else support >= self._threshold

    @staticmethod
    def _quote(bare: str, source: Source) -> tuple[str, int] | None:
        """The longest run of the claim's words in a source, and its offset in the document."""
        found = find_run(bare, source.chunk.text, least=_LEAST_RUN)
        if found is None:
            return None
        return source.chunk.text[found[0] : found[1]], source.chunk.start + found[0]


def _with_quote(citation: Citation, quoted: dict[int, tuple[str, int] | None]) -> Citation:
    found = quoted[citation.number]
    return citation if found is None else replace(citation, quote=found[0], quote_start=found[1])


def _quotes(claim: str) -> list[str]:
    """What the claim says that somebody said, in so many words."""
    return [
        words for parts in _QUOTED.findall(claim) if len((words := "".join(parts)).split()) >= _LEAST_QUOTED
    ]


def _stands(words: str, text: str) -> bool:
    """Whether the words stand somewhere in the text, with the same signs between them."""
    wanted = signs(words)
    return any(signs(text, *place) == wanted for place in find_all_words(words, text))


def _stands_whole(claim: str, text: str) -> bool:
    """Whether the claim is a whole sentence of the text: a part of one may say the opposite."""
    wanted = signs(claim)
    return any(
        # Words leave out what may turn them round: "x > 5" and "x < 5" have the same.
        signs(text, start, end) == wanted and _is_sentence(text, start, end)
        for start, end in find_all_words(claim, text)
    )


def _is_sentence(text: str, start: int, end: int) -> bool:
    # A line may be one of a paragraph; a small letter tells.
    begins = _SENTENCE_BEFORE.search(text[:start]) or (
        not text[start].islower() and _LINE_BEFORE.search(text[:start])
    )
    return bool(begins) and _SENTENCE_BEHIND.match(text, end) is not None
