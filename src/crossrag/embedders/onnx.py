"""Dense embedder on onnxruntime: any folder with `model.onnx` and `tokenizer.json`.

Graphs that give `embedding` [n, d] are taken as they are; those that give token states [n, length, d] are
averaged over the attention mask. Vectors have unit length. The bundled model gives a document the same
vector, to the bit, alone and in any company, on processors of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.inference import OnnxModel, beginning, counted_by

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

_WHOLE = 8
"""Widths of batches of documents are multiples of it."""


class OnnxEmbedder:
    """Embeds with a bi-encoder; `config.json` may give `max_tokens`, prefixes and batch limits."""

    def __init__(self, directory: Path, *, threads: int = 0, device: str | None = None) -> None:
        self._model = OnnxModel(directory, threads=threads, device=device)
        config = self._model.config
        self._max_tokens = int(config.get("max_tokens", 256))
        self._query_prefix = str(config.get("query_prefix", ""))
        self._document_prefix = str(config.get("document_prefix", ""))

    @cached_property
    def dimension(self) -> int:
        """From the config, else by embedding one word."""
        declared = self._model.config.get("dimension")
        return int(declared) if declared else int(self.embed_query("dimension").shape[0])

    @property
    def fingerprint(self) -> str:
        """Digest of model, tokenizer and config."""
        return f"onnx:{self._model.fingerprint}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d] of unit length; what exceeds the model's length is not seen."""
        steady = self._model.config.get("batch_size") != 1
        return self._embed([self._document_prefix + text for text in texts], steady=steady)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d] of unit length."""
        row: NDArray[np.float32] = self._embed([self._query_prefix + text], steady=False)[0]
        return row

    def _embed(self, texts: Sequence[str], *, steady: bool) -> NDArray[np.float32]:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        tokenizer = self._model.tokenizer
        count = counted_by(tokenizer)
        encodings = tokenizer.encode_batch([beginning(text, self._max_tokens, count) for text in texts])
        for encoding in encodings:
            encoding.truncate(self._max_tokens)
        vectors: NDArray[np.float32] | None = None
        for batch in self._model.batches([len(encoding.ids) for encoding in encodings]):
            run = [encodings[position] for position in batch]
            rows = _unit(self._in_company(run) if steady else self._pooled(run))
            if vectors is None:
                vectors = np.zeros((len(texts), rows.shape[1]), np.float32)
            vectors[batch] = rows
        assert vectors is not None  # noqa: S101 - there is at least one text, hence one batch
        return vectors

    def _in_company(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """The same bits for a text whatever else is in the batch.

        onnxruntime adds up in another order where a batch has one row, or a width that is one less than whole
        fours, which makes another vector by 1e-7. So a text that is left alone is run twice, and widths are
        whole eights. A model whose batches have to be of one text is left alone.
        """
        width = max(len(encoding.ids) for encoding in encodings)
        whole = min(-(-width // _WHOLE) * _WHOLE, self._max_tokens)
        several = encodings if len(encodings) > 1 else [*encodings, *encodings]
        return self._pooled(several, width=whole)[: len(encodings)]

    def _pooled(self, encodings: Sequence[Encoding], *, width: int = 0) -> NDArray[np.float32]:
        import numpy as np

        output = self._model.run(encodings, width=width)
        if output.ndim == 2:
            return output
        mask = np.zeros(output.shape[:2], np.float32)
        for row, encoding in enumerate(encodings):
            mask[row, : len(encoding.ids)] = encoding.attention_mask
        pooled: NDArray[np.float32] = (output * mask[..., None]).sum(1) / np.maximum(mask.sum(1), 1)[:, None]
        return pooled


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
