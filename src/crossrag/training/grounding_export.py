"""A trained grounding network -> the model folder that `grounders.onnx` reads: graph, tokenizer, config."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.calibration import Calibration
from crossrag.evidence import FEATURES, MOST_WORDS

from .export import write_checksums, write_tokenizer
from .graph import write_graph
from .grounding import MAX_CLAIM_TOKENS, MAX_TOKENS

if TYPE_CHECKING:
    from .grounding import GroundingNetwork

_PREFIX = "heads.0."


def export(  # noqa: PLR0913 - one file says as much
    network: GroundingNetwork,
    tokenizer: Path,
    out: Path,
    *,
    calibration: Calibration | None = None,
    share: float = 1.0,
    most_words: int = MOST_WORDS,
    name: str = "grounding",
    int8: bool = True,
) -> None:
    """Write graph, `tokenizer.json`, `config.json` and `SHA256SUMS`.

    Args:
        network: Trained, on the CPU.
        tokenizer: `tokenizer.json` that it was trained with.
        out: Folder; made if missing, files of the same names are replaced.
        calibration: From its logit to a probability; none if None.
        share: Of the correction that counts, see `grounding.largest_share`.
        most_words: Of evidence that are read beside a claim.
        name: Said in `config.json`.
        int8: Whether products are taken in integers.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.detach().float().numpy() for key, tensor in network.state_dict().items()}
    body = {key: values for key, values in state.items() if key.startswith("bert.")}
    head = {key.removeprefix(_PREFIX): values for key, values in state.items() if key.startswith(_PREFIX)}
    bert = network.bert.config
    write_graph(
        body | head,
        out / "model.onnx",
        first=0,
        last=bert.num_hidden_layers,
        heads=bert.num_attention_heads,
        epsilon=bert.layer_norm_eps,
        int8=int8,
        states=False,
    )
    config = {
        "kind": "grounding",
        "name": name,
        "features": list(FEATURES),
        "weights": [round(float(value), 6) for value in state["weights"]],
        "bias": round(float(state["bias"]), 6),
        "share": share,
        "most_words": most_words,
        "max_tokens": MAX_TOKENS,
        "max_claim_tokens": MAX_CLAIM_TOKENS,
        "batch_size": 16,
        "calibration": {key: round(value, 6) for key, value in asdict(calibration or Calibration()).items()},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, out)
    write_checksums(out)
