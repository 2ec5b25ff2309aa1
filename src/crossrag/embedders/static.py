"""Static embedder: the mean of one stored vector per token. No network runs, so it is fast on any processor.

In: a folder with `table.npy` (int8[v, d]), `scales.npy` (float32[v]), `tokenizer.json`. Word order is lost.
`cosine` in `config.json` says how its cosines become those of the model that it was distilled from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        said = self._folder.config.get("cosine")
        self._cosine = None if said is None else _translation(said, directory)

    @property
    def dimension(self) -> int:
        """Columns of the table, and two more where cosines are translated."""
        return int(self._vectors.shape[1]) + (0 if self._cosine is None else 2)

    @property
    def fingerprint(self) -> str:
        """Digest of table, scales, tokenizer and config."""
        return f"static:{self._folder.fingerprint}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d] of unit length; what exceeds `max_tokens` is not seen."""
        rows = self._unit(texts)
        if self._cosine is None:
            return rows
        scale, shift = self._cosine
        across = shift / math.sqrt(1 - scale)
        return _widened(rows, scale, across, math.sqrt(max(0.0, 1 - scale - across**2)))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d] of unit length."""
        rows = self._unit([text])
        if self._cosine is not None:
            scale, _ = self._cosine
            rows = _widened(rows, scale, math.sqrt(1 - scale), 0.0)
        row: NDArray[np.float32] = rows[0]
        return row

    def _unit(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        rows = np.zeros((len(texts), self._vectors.shape[1]), np.float32)
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            rows[start : start + len(block)] = np.stack(list(self._sums(block)))
        unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit

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


def _translation(said: Mapping[str, Any], directory: Path) -> tuple[float, float]:
    """Scale and shift of cosines.

    Raises:
        ModelError: No vectors of unit length can have such cosines.
    """
    scale, shift = float(said.get("scale", 1.0)), float(said.get("shift", 0.0))
    if not (0 < scale < 1 and abs(shift) <= 1 - scale):
        raise ModelError(
            f"{directory} says that cosines are to be {scale:g} times theirs and {shift:g}",
            hint="The scale must be between 0 and 1, the shift at most as large as what is left to 1",
        )
    return scale, shift


def _widened(rows: NDArray[np.float32], scale: float, first: float, second: float) -> NDArray[np.float32]:
    """Two more columns, the same for all rows: they are what a question and a text have in common always."""
    import numpy as np

    wide = np.empty((len(rows), rows.shape[1] + 2), np.float32)
    wide[:, :-2] = rows * math.sqrt(scale)
    wide[:, -2], wide[:, -1] = first, second
    return wide
