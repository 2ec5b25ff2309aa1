"""Words of one text in another: how many and how rare (BM25), and where they stand one after the other.

Pure. Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"\w+")
_WORDS = re.compile(r"[^\W_]+")
_SIGN = re.compile(
    "[<>=~%+\u00b1\u2264\u2265\u2260$\u20ac\u00a3\u00a5\u2030\u00b0\u2032\u2033]|!=|"
    "(?<![^\\W_])[-\u2212](?=\\d)|\\d[.,]\\d"
)
_BEFORE_A_NUMBER = re.compile("[-\u2212+~<>=\u00b1\u2264\u2265\u2260$\u20ac\u00a3\u00a5]{1,3} ?$")
_BEHIND_A_WORD = re.compile("[+%]+")
_BEHIND_A_NUMBER = re.compile("\\s?[+%\u2030\u00b0\u2032\u2033$\u20ac\u00a3\u00a5]")
_STEM = 6
_SATURATION, _LENGTH = 1.2, 0.75


def bm25(question: str, texts: Sequence[str]) -> list[float]:
    """One score per text, 0 where no word is shared."""
    words = [_stems(text) for text in texts]
    if not words:
        return []
    wanted = sorted(set(_stems(question)))
    found = Counter(stem for stems in words for stem in set(stems))
    usual = max(1.0, sum(map(len, words)) / len(words))
    rarity = {
        stem: math.log1p((len(words) - found[stem] + 0.5) / (found[stem] + 0.5))
        for stem in wanted
        if found[stem]
    }
    return [_score(Counter(stems), rarity, len(stems) / usual) for stems in words]


def _score(counts: Counter[str], rarity: dict[str, float], length: float) -> float:
    dampening = _SATURATION * (1 - _LENGTH + _LENGTH * length)
    return sum(
        weight * counts[stem] * (_SATURATION + 1) / (counts[stem] + dampening)
        for stem, weight in rarity.items()
        if stem in counts
    )


def _stems(text: str) -> list[str]:
    return [word.lower()[:_STEM] for word in _WORD.findall(text)]


def find_words(words: str, text: str) -> tuple[int, int] | None:
    """Where the words stand one after the other in a text, whatever the case, space and marks between them.

    Returns offsets in the text, from the first letter of the first word to the last of the last; None where
    they do not stand there, and for no words at all.
    """
    return next(find_all_words(words, text), None)


def find_all_words(words: str, text: str) -> Iterator[tuple[int, int]]:
    """Every such place, in order of the text."""
    wanted = [match[0].casefold() for match in _WORDS.finditer(words)]
    there = list(_WORDS.finditer(text))
    found = [match[0].casefold() for match in there]
    for start in range(len(found) - len(wanted) + 1) if wanted else ():
        if found[start] == wanted[0] and found[start : start + len(wanted)] == wanted:
            yield there[start].start(), there[start + len(wanted) - 1].end()


def signs(text: str, start: int = 0, end: int | None = None) -> list[str]:
    """What between the words of a stretch may turn its meaning round, in order: signs, units, decimal marks.

    Those on either side of it count where a number stands there, as in `-5` and `5 %`; so does that of `C++`.
    """
    end = len(text) if end is None else end
    if text[start : start + 1].isdigit() and (before := _BEFORE_A_NUMBER.search(text[:start])):
        start = before.start()
    behind = _BEHIND_A_NUMBER if text[end - 1 : end].isdigit() else _BEHIND_A_WORD
    if after := behind.match(text, end):
        end = after.end()
    return [match[0].replace("\u2212", "-") for match in _SIGN.finditer(text, start, end)]


def find_run(words: str, text: str, *, least: int) -> tuple[int, int] | None:
    """The longest run of words that both have, as offsets in the text; the first of several.

    Args:
        words: A claim.
        text: A passage.
        least: Fewest words of a run.
    """
    places: dict[str, list[int]] = {}
    for number, match in enumerate(_WORDS.finditer(words)):
        places.setdefault(match[0].casefold(), []).append(number)
    there = list(_WORDS.finditer(text))
    best = last = 0
    # How long the run is that ends with the word before, by the number of the claim's word that it ends with.
    before: dict[int, int] = {}
    for position, match in enumerate(there):
        before = {number: before.get(number - 1, 0) + 1 for number in places.get(match[0].casefold(), ())}
        longest = max(before.values(), default=0)
        if longest > best:
            best, last = longest, position
    return (there[last - best + 1].start(), there[last].end()) if best >= max(1, least) else None
