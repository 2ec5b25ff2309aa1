"""One question being read by a progressive reranker: which windows are to be read next, and who may leave.

Knows no graph: whoever holds the model runs the batches, of one question or of several at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossrag.types import Relevance

if TYPE_CHECKING:
    from tokenizers import Encoding

    from crossrag.calibration import Calibration

_MOST_HELD_TOKENS = 131_072
"""Tokens whose states are kept at once between exits: 200 MB at a width of 384."""


@dataclass(eq=False, slots=True)
class Window:
    """One reading of question and passage, or of a part of a long passage."""

    text: int
    encoding: Encoding
    share: float = 0.0
    """What the first stage says of the passage, in logits."""
    states: Any = None
    """What the layers so far made of it; only whoever runs the layers knows its form."""
    logits: list[float] = field(default_factory=list)
    """One per exit that was reached; NaN as long as it is on its way."""
    pending: list[Callable[[], None]] = field(default_factory=list)
    """What to call before its logits are looked at: they may still be on their way from a device."""
    start: int = 0
    end: int = 0
    """Characters of the passage that were read."""
    left: bool = False
    """Whether it left early because it could not come among the wanted ones."""

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.encoding)

    @property
    def finite(self) -> bool:
        """Whether its last logit is a number."""
        return math.isfinite(self.logits[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What training has found out about the exits; see `progressive`."""

    exits: tuple[int, ...]
    margins: tuple[float, ...]
    forecasts: tuple[tuple[float, float], ...]
    calibration: Calibration
    """Logits to relevance."""
    wanted: int
    """How many of the best the margins were measured for: fewer would lose the best of them."""


class Reading:
    """Give `batches` to the model one after the other, then `settle`; until it is `done`.

    Args:
        windows: Of all texts, in their order.
        texts: How many there are.
        rules: Of the model.
        top_k: How many of the best matter, at least as many as the rules are made for; None for all.
        batched: Lengths to positions of windows that are read together.
        truncated: Per text, whether its end is in no window.
        query_truncated: Whether the end of the question is in none.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        texts: int,
        rules: Rules,
        *,
        top_k: int | None,
        batched: Callable[[Sequence[int]], Iterator[list[int]]],
        truncated: Sequence[bool],
        query_truncated: bool,
    ) -> None:
        self._windows, self._texts, self._rules = windows, texts, rules
        self._top_k = max(top_k, rules.wanted) if top_k else top_k
        self._batched = batched
        self._truncated, self._query_truncated = tuple(truncated), query_truncated
        self._best_at = [[-math.inf] * texts for _ in rules.exits]
        self._blocks = _blocks(windows)
        self._alive: list[Window] = []
        self._hurried = False
        self.exit = 0
        """Which exit the batches lead to, from 0."""
        self.batches: list[list[Window]] = []
        """What is to be read before it can be settled; whoever reads one takes it away."""
        self.done = False
        self._begin(next(self._blocks, []))

    @property
    def tokens(self) -> int:
        """How much there is to read with the first layers."""
        return sum(window.length for window in self._windows)

    @property
    def _chooses(self) -> bool:
        """Whether anybody may leave early; else nobody asks what the logits are before the end."""
        return self._top_k is not None and self._top_k < self._texts

    def settle(self) -> None:
        """Everything was read up to this exit: let go who cannot come among the wanted, and go on."""
        last = self.exit == len(self._rules.exits) - 1
        if self._chooses and not last:
            _fetch(self._alive)
        for window in self._alive:
            if window.finite:
                at_exit = self._best_at[self.exit]
                at_exit[window.text] = max(at_exit[window.text], window.logits[-1])
        staying = [] if last else self._staying()
        kept = {id(window) for window in staying}
        for window in self._alive:
            if id(window) not in kept:
                window.states = None
                window.left = not last
        if staying:
            self.exit += 1
            self._batch(staying)
        else:
            self._begin(next(self._blocks, []))

    def stop(self) -> None:
        """Time is up: what was not read stays so."""
        self._hurried, self.done, self.batches = True, True, []

    def result(self) -> Relevance:
        """What is known of every text."""
        _fetch(self._windows)
        best = _best(self._windows, self._texts)
        logits = self._final(best)
        exits = self._rules.exits
        return Relevance(
            relevance=tuple(self._rules.calibration.probability(logit) for logit in logits),
            logit=tuple(logits),
            truncated=self._truncated,
            unread=tuple(window is None for window in best),
            query_truncated=self._query_truncated,
            layers=tuple(exits[len(window.logits) - 1] if window else 0 for window in best),
            by_exit=tuple(tuple(window.logits) if window else () for window in best),
            hurried=self._hurried,
            windows=_offsets(self._windows, best),
        )

    def _begin(self, block: list[Window]) -> None:
        self.exit = 0
        self.done = not block
        self._batch(block)

    def _batch(self, alive: list[Window]) -> None:
        self._alive = alive
        lengths = [window.length for window in alive]
        self.batches = [[alive[position] for position in batch] for batch in self._batched(lengths)]

    def _staying(self) -> list[Window]:
        if not self._chooses or self._top_k is None:
            return list(self._alive)
        logits = self._best_at[self.exit]
        bar = sorted(logits, reverse=True)[max(self._top_k, 1) - 1] - self._rules.margins[self.exit]
        return [window for window in self._alive if window.logits[-1] >= bar]

    def _final(self, best: Sequence[Window | None]) -> list[float]:
        """The last exit's logit, or its forecast; what left early stays below the `top_k` that did not."""
        full, top_k = len(self._rules.exits), self._top_k
        read = sorted(
            (window.logits[-1] for window in best if window and len(window.logits) == full and window.finite),
            reverse=True,
        )
        ceiling = read[top_k - 1] - 1e-6 if top_k is not None and 0 < top_k <= len(read) else math.inf
        logits = []
        for window in best:
            if window is None or not window.finite:
                logits.append(math.nan)
            elif len(window.logits) == full:
                logits.append(window.logits[-1])
            else:
                slope, intercept = self._rules.forecasts[len(window.logits) - 1]
                forecast = slope * window.logits[-1] + intercept
                logits.append(min(forecast, ceiling) if window.left else forecast)
        return logits


def _fetch(windows: Sequence[Window]) -> None:
    for window in windows:
        while window.pending:
            window.pending.pop()()


def _blocks(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Windows in their order, so many at a time that their states fit into memory."""
    block: list[Window] = []
    held = 0
    for window in windows:
        if block and held + window.length > _MOST_HELD_TOKENS:
            yield block
            block, held = [], 0
        block.append(window)
        held += window.length
    if block:
        yield block


def _best(windows: Sequence[Window], count: int) -> list[Window | None]:
    """Per text the window that got furthest, and among those the one with the highest logit."""
    best: list[Window | None] = [None] * count
    for window in windows:
        if not window.logits:
            continue
        other = best[window.text]
        if other is None or _rank(window) > _rank(other):
            best[window.text] = window
    return best


def _rank(window: Window) -> tuple[int, float]:
    return len(window.logits), window.logits[-1] if window.finite else -math.inf


def _offsets(windows: Sequence[Window], best: Sequence[Window | None]) -> tuple[tuple[int, int] | None, ...]:
    several = [0] * len(best)
    for window in windows:
        several[window.text] += 1
    if max(several) <= 1:
        return ()
    return tuple(
        (window.start, window.end) if window and count > 1 else None
        for window, count in zip(best, several, strict=True)
    )
