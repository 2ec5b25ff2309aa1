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
from .lexical import find_run, find_words
from .prompt import refuses
from .types import Citation, Claim, Context, Source

if TYPE_CHECKING:
    from .protocols import Grounder

Policy = Literal["mark", "drop", "regenerate"]
_QUOTED = re.compile('["\u201c\u201e\u00ab]([^"\u201c\u201d\u00bb]{8,400})["\u201d\u201c\u00bb]')
_LEAST_QUOTED = 3
_LEAST_RUN = 3
"""Words that must stand together before they are shown as a quote."""
_SENTENCE_BEFORE = re.compile(
    "(?:^|[.!?:;\u2026][\"'\u201d\u2019\u00bb)\\]*_`]*\\s|\n)\\s*(?:(?:[-*+\u2022]|\\d{1,3}[.)])\\s+)?$"
)
_SIGNS = re.compile(r"[<>=~%+\u00b1\u2264\u2265\u2260$\u20ac\u00a3]|!=|(?<![^\W_])[-\u2212](?=\d)|\d[.,]\d")
_STOPS = (".", "!", "?", ":", ";", "\u2026")
_CLOSERS = "\"'\u201d\u2019)*_`"


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
    """Checks the sentences of one answer. A grounder that fails is not asked again."""

    def __init__(self, context: Context, verification: Verification) -> None:
        self._sources = {source.number: source for source in context.sources}
        self._grounder = verification.grounder
        self._threshold = verification.threshold
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
            all(find_words(words, source.chunk.text) is None for source in pool) for words in _quotes(bare)
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
        try:
            said = list(self._grounder.support(pairs))
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
    return [words for words in _QUOTED.findall(claim) if len(words.split()) >= _LEAST_QUOTED]


def _stands_whole(claim: str, text: str) -> bool:
    """Whether the claim is a whole sentence of the text: a part of one may say the opposite."""
    found = find_words(claim, text)
    # Words leave out what may turn them round: "x > 5" and "x < 5" have the same.
    if found is None or _SIGNS.findall(claim) != _SIGNS.findall(text[found[0] : found[1] + 1]):
        return False
    rest = text[found[1] :]
    begins = _SENTENCE_BEFORE.search(text[: found[0]]) is not None
    return begins and (claim.rstrip(_CLOSERS).endswith(_STOPS) or not rest.strip() or rest[0] == "\n")
