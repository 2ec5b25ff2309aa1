"""Our own cross-encoder: all candidates are read with a few layers, the promising ones with more.

A model folder holds one graph per exit (`layers-1-2.onnx`, …), which hands its states to the next, and in
`config.json` what training has found out:

    {"kind": "progressive", "max_tokens": 512, "max_query_tokens": 192,
     "exits": [2, 4, 6], "graphs": ["layers-1-2.onnx", "layers-3-4.onnx", "layers-5-6.onnx"],
     "first_stage": {"dense": 10.0, "sparse": 1.0, "typical": [0.4, 2.0]},
     "biases": [-10.0, -10.0, -10.0], "margins": [3.0, 1.5],
     "forecasts": [[0.9, 0.1], [1.0, 0.0]],
     "calibration": {"slope": 1.0, "intercept": 0.0}, "alone": {"slope": 1.0, "intercept": 0.0}}

The logit after exit k is `dense * cosine + sparse * bm25 / sqrt(words) + bias[k] + correction[k]`. A forecast
tells the last logit from an earlier one (slope, intercept); a margin is how far below the k-th best a passage
may stand at an exit and still get there.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.inference import OnnxModel, cut_question, feeds
from crossrag.residual import first_stage_share
from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

_MOST_WINDOWS = 16
_MOST_HELD_TOKENS = 131_072
"""Tokens whose states are kept at once between exits: 200 MB at a width of 384."""


@dataclass(slots=True)
class _Window:
    """One reading of question and passage, or of a part of a long passage."""

    text: int
    encoding: Encoding
    states: NDArray[np.float32] | None = None
    logits: list[float] = field(default_factory=list)
    """One per exit that was reached."""
    start: int = 0
    end: int = 0
    """Characters of the passage that were read."""
    left: bool = False
    """Whether it left early because it could not come among the wanted ones."""


class ProgressiveReranker:
    """Reads question and passage as `[CLS] question [SEP] passage [SEP]`, longer passages in windows.

    Args:
        directory: The model folder.
        threads: Threads for one run; 0 = one per core.

    Raises:
        ModelError: The folder is damaged or holds another kind of model.
    """

    def __init__(self, directory: Path, *, threads: int = 0) -> None:
        self._model = OnnxModel(directory, threads=threads)
        config = self._model.config
        if config.get("kind") != "progressive":
            raise ModelError(
                f"{directory} is no progressive reranker",
                hint=f"For other cross-encoders write onnx:{directory}",
            )
        try:
            self._configure(config)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{directory / 'config.json'} is incomplete: {error!r}", hint="Copy or train the model again"
            ) from None
        # Truncation is a state of the tokenizer: two threads must not set it at once.
        self._tokenizing = threading.Lock()

    def _configure(self, config: Mapping[str, Any]) -> None:
        self._exits = tuple(int(exit_) for exit_ in config["exits"])
        self._max_tokens = int(config["max_tokens"])
        self._max_query_tokens = int(config["max_query_tokens"])
        self._weights: Mapping[str, Any] = config["first_stage"]
        self._biases = tuple(map(float, config["biases"]))
        self._margins = (*map(float, config["margins"]), 0.0)
        self._forecasts = tuple((float(slope), float(intercept)) for slope, intercept in config["forecasts"])
        self._calibration = Calibration(**config["calibration"])
        self._alone = Calibration(**config["alone"])

    @property
    def fingerprint(self) -> str:
        """Digest of graphs, tokenizer and config."""
        return f"progressive:{self._model.fingerprint}"

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """Without `top_k`, every text is read with all layers and its score is the same in any company.

        With it, the best `top_k` are the same (but for what the margins let slip), and the others carry a
        forecast from the exit at which they left, below the best. Without `first_stage` the network's own
        logit is what counts, which is less sure.
        """
        if not texts:
            return Relevance(relevance=(), logit=(), truncated=(), unread=())
        shares = self._shares(query, first_stage, len(texts))
        windows, truncated, query_truncated = self._windows(query, texts)
        standing = _Standing(len(texts), self._margins, top_k)
        hurried = False
        for block in _blocks(windows):
            hurried |= not self._read(block, shares, standing, deadline)
        best = _best(windows, len(texts))
        logits = self._final(best, top_k)
        calibration = self._calibration if first_stage is not None else self._alone
        return Relevance(
            relevance=tuple(calibration.probability(logit) for logit in logits),
            logit=tuple(logits),
            truncated=tuple(truncated),
            unread=tuple(window is None for window in best),
            query_truncated=query_truncated,
            layers=tuple(self._exits[len(window.logits) - 1] if window else 0 for window in best),
            by_exit=tuple(tuple(window.logits) if window else () for window in best),
            hurried=hurried,
            windows=_offsets(windows, best),
        )

    def _shares(self, query: str, first_stage: Sequence[Scores] | None, count: int) -> list[float]:
        if first_stage is None:
            return [0.0] * count
        if len(first_stage) != count:
            raise ModelError(
                f"Got first-stage scores for {len(first_stage)} of {count} texts",
                hint="Pass one Scores per text, or first_stage=None",
            )
        return first_stage_share(self._weights, query, first_stage)

    def _windows(self, query: str, texts: Sequence[str]) -> tuple[list[_Window], list[bool], bool]:
        """Pairs in which the question is kept; of a long passage several, overlapping by a quarter."""
        with self._tokenizing:
            tokenizer = self._model.tokenizer
            tokenizer.no_truncation()
            query, count = cut_question(tokenizer, query, self._max_query_tokens)
            room = self._max_tokens - min(count, self._max_query_tokens) - 3
            tokenizer.enable_truncation(self._max_tokens, stride=room // 4, strategy="only_second")
            encodings = tokenizer.encode_batch([(query, text) for text in texts])
            tokenizer.no_truncation()
        windows: list[_Window] = []
        truncated = []
        for number, encoding in enumerate(encodings):
            parts = [encoding, *encoding.overflowing]
            truncated.append(len(parts) > _MOST_WINDOWS)
            windows += [_window(number, part) for part in parts[:_MOST_WINDOWS]]
        return windows, truncated, count > self._max_query_tokens

    def _read(
        self, block: list[_Window], shares: Sequence[float], standing: _Standing, deadline: float | None
    ) -> bool:
        """Take the windows as far as they can get; False if time was up first."""
        alive = block
        for exit_, graph in enumerate(self._model.graphs):
            for batch in self._model.batches([len(window.encoding.ids) for window in alive]):
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                self._run(graph, [alive[position] for position in batch], shares)
            standing.note(alive)
            staying = standing.staying(alive, exit_) if exit_ < len(self._exits) - 1 else []
            kept = {id(window) for window in staying}
            for window in alive:
                if id(window) not in kept:
                    window.states = None
                    window.left = exit_ < len(self._exits) - 1
            alive = staying
        return True

    def _run(self, graph: str, windows: Sequence[_Window], shares: Sequence[float]) -> None:
        inputs = feeds([window.encoding for window in windows])
        if (first := windows[0].states) is not None:
            width = inputs["input_ids"].shape[1]
            inputs["states"] = _padded([window.states for window in windows], width, first.shape[1])
        corrections, *states = self._model.run_graph(graph, inputs)
        for row, window in enumerate(windows):
            bias = self._biases[len(window.logits)]
            window.logits.append(shares[window.text] + bias + float(corrections[row]))
            window.states = states[0][row, : len(window.encoding.ids)] if states else None

    def _final(self, best: Sequence[_Window | None], top_k: int | None) -> list[float]:
        """The last exit's logit, or its forecast; what left early stays below the `top_k` that did not."""
        full = len(self._exits)
        read = sorted(
            (
                window.logits[-1]
                for window in best
                if window and len(window.logits) == full and _finite(window)
            ),
            reverse=True,
        )
        ceiling = read[top_k - 1] - 1e-6 if top_k is not None and 0 < top_k <= len(read) else math.inf
        logits = []
        for window in best:
            if window is None or not _finite(window):
                logits.append(math.nan)
            elif len(window.logits) == full:
                logits.append(window.logits[-1])
            else:
                slope, intercept = self._forecasts[len(window.logits) - 1]
                forecast = slope * window.logits[-1] + intercept
                logits.append(min(forecast, ceiling) if window.left else forecast)
        return logits


