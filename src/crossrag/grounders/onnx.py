"""The bundled grounding model, or another folder of its kind, on onnxruntime.

Claim and evidence go in, a probability comes out that the one supports the other. Long evidence is condensed
to the sentences that bear on the claim before it is read (`crossrag.evidence`). The logit is
`weights * features + bias + share * correction`, of which the graph gives the last.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.evidence import FEATURES, read
from crossrag.inference import OnnxModel, cut_question

if TYPE_CHECKING:
    from tokenizers import Encoding


class OnnxGrounder:
    """Reads claim and evidence as `[CLS] claim [SEP] evidence [SEP]`.

    Args:
        directory: With `model.onnx`, `tokenizer.json` and `config.json`.
        threads: Threads for one run; 0 = one per core.
        device: `cpu`, `cuda` or `cuda:1`; None for the processor.

    Raises:
        ModelError: A file is missing or damaged, or the folder holds another kind of model.
    """

    def __init__(self, directory: Path | str, *, threads: int = 0, device: str | None = None) -> None:
        self._model = OnnxModel(Path(directory).expanduser(), threads=threads, device=device)
        config = self._model.config
        if config.get("kind") != "grounding" or config.get("features") != list(FEATURES):
            raise ModelError(
                f"{directory} is no grounding model of this version of crossrag",
                hint="Write onnx:bundled, or make the model again",
            )
        self._weights = [float(value) for value in config["weights"]]
        self._bias = float(config["bias"])
        self._share = float(config["share"])
        self._max_tokens = int(config["max_tokens"])
        self._max_claim_tokens = int(config["max_claim_tokens"])
        self._most_words = int(config["most_words"])
        self._calibration = Calibration(**config["calibration"])
        # Truncation is a state of the tokenizer: two threads must not set it at once.
        self._tokenizing = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Digest of model, tokenizer and config."""
        return f"grounding:{self._model.fingerprint}"

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One probability per pair of evidence and claim, the same whatever other pairs are asked with it."""
        readings = [read(claim, evidence, most_words=self._most_words) for evidence, claim in pairs]
        encodings = self._encoded([claim for _, claim in pairs], [reading.text for reading in readings])
        said = [math.nan] * len(pairs)
        for batch in self._model.batches([len(encoding.ids) for encoding in encodings]):
            corrections = self._model.run([encodings[position] for position in batch])
            for position, correction in zip(batch, corrections, strict=True):
                plain = sum(map(mul, self._weights, readings[position].features))
                said[position] = self._calibration.probability(
                    plain + self._bias + self._share * float(correction)
                )
        return said

    def _encoded(self, claims: Sequence[str], texts: Sequence[str]) -> list[Encoding]:
        """Pairs in which the claim keeps its tokens and the evidence is cut."""
        tokenizer = self._model.tokenizer
        cut = [cut_question(tokenizer, claim, self._max_claim_tokens)[0] for claim in claims]
        with self._tokenizing:
            tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
            encodings = tokenizer.encode_batch(list(zip(cut, texts, strict=True)))
            tokenizer.no_truncation()
        return encodings
