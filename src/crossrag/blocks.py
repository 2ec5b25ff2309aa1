"""Texts -> the same in blocks, so that a clock can be looked at while they are prepared. Knows no models."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

TOKENIZED = 32_768
"""Characters that rerankers tokenize between two looks at the clock: some 20 ms."""


def in_blocks(texts: Sequence[str], characters: int) -> Iterator[Sequence[str]]:
    """Texts in their order, so many characters at a time, so that a clock can be looked at in between."""
    start = held = 0
    for position, text in enumerate(texts):
        if position > start and held + len(text) > characters:
            yield texts[start:position]
            start, held = position, 0
        held += len(text)
    if start < len(texts):
        yield texts[start:]


def is_over(deadline: float | None) -> bool:
    """Whether that value of `time.monotonic()` has passed."""
    return deadline is not None and time.monotonic() >= deadline
