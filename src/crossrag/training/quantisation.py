"""Int8 for ONNX graphs, with one scale per token, column and word.

onnxruntime's own dynamic quantisation takes one scale for the activations of a whole batch, so what a text
becomes depends on its company. Here each row of activations is divided by its largest magnitude, becomes
uint8 around 128 with a constant scale, and is multiplied as integers; the row's scale returns as one
product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Limit = Literal["paired", "7 bit", "8 bit"]
"""How large weights may become.

`7 bit`: at most 63. `paired`: two of one sign among four neighbours of a column add up to at most 128. Either
keeps 255 * (a + b) within int16, where AVX2 without VNNI adds pairs, so that nothing saturates there.
`8 bit`: at most 127, may saturate.
"""


def constants() -> dict[str, Any]:
    """What the nodes below refer to by name."""
    return {
        "one": np.float32(1),
        "middle": np.uint8(128),
        "unit": np.float32(1 / 127),
        "tiny": np.float32(1e-12),
    }


def quantise_rows(name: str) -> list[Any]:
    """Nodes: `name` -> `name_uint8` and its scale `name_row`."""
    return [
        helper.make_node("ReduceMax", [name], [f"{name}_high"], axes=[-1], keepdims=1),
        helper.make_node("ReduceMin", [name], [f"{name}_low"], axes=[-1], keepdims=1),
        helper.make_node("Neg", [f"{name}_low"], [f"{name}_depth"]),
        helper.make_node("Max", [f"{name}_high", f"{name}_depth", "tiny"], [f"{name}_largest"]),
        helper.make_node("Mul", [f"{name}_largest", "unit"], [f"{name}_row"]),
        helper.make_node("Div", [name, f"{name}_row"], [f"{name}_divided"]),
        helper.make_node("QuantizeLinear", [f"{name}_divided", "one", "middle"], [f"{name}_uint8"]),
    ]


def integer_product(left: str, right: str, output: str) -> list[Any]:
    """Nodes: quantised rows times `right_int8` with its `right_scale`, as float32."""
    inputs = [f"{left}_uint8", f"{right}_int8", "one", f"{right}_scale", "middle"]
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}_units"], domain="com.microsoft"),
        helper.make_node("Mul", [f"{output}_units", f"{left}_row"], [output]),
    ]


def gather_rows(table: str, ids: str, output: str) -> list[Any]:
    """Nodes: rows of `table_int8` with their `table_scale`, as float32."""
    return [
        helper.make_node("Gather", [f"{table}_int8", ids], [f"{table}_units"]),
        helper.make_node("Cast", [f"{table}_units"], [f"{table}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}_scale", ids], [f"{table}_row"]),
        helper.make_node("Mul", [f"{table}_float", f"{table}_row"], [output]),
    ]


def by_column(weights: Floats, limit: Limit) -> tuple[NDArray[np.int8], Floats]:
    """Float32[k, n] to int8[k, n] and one scale per column."""
    peak = np.abs(weights).max(0) / (63 if limit == "7 bit" else 127)
    if limit == "paired":
        fours = weights.reshape(-1, 4, weights.shape[1])
        for signed in (fours, -fours):
            two_largest = np.sort(np.maximum(signed, 0), axis=1)[:, 2:].sum(1)
            peak = np.maximum(peak, two_largest.max(0) / 127)
    # A column of zeros, as in a head that has learned nothing, has any scale.
    peak = np.maximum(peak, 1e-12)
    return np.rint(weights / peak).astype(np.int8), peak.astype(np.float32)


def by_row(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Float32[n, k] to int8[n, k] and one scale per row, float32[n, 1]."""
    scale = (np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale
