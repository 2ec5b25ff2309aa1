"""Whether a passage holds what was quoted from a document, though it may have been cut elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_RUN = 5
"""Words in a row that are compared as one, where a quote is no part of a passage."""
_SHARED = 0.5
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese: where a word ends is not seen."""


def holds(quote: str, text: str) -> bool:
    """Whether the quote is in the text, white space, punctuation and case aside; an empty one always is.

    It need not be whole: a text also counts that shares half of its own, or of the quote's, runs of five
    words.
    """
    if _WITHOUT_SPACES.search(quote):
        return "".join(quote.lower().split()) in "".join(text.lower().split())
    wanted, there = _words(quote), _words(text)
    if not wanted or f" {' '.join(wanted)} " in f" {' '.join(there)} ":
        return True
    runs, found = _runs(wanted), _runs(there)
    return bool(runs and found) and len(runs & found) >= _SHARED * min(len(runs), len(found))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}
