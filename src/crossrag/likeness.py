"""Passages that say the same in nearly the same words: marked when they are cut, collapsed when found.

The mark is a MinHash of a passage's own words: it depends on no other passage and on no order of ingestion.
It only finds pairs; whether they are near-duplicates is decided by comparing the passages themselves.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Candidate

FINGERPRINT = "minhash:64:1"
"""Changes whenever the same passage would be marked otherwise."""

_PERMUTATIONS = 64
_SEED = 42
_SHINGLE = 3
"""Words in a row that are compared as one."""
_SLACK = 0.2
"""By how much a mark may underrate a pair and still have it looked at: three standard errors at 0.7."""
_WORD = re.compile(r"\w+")


def mark(text: str) -> str:
    """The lowest bytes of 64 minima over all runs of three words, in base64; empty without any words."""
    from rensa import RMinHash

    shingles = _shingles(text)
    if not shingles:
        return ""
    sketch = RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    sketch.update(list(shingles))
    return b64encode(bytes(value & 0xFF for value in sketch.digest())).decode("ascii")


def collapse(candidates: Sequence[Candidate], *, threshold: float) -> list[Candidate]:
    """Keep the first of each group of near-duplicates; it carries the others.

    Passages that differ in a number are no near-duplicates, however alike they are: last year's report and
    this year's are two sources.

    Args:
        candidates: Best first.
        threshold: Least share of common runs of words among all of both, in (0, 1]; 1 means the same words.
    """
    import numpy as np

    kept: list[Candidate] = []
    marks = np.zeros((len(candidates), _PERMUTATIONS), np.uint8)
    for candidate in candidates:
        raw = b64decode(candidate.chunk.minhash) if candidate.chunk.minhash else b""
        own = np.frombuffer(raw, np.uint8)
        if own.size != _PERMUTATIONS:
            kept.append(candidate)  # nothing to compare: an empty row is like no other
            continue
        shares = (marks[: len(kept)] == own).mean(axis=1)
        for place in np.flatnonzero(shares >= threshold - _SLACK):
            if _alike(kept[place].chunk.text, candidate.chunk.text, threshold):
                first = kept[place]
                kept[place] = replace(first, duplicates=(*first.duplicates, candidate.chunk))
                break
        else:
            marks[len(kept)] = own
            kept.append(candidate)
    return kept


def _alike(one: str, other: str, threshold: float) -> bool:
    ours, theirs = _shingles(one), _shingles(other)
    return len(ours & theirs) >= threshold * len(ours | theirs) and _numbers(one) == _numbers(other)


def _shingles(text: str) -> set[str]:
    words = _WORD.findall(text.lower())
    if len(words) < _SHINGLE:
        return {" ".join(words)} - {""}
    return set(map(" ".join, zip(*(words[start:] for start in range(_SHINGLE)), strict=False)))


def _numbers(text: str) -> Counter[str]:
    # Most words are letters alone, which is quickly seen.
    words = (word for word in _WORD.findall(text) if not word.isalpha())
    return Counter(word for word in words if any(letter.isdigit() for letter in word))
