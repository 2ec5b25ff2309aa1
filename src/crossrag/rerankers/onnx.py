"""Cross-encoder on onnxruntime: any folder with `model.onnx` and `tokenizer.json`.

Knows the multi-exit form (one column of logits per exit; the last one counts) and residual models, whose
logit is a correction of the first stage's scores. Weights and calibration stand in `config.json`:

    {"max_tokens": 512, "max_query_tokens": 192, "batch_size": 1,
     "residual": {"dense": 20.0, "sparse": 0.0},
     "calibration": {"slope": 1.0, "intercept": 0.0}}
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import ModelError
from crossrag.inference import OnnxModel
from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    from tokenizers import Encoding


class OnnxReranker:
    """Reads question and passage as `[CLS] question [SEP] passage [SEP]`."""

    def __init__(self, directory: Path, *, threads: int = 0) -> None:
        self._model = OnnxModel(directory, threads=threads)
        config = self._model.config
        self._max_tokens = int(config.get("max_tokens", 512))
        self._max_query_tokens = int(config.get("max_query_tokens", self._max_tokens // 2))
        self._residual: Mapping[str, float] = config.get("residual", {})
        # Truncation is a state of the tokenizer: two threads must not set it at once.
        self._tokenizing = threading.Lock()
        self._calibration: Mapping[str, float] = config.get("calibration", {})

    @property
    def fingerprint(self) -> str:
        """Digest of model, tokenizer and config."""
        return f"onnx:{self._model.fingerprint}"

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,  # noqa: ARG002 - part of the seam; this reranker spends the same on every pair
        deadline: float | None = None,
    ) -> Relevance:
        """One relevance per text, the same whatever other texts are scored with it.

        Raises:
            ModelError: The model is a residual and a text has no first-stage scores.
        """
        if not texts:
            return Relevance(relevance=(), logit=(), truncated=(), unread=())
        offsets = self._offsets(first_stage, len(texts))
        encodings, truncated, query_truncated = self._encode(query, texts)
        logits = [math.nan] * len(texts)
        unread = [True] * len(texts)
        for batch in self._model.batches(encodings):
            if deadline is not None and time.monotonic() >= deadline:
                break
            for position, logit in zip(batch, self._logits([encodings[i] for i in batch]), strict=True):
                logits[position] = logit + offsets[position]
                unread[position] = False
        return Relevance(
            relevance=tuple(self._calibrated(logit) for logit in logits),
            logit=tuple(logits),
            truncated=tuple(truncated),
            unread=tuple(unread),
            query_truncated=query_truncated,
        )

    def _offsets(self, first_stage: Sequence[Scores] | None, count: int) -> list[float]:
        if not self._residual:
            return [0.0] * count
        if first_stage is None or len(first_stage) != count:
            raise ModelError(
                f"{self._model.directory.name} is a residual and got no first-stage scores",
                hint="Pass first_stage=[Scores(dense=cosine), ...], one per text",
            )
        return [
            sum(weight * (getattr(scores, leg) or 0.0) for leg, weight in self._residual.items())
            for scores in first_stage
        ]

    def _encode(self, query: str, texts: Sequence[str]) -> tuple[list[Encoding], list[bool], bool]:
        """Pairs in which the question keeps its tokens and the passage is cut."""
        with self._tokenizing:
            return self._encode_alone(query, texts)

    def _encode_alone(self, query: str, texts: Sequence[str]) -> tuple[list[Encoding], list[bool], bool]:
        tokenizer = self._model.tokenizer
        head = tokenizer.encode(query, add_special_tokens=False)
        cut = len(head.ids) > self._max_query_tokens
        if cut:
            query = query[: head.offsets[self._max_query_tokens - 1][1]]
        tokenizer.no_truncation()
        full = tokenizer.encode_batch([(query, text) for text in texts])
        truncated = [len(encoding.ids) > self._max_tokens for encoding in full]
        if any(truncated):
            tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
            full = tokenizer.encode_batch([(query, text) for text in texts])
            tokenizer.no_truncation()
        return full, truncated, cut

    def _logits(self, encodings: Sequence[Encoding]) -> list[float]:
        output = self._model.run(encodings)
        column = output if output.ndim == 1 else output[:, -1]
        return [float(value) for value in column]

    def _calibrated(self, logit: float) -> float:
        if not math.isfinite(logit):
            return math.nan
        shifted = self._calibration.get("slope", 1.0) * logit + self._calibration.get("intercept", 0.0)
        # Beyond ±60 the exponential would only change digits that a double does not hold.
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, shifted))))
