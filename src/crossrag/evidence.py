"""Claim and evidence -> the sentences of the evidence that bear on the claim, and seven plain features.

What a grounding model reads, in training and in serving. Pure; knows no model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .sentences import split_sentences

FEATURES = ("covered", "in_one", "numbers_missing", "names_missing", "pairs", "negated", "length")
"""Names of the features, in their order."""
MOST_WORDS = 120
"""Words of evidence that are read beside a claim."""
_LONGEST_SENTENCE = 70
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_URL = re.compile(r"https?://\S+")
_STEM = 6
_COVERED_AGAIN = 0.25
"""What a word counts for once another sentence that was chosen has it."""
_NEGATIVE = """
no not never none neither nor nobody nothing without cannot isn't wasn't aren't weren't don't
doesn't didn't won't can't couldn't hasn't haven't hadn't wouldn't shouldn't fails failed unable
"""
_COUNTED = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
"""
_COMMON = """
a about after all also am an and any are as at be because been before being both but by can could
did do does for from had has have he her here hers him his how i if in into is it its just like may
me more most my of on one only or other our out over she should so some such than that the their
them then there these they this those to too under up us very was we were what when where which
while who whom whose why will with would you your
"""
_NEGATIONS = frozenset(_NEGATIVE.split())
_STOP = frozenset(_COMMON.split())
_TENS = {"thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000", "dozen": "12"}
_NUMBERS = {word: str(value) for value, word in enumerate(_COUNTED.split())} | _TENS


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read beside a claim."""

    text: str
    features: tuple[float, ...]
    """One number in [0, 1] per name of `FEATURES`."""


@dataclass(frozen=True, slots=True)
class _Words:
    """A text's words in three views."""

    stems: tuple[str, ...]
    """Content words, cut to their first letters, and numbers, in order."""
    numbers: frozenset[str]
    names: frozenset[str]
    negated: bool


def read(claim: str, evidence: str, *, most_words: int = MOST_WORDS) -> Reading:
    """The sentences that share most with the claim, in order of reading, and how the two compare.

    Args:
        claim: A sentence.
        evidence: One or more passages; of any length.
        most_words: Of the evidence.
    """
    wanted = _words(claim)
    sentences = [text for text in _sentences(_URL.sub(" ", evidence)) if text]
    words = [_words(text) for text in sentences]
    weights = _weights(wanted, words)
    chosen = _chosen(words, [len(text.split()) for text in sentences], weights, most_words)
    return Reading(
        " ".join(sentences[n] for n in chosen), _features(wanted, [words[n] for n in chosen], weights)
    )


def _sentences(text: str) -> Iterable[str]:
    for sentence in split_sentences(text):
        parts = text[sentence.start : sentence.end].split()
        for start in range(0, len(parts), _LONGEST_SENTENCE):
            yield " ".join(parts[start : start + _LONGEST_SENTENCE])


def _words(text: str) -> _Words:
    stems: list[str] = []
    numbers, names = set(), set()
    negated = False
    for match in _WORD.finditer(text):
        word = match[0]
        lower = word.lower().replace("\u2019", "'")
        negated |= lower in _NEGATIONS or lower.endswith("n't")
        if word[0].isdigit() or lower in _NUMBERS:
            value = _NUMBERS.get(lower, lower.replace(",", ""))
            numbers.add(value)
            stems.append(value)
        elif lower not in _STOP and lower not in _NEGATIONS:
            stem = lower.removesuffix("'s")[:_STEM]
            stem = stem[:-1] if len(stem) > 3 and stem.endswith("s") else stem
            stems.append(stem)
            if word[0].isupper():
                names.add(stem)
    return _Words(tuple(stems), frozenset(numbers), frozenset(names), negated)


def _weights(wanted: _Words, sentences: Sequence[_Words]) -> dict[str, float]:
    """What is in few sentences says more about where the claim comes from."""
    found = Counter(stem for words in sentences for stem in set(words.stems))
    return {stem: math.log(2.0 + len(sentences) / (1.0 + found[stem])) for stem in sorted(set(wanted.stems))}


def _chosen(
    words: Sequence[_Words], lengths: Sequence[int], weights: dict[str, float], most: int
) -> list[int]:
    """Greedily what adds most of the claim's words, then what stands before it, in order of reading."""
    shares = [set(one.stems) & weights.keys() for one in words]
    chosen: list[int] = []
    covered: set[str] = set()
    room = most
    left = set(range(len(words)))
    while left:
        gains = {
            n: sum(weights[stem] * (_COVERED_AGAIN if stem in covered else 1.0) for stem in sorted(shares[n]))
            for n in left
            if lengths[n] <= room
        }
        best = max(gains, key=lambda n: (gains[n], -n), default=None)
        if best is None:
            break
        if gains[best] <= 0.0:
            chosen += _before(chosen, left, lengths, room)
            break
        chosen.append(best)
        covered |= shares[best]
        left.discard(best)
        room -= lengths[best]
    return sorted(chosen)


def _before(chosen: Sequence[int], left: set[int], lengths: Sequence[int], room: int) -> list[int]:
    """Sentences in front of chosen ones, for their pronouns; the beginning if nothing was chosen."""
    more: list[int] = []
    for n in [n - 1 for n in chosen] if chosen else sorted(left):
        if n in left and lengths[n] <= room and n not in more:
            more.append(n)
            room -= lengths[n]
    return more


def _features(wanted: _Words, chosen: Sequence[_Words], weights: dict[str, float]) -> tuple[float, ...]:
    there = {stem for words in chosen for stem in words.stems}
    total = sum(weights.values()) or 1.0
    shares = [
        sum(weights[stem] for stem in sorted(weights.keys() & set(one.stems))) / total for one in chosen
    ]
    best = max(range(len(chosen)), key=lambda n: (shares[n], -n), default=None)
    pairs = set(zip(wanted.stems, wanted.stems[1:], strict=False))
    known = {pair for words in chosen for pair in zip(words.stems, words.stems[1:], strict=False)}
    return (
        sum(weights[stem] for stem in sorted(weights.keys() & there)) / total,
        shares[best] if best is not None else 0.0,
        _share(wanted.numbers - there, wanted.numbers),
        _share(wanted.names - there, wanted.names),
        _share(pairs & known, pairs),
        float(best is not None and wanted.negated != chosen[best].negated),
        min(1.0, len(wanted.stems) / 40),
    )


def _share(some: Iterable[object], of: Iterable[object]) -> float:
    whole = len(list(of))
    return len(list(some)) / whole if whole else 0.0
