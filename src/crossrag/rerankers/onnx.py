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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.blocks import TOKENIZED, in_blocks, is_over
from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.inference import OnnxModel, beginning, counted_by, cut_question
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
        encodings, query_truncated = self._encode(query, texts, deadline)
        if len(encodings) < len(texts):
            return Relevance.of_unread(len(texts))
        logits = [math.nan] * len(texts)
        unread = [True] * len(texts)
        for batch in self._model.batches([len(encoding.ids) for encoding in encodings]):
            if is_over(deadline):
                break
            for position, logit in zip(batch, self._logits([encodings[i] for i in batch]), strict=True):
                logits[position] = logit
                unread[position] = False
        return Relevance(
            relevance=tuple(map(self._calibration.probability, logits)),
            logit=tuple(logits),
            truncated=tuple(bool(encoding.overflowing) for encoding in encodings),
            unread=tuple(unread),
            query_truncated=query_truncated,
        )

    def _encode(
        self, query: str, texts: Sequence[str], deadline: float | None
    ) -> tuple[list[Encoding], bool]:
        """Pairs in which the question keeps its tokens and the passage is cut; fewer if time is up."""
        encodings: list[Encoding] = []
        if is_over(deadline):
            return encodings, False
        tokenizer = self._model.tokenizer
        count = counted_by(tokenizer)
        with self._tokenizing:
            query, tokens = cut_question(tokenizer, query, self._max_query_tokens)
        for block in in_blocks(texts, TOKENIZED):
            with self._tokenizing:
                parts = [beginning(text, self._max_tokens, count, deadline=deadline) for text in block]
                tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
                made = tokenizer.encode_batch([(query, part) for part in parts])
                tokenizer.no_truncation()
            if is_over(deadline):
                break
            encodings += made
        return encodings, tokens > self._max_query_tokens

    def _logits(self, encodings: Sequence[Encoding]) -> list[float]:
        output = self._model.run(encodings)
        column = output if output.ndim == 1 else output[:, -1]
        return [float(value) for value in column]


def _positions(config: Mapping[str, Any]) -> int:
    """Tokens that a model has positions for, by what other makers' config.json says of it."""
    positions = int(config.get("max_position_embeddings", 512))
    # RoBERTa and its kind count positions from the padding token's id onwards.
    return positions - 2 if "roberta" in str(config.get("model_type", "")) else positions
