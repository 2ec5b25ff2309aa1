"""Any `CrossEncoder` of sentence-transformers, from a folder on this machine; nothing is downloaded.

On a GPU where there is one, in bfloat16 there. Extra: `pip install 'crossrag[sentence-transformers]'`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossrag.blocks import TOKENIZED, in_blocks, is_over
from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.inference import beginning
from crossrag.types import Relevance, Scores

_FINGERPRINTED = frozenset({".safetensors", ".bin", ".json", ".txt", ".model"})
"""Endings of weights, however they are cut, of settings, and of words of tokenizers."""


class SentenceTransformersReranker:
    """Scores pairs with torch.

    Args:
        model: Folder with the model, as `CrossEncoder.save` writes it.
        threads: Threads of torch; 0 leaves its own choice.
        device: Such as `cpu` or `cuda:1`; None takes a GPU where there is one.
        batch_size: Pairs per run.

    Raises:
        ModelError: The folder is missing or holds no such model.
    """

    def __init__(
        self, model: str, *, threads: int = 0, device: str | None = None, batch_size: int = 32
    ) -> None:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise ModelError(
                f"{model} is not a folder on this machine",
                hint="Download the model first; crossrag never does",
            )
        import torch
        from sentence_transformers import CrossEncoder

        if threads:
            torch.set_num_threads(threads)
        on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
        try:
            self._encoder: Any = CrossEncoder(
                str(folder),
                device=device,
                local_files_only=True,
                model_kwargs={"torch_dtype": torch.bfloat16} if on_gpu else None,
            )
        except Exception as error:  # noqa: BLE001
            # Whatever the folder lacks, transformers says it in exceptions of many kinds.
            raise ModelError(
                f"{folder} cannot be loaded: {str(error)[:200]}", hint="Save it with CrossEncoder.save"
            ) from None
        if self._encoder.num_labels != 1:
            raise ModelError(
                f"{folder} has {self._encoder.num_labels} labels", hint="A reranker has one: relevance"
            )
        self._identity = torch.nn.Identity()
        self._batch_size = batch_size
        self._calibration = Calibration()
        # The tokenizer holds how it truncates: two threads must not use it at once.
        self._lock = threading.Lock()
        # The same weights say something else in another precision.
        precision = str(next(self._encoder.parameters()).dtype).removeprefix("torch.")
        self.fingerprint = f"sentence-transformers-{precision}:{_digest(folder)}"

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002 - part of the seam
        top_k: int | None = None,  # noqa: ARG002 - every pair costs the same here
        deadline: float | None = None,
    ) -> Relevance:
        """One relevance per text: the sigmoid of its logit."""
        with self._lock:
            return self._score(query, texts, deadline)

    def _score(self, query: str, texts: Sequence[str], deadline: float | None) -> Relevance:
        limit = getattr(self._encoder, "max_seq_length", None) or self._encoder.tokenizer.model_max_length
        if is_over(deadline):
            return Relevance.of_unread(len(texts))
        query, query_truncated = self._cut(query, limit)
        parts, lengths = self._prepared(query, texts, limit, deadline)
        if len(parts) < len(texts):
            return Relevance.of_unread(len(texts))
        order = sorted(range(len(texts)), key=lambda position: (position // 256, lengths[position]))
        logits = [math.nan] * len(texts)
        unread = [True] * len(texts)
        for start in range(0, len(order), self._batch_size):
            if is_over(deadline):
                break
            batch = order[start : start + self._batch_size]
            said = self._encoder.predict(
                [(query, parts[position]) for position in batch],
                batch_size=self._batch_size,
                activation_fn=self._identity,
                show_progress_bar=False,
            )
            for position, logit in zip(batch, said, strict=True):
                logits[position], unread[position] = float(logit), False
        return Relevance(
            relevance=tuple(map(self._calibration.probability, logits)),
            logit=tuple(logits),
            truncated=tuple(length > limit for length in lengths),
            unread=tuple(unread),
            query_truncated=query_truncated,
        )

    def _cut(self, query: str, limit: int) -> tuple[str, bool]:
        """The question in at most half of the model's length, and whether it had more.

        The encoder cuts whichever is longer, and says nothing: so a question no longer than that stays whole.
        """
        tokenizer = self._encoder.tokenizer
        most = (limit - tokenizer.num_special_tokens_to_add(pair=True)) // 2
        query = beginning(query, most, self._count)
        if not getattr(tokenizer, "is_fast", False):
            # These know no offsets.
            ids = tokenizer(query, add_special_tokens=False, verbose=False)["input_ids"]
            return (query, False) if len(ids) <= most else (str(tokenizer.decode(ids[:most])), True)
        said = tokenizer(query, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = said["offset_mapping"]
        return (query, False) if len(offsets) <= most else (query[: offsets[most - 1][1]], True)

    def _prepared(
        self, query: str, texts: Sequence[str], limit: int, deadline: float | None
    ) -> tuple[list[str], list[int]]:
        """What can be read of each text, and how many tokens a pair has; of fewer texts if time is up."""
        parts: list[str] = []
        lengths: list[int] = []
        for block in in_blocks(texts, TOKENIZED):
            cut = [beginning(text, limit, self._count, deadline=deadline) for text in block]
            said = self._encoder.tokenizer([query] * len(cut), cut, truncation=False, verbose=False)
            if is_over(deadline):
                break
            parts += cut
            lengths += map(len, said["input_ids"])
        return parts, lengths

    def _count(self, text: str) -> int:
        ids = self._encoder.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
        return len(ids["input_ids"])


def _digest(folder: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix in _FINGERPRINTED and path.is_file() and not hidden:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name.as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