class _Standing:
    """The best logit of every text at every exit, and who may still come among the first `top_k`."""

    def __init__(self, count: int, margins: Sequence[float], top_k: int | None) -> None:
        self._logits = [[-math.inf] * count for _ in margins]
        self._margins, self._top_k = margins, top_k

    def note(self, windows: Sequence[_Window]) -> None:
        for window in windows:
            if _finite(window):
                at_exit = self._logits[len(window.logits) - 1]
                at_exit[window.text] = max(at_exit[window.text], window.logits[-1])

    def staying(self, windows: Sequence[_Window], exit_: int) -> list[_Window]:
        if self._top_k is None or self._top_k >= len(self._logits[exit_]):
            return list(windows)
        bar = sorted(self._logits[exit_], reverse=True)[max(self._top_k, 1) - 1] - self._margins[exit_]
        return [window for window in windows if window.logits[-1] >= bar]


def _window(text: int, encoding: Encoding) -> _Window:
    spans = [span for span, kind in zip(encoding.offsets, encoding.sequence_ids, strict=True) if kind == 1]
    start, end = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    return _Window(text, encoding, start=start, end=end)


def _blocks(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Windows in their order, so many at a time that their states fit into memory."""
    block: list[_Window] = []
    held = 0
    for window in windows:
        length = len(window.encoding.ids)
        if block and held + length > _MOST_HELD_TOKENS:
            yield block
            block, held = [], 0
        block.append(window)
        held += length
    if block:
        yield block


def _best(windows: Sequence[_Window], count: int) -> list[_Window | None]:
    """Per text the window that got furthest, and among those the one with the highest logit."""
    best: list[_Window | None] = [None] * count
    for window in windows:
        if not window.logits:
            continue
        other = best[window.text]
        if other is None or _rank(window) > _rank(other):
            best[window.text] = window
    return best


def _rank(window: _Window) -> tuple[int, float]:
    return len(window.logits), window.logits[-1] if _finite(window) else -math.inf


def _finite(window: _Window) -> bool:
    return math.isfinite(window.logits[-1])


def _offsets(
    windows: Sequence[_Window], best: Sequence[_Window | None]
) -> tuple[tuple[int, int] | None, ...]:
    several = [0] * len(best)
    for window in windows:
        several[window.text] += 1
    if max(several) == 1:
        return ()
    return tuple(
        (window.start, window.end) if window and count > 1 else None
        for window, count in zip(best, several, strict=True)
    )


def _padded(states: Sequence[NDArray[np.float32] | None], length: int, width: int) -> NDArray[np.float32]:
    import numpy as np

    padded = np.zeros((len(states), length, width), np.float32)
    for row, rows in enumerate(states):
        if rows is not None:
            padded[row, : len(rows)] = rows
    return padded
