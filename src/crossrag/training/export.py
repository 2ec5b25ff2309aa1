"""Network -> model folder: int8 graphs, tokenizer, config, checksums.

A folder is enough to go on training from: `crossrag.exported` reads the weights back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.calibration import Calibration

from .graph import write_graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .network import ProgressiveCrossEncoder

MAX_TOKENS, MAX_QUERY_TOKENS = 512, 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What is measured on held-out pairs after training and needed for serving."""

    typical: tuple[float, float] = (0.4, 2.0)
    """Mean cosine and mean BM25 in its unit: what a leg that was not searched counts as."""
    margins: tuple[float, ...] = (5.0, 5.0)
    wanted: int = 10
    """How many of the best the margins are for."""
    forecasts: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.0, 0.0))
    calibration: Calibration = field(default_factory=Calibration)
    alone: Calibration = field(default_factory=Calibration)


def export(
    network: ProgressiveCrossEncoder,
    tokenizer: Path,
    out: Path,
    *,
    fitted: Fitted | None = None,
    name: str = "progressive-reranker",
    int8: bool = True,
) -> None:
    """Write the folder that `rerankers.progressive` reads.

    Args:
        network: Trained; on any device.
        tokenizer: `tokenizer.json` that it was trained with.
        out: Folder; made if missing, files of the same names are replaced.
        fitted: Calibration and margins; harmless ones if None.
        name: Said in `config.json`.
        int8: Whether products are taken in integers.
    """
    out.mkdir(parents=True, exist_ok=True)
    graphs = []
    for number, last in enumerate(network.exits):
        first = network.exits[number - 1] if number else 0
        graphs.append(f"layers-{first + 1}-{last}.onnx")
        more = last != network.exits[-1]
        _write(network, out / graphs[-1], number, first=first, int8=int8, states=more)
    config = _config(network, fitted or Fitted(), name) | {"graphs": graphs}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, out)
    write_checksums(out)


def export_single(network: ProgressiveCrossEncoder, path: Path, *, int8: bool = True) -> None:
    """Write the whole network as one graph without early exits, for other programs."""
    _write(network, path, len(network.exits) - 1, first=0, int8=int8, states=False, standard=True)


def _write(network: ProgressiveCrossEncoder, path: Path, number: int, *, first: int, **form: bool) -> None:
    """One graph: from layer `first` to exit `number`."""
    state = {key: tensor.detach().float().cpu().numpy() for key, tensor in network.state_dict().items()}
    bert = network.bert.config
    write_graph(
        _with_head(state, number),
        path,
        first=first,
        last=network.exits[number],
        heads=bert.num_attention_heads,
        epsilon=bert.layer_norm_eps,
        **form,
    )


def refit(folder: Path, fitted: Fitted) -> None:
    """Put other measurements into an exported folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | _measured(fitted, None)
    config["first_stage"]["typical"] = list(fitted.typical)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_checksums(folder)


def write_tokenizer(source: Path, folder: Path) -> None:
    """Copy it without truncation and padding: both are for the caller to decide."""
    settings = json.loads(source.read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
    text = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def write_checksums(folder: Path) -> None:
    """`SHA256SUMS` over every file of the folder but itself and its card."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {".json", ".npy", ".onnx"})
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def _with_head(state: Mapping[str, NDArray[np.float32]], number: int) -> dict[str, NDArray[np.float32]]:
    prefix = f"heads.{number}."
    own = {key.removeprefix(prefix): values for key, values in state.items() if key.startswith(prefix)}
    return {key: values for key, values in state.items() if key.startswith("bert.")} | own


def _config(network: ProgressiveCrossEncoder, fitted: Fitted, name: str) -> dict[str, Any]:
    dense, sparse = (float(weight) for weight in network.first_stage.detach().cpu())
    bert = network.bert.config
    return {
        "kind": "progressive",
        "name": name,
        "max_tokens": min(MAX_TOKENS, bert.max_position_embeddings),
        "max_query_tokens": min(MAX_QUERY_TOKENS, bert.max_position_embeddings // 2),
        "batch_size": 16,
        "bert": {
            key: getattr(bert, key)
            for key in (
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
                "max_position_embeddings",
                "type_vocab_size",
                "layer_norm_eps",
            )
        },
        "exits": list(network.exits),
        "first_stage": {"dense": dense, "sparse": sparse, "typical": list(fitted.typical)},
    } | _measured(fitted, network)


def _measured(fitted: Fitted, network: ProgressiveCrossEncoder | None) -> dict[str, Any]:
    biases = {} if network is None else {"biases": [float(value) for value in network.bias.detach().cpu()]}
    return biases | {
        "margins": _rounded(fitted.margins),
        "wanted": fitted.wanted,
        "forecasts": [_rounded(pair) for pair in fitted.forecasts],
        "calibration": {key: round(value, 6) for key, value in asdict(fitted.calibration).items()},
        "alone": {key: round(value, 6) for key, value in asdict(fitted.alone).items()},
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 6) for value in values]
