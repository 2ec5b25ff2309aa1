"""Static embedder: the mean of one stored vector per token. No network runs, so it is fast on any processor.

In: a folder with `table.npy` (int8[v, d]), `scales.npy` (float32[v]), `tokenizer.json`. Word order is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.errors import ModelError
from crossrag.inference import ModelFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 512


class StaticEmbedder:
    """Embeds by looking tokens up (Tulkens and van Dongen, 2024, "Model2Vec").

    Args:
        directory: Made by `scripts/distil_static.py`, or in that form.
        threads: Taken for the sake of the seam; looking up needs none.

    Raises:
        ModelError: A file is missing or damaged, or table, scales and tokenizer do not fit together.
    """

    def __init__(self, directory: Path, *, threads: int = 0) -> None:
        del threads
        self._folder = ModelFolder(directory, ("table.npy", "scales.npy"))
        self._max_tokens = int(self._folder.config.get("max_tokens", 512))

    @property
    def dimension(self) -> int:
        """Columns of the table."""
        return int(self._vectors.shape[1])

    @property
    def fingerprint(self) -> str:
        """Digest of table, scales, tokenizer and config."""
        return f"static:{self._folder.fingerprint}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d] of unit length; what exceeds `max_tokens` is not seen."""
        import numpy as np

        rows = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            rows[start : start + len(block)] = np.stack(list(self._sums(block)))
        unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d] of unit length."""
        row: NDArray[np.float32] = self.embed_documents([text])[0]
        return row

    def _sums(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Of each text by itself, so that a vector does not depend on its company."""
        vectors = self._vectors
        # Special tokens stay: an empty text has a vector, too.
        for encoding in self._folder.tokenizer.encode_batch_fast(list(texts)):
            yield vectors[encoding.ids[: self._max_tokens]].sum(0)

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:
        import numpy as np

        directory = self._folder.directory
        _ = self._folder.fingerprint  # verifies the files before anything is made of them
        try:
            table = np.load(directory / "table.npy", allow_pickle=False)
            scales = np.load(directory / "scales.npy", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ModelError(
                f"{directory} holds no token table: {error}", hint="Copy the model again"
            ) from None
        words = self._folder.tokenizer.get_vocab_size()
        if table.ndim != 2 or scales.shape != table.shape[:1] or len(table) < words:
            raise ModelError(
                f"{directory} has {words} tokens, a table {table.shape} and scales {scales.shape}",
                hint="The table needs one row and one scale per token: copy the model again",
            )
        vectors: NDArray[np.float32] = table.astype(np.float32) * scales.astype(np.float32)[:, np.newaxis]
        return vectors
