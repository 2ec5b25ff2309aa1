"""Cross-encoders of other makers on onnxruntime: any folder with `model.onnx` and `tokenizer.json`.

The last column of the first output is the logit. `config.json` is optional:

    {"max_tokens": 512, "max_query_tokens": 192, "batch_size": 1,
     "calibration": {"slope": 1.0, "intercept": 0.0}}

Most exports to int8 take the scale of their activations from the whole batch, so a score would depend on its
company: `"batch_size": 1` is the default, and fp32 models may say more.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.inference import OnnxModel, cut_question
from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    from tokenizers import Encoding


class OnnxReranker:
    """Reads question and passage as `[CLS] question [SEP] passage [SEP]`."""

    def __init__(self, directory: Path | str, *, threads: int = 0, device: str | None = None) -> None:
        self._model = OnnxModel(Path(directory).expanduser(), threads=threads, batch_size=1, device=device)
        config = self._model.config
        if config.get("kind") == "progressive":
            raise ModelError(f"{directory} is a progressive reranker", hint=f"Write progressive:{directory}")
        self._max_tokens = int(config.get("max_tokens", _positions(config)))
        self._max_query_tokens = int(config.get("max_query_tokens", self._max_tokens // 2))
        # Truncation is a state of the tokenizer: two threads must not set it at once.
        self._tokenizing = threading.Lock()
        self._calibration = Calibration(**config.get("calibration", {}))

    @property
    def fingerprint(self) -> str:
        """Digest of model, tokenizer and config."""
        return f"onnx:{self._model.fingerprint}"

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002 - part of the seam
        top_k: int | None = None,  # noqa: ARG002 - every pair costs the same here
        deadline: float | None = None,
    ) -> Relevance:
        """One relevance per text, the same whatever other texts are scored with it."""
        if not texts:
            return Relevance.of_nothing()
        encodings, truncated, query_truncated = self._encode(query, texts)
        logits = [math.nan] * len(texts)
        unread = [True] * len(texts)
        for batch in self._model.batches([len(encoding.ids) for encoding in encodings]):
            if deadline is not None and time.monotonic() >= deadline:
                break
            for position, logit in zip(batch, self._logits([encodings[i] for i in batch]), strict=True):
                logits[position] = logit
                unread[position] = False
        return Relevance(
            relevance=tuple(map(self._calibration.probability, logits)),
            logit=tuple(logits),
            truncated=tuple(truncated),
            unread=tuple(unread),
            query_truncated=query_truncated,
        )

    def _encode(self, query: str, texts: Sequence[str]) -> tuple[list[Encoding], list[bool], bool]:
        """Pairs in which the question keeps its tokens and the passage is cut."""
        with self._tokenizing:
            tokenizer = self._model.tokenizer
            query, count = cut_question(tokenizer, query, self._max_query_tokens)
            tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
            encodings = tokenizer.encode_batch([(query, text) for text in texts])
            tokenizer.no_truncation()
        return (
            encodings,
            [bool(encoding.overflowing) for encoding in encodings],
            count > self._max_query_tokens,
        )

    def _logits(self, encodings: Sequence[Encoding]) -> list[float]:
        output = self._model.run(encodings)
        column = output if output.ndim == 1 else output[:, -1]
        return [float(value) for value in column]


def _positions(config: Mapping[str, Any]) -> int:
    """Tokens that a model has positions for, by what other makers' config.json says of it."""
    positions = int(config.get("max_position_embeddings", 512))
    # RoBERTa and its kind count positions from the padding token's id onwards.
    return positions - 2 if "roberta" in str(config.get("model_type", "")) else positions
