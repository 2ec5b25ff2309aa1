"""Network -> ONNX graphs, written operator by operator: one per exit, int8 or float32.

The first graph takes tokens, the others the states that the one before hands over:

    layers-1-2.onnx  input_ids, attention_mask, token_type_ids -> correction [n], last_states [n, l, d]
    layers-3-4.onnx  states, attention_mask, token_type_ids    -> correction, last_states
    layers-5-6.onnx  states, attention_mask, token_type_ids    -> correction

Attention and GELU are onnxruntime's fused operators. Names of the weights are fixed, so that a graph can be
read back into a network (`exported.read_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .quantisation import by_column, by_row, constants, gather_rows, integer_product, quantise_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = Mapping[str, NDArray[np.float32]]

MICROSOFT = "com.microsoft"
OPSET = 17
"""Understood by onnxruntime 1.20, the oldest that crossrag takes."""
_MASKED = -1e4


def write_graph(  # noqa: PLR0913 - one graph has as many properties
    weights: Weights,
    path: Path,
    *,
    first: int,
    last: int,
    heads: int,
    epsilon: float,
    int8: bool = True,
    states: bool = True,
    standard: bool = False,
) -> None:
    """Write the layers `first` < n <= `last` and the head that reads the states after them.

    Args:
        weights: A network's state, by torch's names.
        path: File to write.
        first: Layers that were done before; 0 starts at the tokens.
        last: The exit.
        heads: Attention heads.
        epsilon: Of the layer norms.
        int8: Whether products are taken in integers, with one scale per token.
        states: Whether the states are an output, for the next graph.
        standard: Whether the output is `logits` float32[n, 1], as other programs expect it.
    """
    builder = _Builder(weights, heads=heads, epsilon=epsilon, int8=int8)
    width = builder.width
    inputs = [
        helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "length", width])
        if first
        else helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    ]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("attention_mask", "token_type_ids")
    ]
    builder.masks()
    current = "states" if first else builder.embeddings()
    for number in range(first, last):
        output = "last_states" if number == last - 1 else f"layer_{number}"
        current = builder.layer(number, current, output)
    builder.head(current)
    outputs = [
        builder.as_logits()
        if standard
        else helper.make_tensor_value_info("correction", TensorProto.FLOAT, ["batch"])
    ]
    if states:
        outputs.append(
            helper.make_tensor_value_info("last_states", TensorProto.FLOAT, ["batch", "length", width])
        )
    builder.write(path, inputs, outputs)


class _Builder:
    """Collects nodes and constants. Every method adds a part of the graph and returns its output's name."""

    def __init__(self, weights: Weights, *, heads: int, epsilon: float, int8: bool) -> None:
        self._weights, self._heads, self._epsilon, self._int8 = weights, heads, epsilon, int8
        self.width = weights["bert.embeddings.LayerNorm.weight"].shape[0]
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = constants() | {"masked": np.float32(_MASKED)}
        self._scaled: set[str] = set()

    def write(self, path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        tensors = [
            numpy_helper.from_array(np.asarray(value), name) for name, value in self._constants.items()
        ]
        graph = helper.make_graph(self._nodes, "progressive-cross-encoder", inputs, outputs, tensors)
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        # The IR version of that opset: newer ones are refused by the onnxruntime of the time.
        model = helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="crossrag")
        onnx.save(model, path)

    def masks(self) -> None:
        """Tokens of the question (with `[CLS]` and the first `[SEP]`) and of the passage, as float[n, l]."""
        self._add("Cast", ["attention_mask"], "attended", to=TensorProto.FLOAT)
        self._add("Cast", ["token_type_ids"], "typed", to=TensorProto.FLOAT)
        self._add("Mul", ["attended", "typed"], "in_passage")
        self._add("Sub", ["attended", "in_passage"], "in_question")
        self._add("Cast", ["attention_mask"], "keys", to=TensorProto.INT32)

    def embeddings(self) -> str:
        """Word, position and type of every token."""
        prefix = "bert.embeddings"
        if self._int8:
            rows, scale = by_row(self._weights[f"{prefix}.word_embeddings.weight"])
            self._constants |= {"words_int8": rows, "words_scale": scale}
            self._nodes += gather_rows("words", "input_ids", "words")
        else:
            self._constants["words_table"] = self._weights[f"{prefix}.word_embeddings.weight"]
            self._add("Gather", ["words_table", "input_ids"], "words")
        self._constants["positions_table"] = self._weights[f"{prefix}.position_embeddings.weight"]
        self._constants["types_table"] = self._weights[f"{prefix}.token_type_embeddings.weight"]
        self._constants |= {
            "axis_0": np.asarray([0], np.int64),
            "from_0": np.asarray([0], np.int64),
        }
        self._add("Shape", ["input_ids"], "length", start=1, end=2)
        self._add("Slice", ["positions_table", "from_0", "length", "axis_0"], "positions")
        self._add("Gather", ["types_table", "token_type_ids"], "types")
        self._add("Add", ["words", "types"], "words_and_types")
        self._add("Add", ["words_and_types", "positions"], "embedded")
        return self._norm("embedded", f"{prefix}.LayerNorm", "embeddings")

    def layer(self, number: int, states: str, output: str) -> str:
        """Self-attention and feed-forward network, each with its residual and layer norm."""
        prefix, name = f"bert.encoder.layer.{number}", f"l{number}"
        for part in ("query", "key", "value"):
            self._dense(states, f"{prefix}.attention.self.{part}", f"{name}_{part}")
        self._add(
            "MultiHeadAttention",
            [f"{name}_query", f"{name}_key", f"{name}_value", "", "keys"],
            f"{name}_attention",
            domain=MICROSOFT,
            num_heads=self._heads,
        )
        self._dense(f"{name}_attention", f"{prefix}.attention.output.dense", f"{name}_projected")
        # Sum and not Add: onnxruntime would fuse Add and norm into one operator, which is far slower.
        self._add("Sum", [f"{name}_projected", states], f"{name}_attended")
        middle = self._norm(f"{name}_attended", f"{prefix}.attention.output.LayerNorm", f"{name}_middle")
        self._dense(middle, f"{prefix}.intermediate.dense", f"{name}_wide")
        self._add("Gelu", [f"{name}_wide"], f"{name}_active", domain=MICROSOFT)
        self._dense(f"{name}_active", f"{prefix}.output.dense", f"{name}_narrow")
        self._add("Sum", [f"{name}_narrow", middle], f"{name}_sum")
        return self._norm(f"{name}_sum", f"{prefix}.output.LayerNorm", output)

    def head(self, states: str) -> None:
        """See `network.Head`; the best match is only looked for from the question's side."""
        for name in ("mean_weight", "match_weight"):
            self._constants[name] = self._weights[name]
        self._constants |= {
            "axis_1": np.asarray([1], np.int64),
            "axis_2": np.asarray([2], np.int64),
            "zero": np.asarray([0], np.int64),
            "first_token": np.asarray(0, np.int64),
            "root": np.float32(np.sqrt(self.width)),
        }
        for side in ("question", "passage"):
            self._add("ReduceSum", [f"in_{side}", "axis_1"], f"{side}_count", keepdims=1)
            self._add("Max", [f"{side}_count", "one"], f"{side}_length")
            self._add("Unsqueeze", [f"in_{side}", "axis_1"], f"{side}_row")
            self._add("MatMul", [f"{side}_row", states], f"{side}_sum")
            self._add("Squeeze", [f"{side}_sum", "axis_1"], f"{side}_total")
            self._add("Div", [f"{side}_total", f"{side}_length"], f"{side}_mean")
            self._unit(f"{side}_mean", f"{side}_direction", axis=1)
        self._best_matches(states)
        self._add("Mul", ["question_direction", "passage_direction"], "product")
        self._add("ReduceSum", ["product", "axis_1"], "cosine", keepdims=0)
        self._add("Sub", ["question_direction", "passage_direction"], "difference")
        self._add("Abs", ["difference"], "distance")
        self._add("Gather", ["directions_of_words", "first_token"], "cls", axis=1)
        self._add("Mul", ["product", "root"], "meeting")
        # Directions have elements of one over the root of the width; products of two, that squared.
        self._add("Concat", ["meeting", "distance", "cls"], "directions", axis=1)
        self._add("Mul", ["directions", "root"], "views")
        self._float_dense("views", "inner", "inner")
        self._add("Gelu", ["inner"], "inner_active", domain=MICROSOFT)
        self._float_dense("inner_active", "outer", "outer")
        self._add("Squeeze", ["outer", "axis_1"], "learned")
        self._add("Mul", ["cosine", "mean_weight"], "weighted_cosine")
        self._add("Mul", ["matched", "match_weight"], "weighted_match")
        self._add("Add", ["weighted_cosine", "weighted_match"], "similar")
        self._add("Add", ["similar", "learned"], "correction")

    def as_logits(self) -> Any:
        """The correction as a column named `logits`."""
        self._add("Unsqueeze", ["correction", "axis_1"], "logits")
        return helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])

    def _best_matches(self, states: str) -> None:
        # The question stands first in every row: what lies behind the longest one needs no comparison.
        self._add("ReduceMax", ["question_count"], "longest_question", axes=[0, 1], keepdims=0)
        self._add("Cast", ["longest_question"], "question_tokens", to=TensorProto.INT64)
        self._add("Unsqueeze", ["question_tokens", "zero"], "question_end")
        self._unit(states, "directions_of_words", axis=2)
        self._add("Slice", ["directions_of_words", "zero", "question_end", "axis_1"], "question_words")
        self._add("Transpose", ["directions_of_words"], "all_words", perm=[0, 2, 1])
        self._add("MatMul", ["question_words", "all_words"], "similarities")
        self._outside("passage_row", "outside_passage")
        self._add("Add", ["similarities", "outside_passage"], "similarities_within")
        self._add("ReduceMax", ["similarities_within"], "best", axes=[2], keepdims=0)
        self._add("Slice", [states, "zero", "question_end", "axis_1"], "question_states")
        self._float_dense("question_states", "importance", "importance")
        self._add("Squeeze", ["importance", "axis_2"], "importance_of_words")
        self._add("Slice", ["in_question", "zero", "question_end", "axis_1"], "in_question_words")
        self._outside("in_question_words", "outside_question")
        self._add("Add", ["importance_of_words", "outside_question"], "importance_within")
        self._add("Softmax", ["importance_within"], "shares", axis=1)
        self._add("Mul", ["shares", "best"], "shared_best")
        self._add("ReduceSum", ["shared_best", "axis_1"], "matched", keepdims=0)

    def _outside(self, mask: str, output: str) -> None:
        """0 where the mask is 1, a large negative number where it is 0."""
        self._add("Sub", ["one", mask], f"{output}_flags")
        self._add("Mul", [f"{output}_flags", "masked"], output)

    def _unit(self, values: str, output: str, *, axis: int) -> None:
        self._add("ReduceL2", [values], f"{output}_norm", axes=[axis], keepdims=1)
        self._add("Max", [f"{output}_norm", "tiny"], f"{output}_positive")
        self._add("Div", [values, f"{output}_positive"], output)

    def _dense(self, states: str, name: str, output: str) -> None:
        """Product with a weight of the encoder, and its bias."""
        matrix = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        self._constants[f"{name}.bias"] = self._weights[f"{name}.bias"]
        if self._int8:
            if states not in self._scaled:
                self._nodes += quantise_rows(states)
                self._scaled.add(states)
            integers, scale = by_column(matrix, "paired")
            self._constants |= {f"{name}.weight_int8": integers, f"{name}.weight_scale": scale}
            self._nodes += integer_product(states, f"{name}.weight", f"{output}_product")
        else:
            self._constants[f"{name}.weight"] = matrix
            self._add("MatMul", [states, f"{name}.weight"], f"{output}_product")
        self._add("Add", [f"{output}_product", f"{name}.bias"], output)

    def _float_dense(self, values: str, name: str, output: str) -> None:
        """Product with a weight of the head, which is small and stays float32."""
        self._constants[f"{name}.weight"] = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        self._constants[f"{name}.bias"] = self._weights[f"{name}.bias"]
        self._add("MatMul", [values, f"{name}.weight"], f"{output}_product")
        self._add("Add", [f"{output}_product", f"{name}.bias"], output)

    def _norm(self, values: str, name: str, output: str) -> str:
        self._constants |= {f"{name}.{part}": self._weights[f"{name}.{part}"] for part in ("weight", "bias")}
        inputs = [values, f"{name}.weight", f"{name}.bias"]
        self._add("LayerNormalization", inputs, output, axis=-1, epsilon=self._epsilon)
        return output

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
