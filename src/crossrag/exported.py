"""An exported reranker's folder -> its weights by torch's names, read back from the constants of its graphs.

int8 weights times their scales are the network's, to half a step. Needs the package `onnx`, and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        MissingExtraError: The package `onnx` is not installed.
        ModelError: The folder holds another kind of model, or a graph is damaged.
    """
    config = read_config(folder)
    state: dict[str, NDArray[np.float32]] = {}
    for number, graph in enumerate(config["graphs"]):
        for key, values in _plain(_constants(folder / graph)).items():
            state[key if key.startswith("bert.") else f"heads.{number}.{key}"] = values
    state["first_stage"] = np.asarray(
        [config["first_stage"]["dense"], config["first_stage"]["sparse"]], np.float32
    )
    state["bias"] = np.asarray(config["biases"], np.float32)
    return state, config


def _constants(graph: Path) -> dict[str, NDArray[Any]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtraError(
            f"Reading weights out of {graph.name} needs the package onnx",
            hint="pip install 'crossrag[training]'",
        ) from None
    try:
        constants = onnx.load(graph).graph.initializer
    except Exception as error:  # noqa: BLE001 - the parser of Protocol Buffers has exceptions of its own
        raise ModelError(
            f"{graph} cannot be read: {str(error)[:200]}",
            hint="The file may be cut: copy it again, or reinstall crossrag if it is the bundled one",
        ) from None
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in constants}


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
