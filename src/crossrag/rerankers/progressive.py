"""Our own cross-encoder: all candidates are read with a few layers, the promising ones with more.

A model folder holds one graph per exit (`layers-1-2.onnx`, …), which hands its states to the next, and in
`config.json` what training has found out:

    {"kind": "progressive", "max_tokens": 512, "max_query_tokens": 192,
     "exits": [2, 4, 6], "graphs": ["layers-1-2.onnx", "layers-3-4.onnx", "layers-5-6.onnx"],
     "first_stage": {"dense": 10.0, "sparse": 1.0, "typical": [0.4, 2.0]},
     "biases": [-10.0, -10.0, -10.0], "margins": [3.0, 1.5], "wanted": 10,
     "forecasts": [[0.9, 0.1], [1.0, 0.0]],
     "calibration": {"slope": 1.0, "intercept": 0.0}, "alone": {"slope": 1.0, "intercept": 0.0}}

The logit after exit k is `dense * cosine + sparse * bm25 / sqrt(words) + bias[k] + correction[k]`. A forecast
tells the last logit from an earlier one (slope, intercept); a margin is how far below the k-th best a passage
may stand at an exit and still get there, where `wanted` are to be found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.inference import OnnxModel, feeds
from crossrag.types import Relevance, Scores

from .questions import Questions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .reading import Reading, Window


class ProgressiveReranker:
    """Reads question and passage as `[CLS] question [SEP] passage [SEP]`, longer passages in windows.

    Args:
        directory: The model folder.
        threads: Threads for one run; 0 = one per core.
        device: `cpu`, `cuda` or `cuda:1`; None for the processor.

    Raises:
        ModelError: The folder is damaged or holds another kind of model.
    """

    residual = True
    """Corrects what a first stage says; see `Reranker`."""

    def __init__(self, directory: Path, *, threads: int = 0, device: str | None = None) -> None:
        self._model = OnnxModel(directory, threads=threads, device=device)
        self._questions = Questions(self._model)

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
            return Relevance.of_nothing()
        reading = self.begin(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)
        while not reading.done:
            for batch in reading.batches:
                if deadline is not None and time.monotonic() >= deadline:
                    reading.stop()
                    return reading.result()
                self.run(batch)
            reading.settle()
        return reading.result()

    def begin(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Reading:
        """Begin to read, for whoever runs the batches of several questions; there must be a text."""
        return self._questions.begin(
            query,
            texts,
            first_stage=first_stage,
            top_k=top_k,
            batched=self._model.batches,
            deadline=deadline,
        )

    def run(self, windows: Sequence[Window]) -> None:
        """Read windows up to their next exit, which must be the same; of which questions does not matter."""
        graph = self._model.graphs[len(windows[0].logits)]
        inputs = feeds([window.encoding for window in windows])
        if (first := windows[0].states) is not None:
            width = inputs["input_ids"].shape[1]
            inputs["states"] = _padded([window.states for window in windows], width, first.shape[1])
        corrections, *states = self._model.run_graph(graph, inputs)
        for row, window in enumerate(windows):
            bias = self._questions.biases[len(window.logits)]
            window.logits.append(window.share + bias + float(corrections[row]))
            window.states = states[0][row, : window.length] if states else None


def _padded(states: Sequence[NDArray[np.float32] | None], length: int, width: int) -> NDArray[np.float32]:
    import numpy as np

    padded = np.zeros((len(states), length, width), np.float32)
    for row, rows in enumerate(states):
        if rows is not None:
            padded[row, : len(rows)] = rows
    return padded
