"""Network -> model folder, and back: int8 graphs, tokenizer, config, checksums.

A folder is enough to go on training from: int8 weights times their scales are the network's, to half a step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from crossrag.calibration import Calibration
from crossrag.errors import ModelError

from .graph import write_graph

if TYPE_CHECKING:
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


def read_config(folder: Path) -> Mapping[str, Any]:
    """What stands in `config.json` of an exported folder.

    Raises:
        ModelError: The folder holds another kind of model.
    """
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("kind") != "progressive":
        raise ModelError(f"{folder} is no progressive reranker", hint="Start from one that crossrag exported")
    return config


def read_weights(folder: Path) -> tuple[dict[str, NDArray[np.float32]], Mapping[str, Any]]:
    """Weights by torch's names, and the config, from an exported folder.

    Raises:
        ModelError: The folder holds another kind of model.
    """
    config = read_config(folder)
    state: dict[str, NDArray[np.float32]] = {}
    for number, graph in enumerate(config["graphs"]):
        tensors = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in onnx.load(folder / graph).graph.initializer
        }
        for key, values in _plain(tensors).items():
            state[key if key.startswith("bert.") else f"heads.{number}.{key}"] = values
    state["first_stage"] = np.asarray(
        [config["first_stage"]["dense"], config["first_stage"]["sparse"]], np.float32
    )
    state["bias"] = np.asarray(config["biases"], np.float32)
    return state, config


_TABLES = {
    "words": "bert.embeddings.word_embeddings.weight",
    "positions_table": "bert.embeddings.position_embeddings.weight",
    "types_table": "bert.embeddings.token_type_embeddings.weight",
    "words_table": "bert.embeddings.word_embeddings.weight",
}
_HEAD = ("importance", "inner", "outer", "mean_weight", "match_weight")


def _plain(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """A graph's constants as weights in torch's shapes."""
    weights: dict[str, NDArray[np.float32]] = {}
    for key, values in tensors.items():
        if key.endswith("_int8"):
            stem = key.removesuffix("_int8")
            product = values.astype(np.float32) * tensors[f"{stem}_scale"]
            weights[_TABLES.get(stem, stem)] = product if stem in _TABLES else np.ascontiguousarray(product.T)
        elif key in _TABLES:
            weights[_TABLES[key]] = values
        elif key.startswith(("bert.", *_HEAD)) and not key.endswith("_scale"):
            transposed = key.endswith(".weight") and values.ndim == 2
            weights[key] = np.ascontiguousarray(values.T) if transposed else values
    return weights


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
        "batch_tokens": 4096,
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
