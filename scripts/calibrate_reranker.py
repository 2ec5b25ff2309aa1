"""Fit a reranker's calibration: logit and BM25 -> probability of being relevant (Platt, 1999).

    python scripts/calibrate_reranker.py --train DATA/ir/train --model MODEL

Uses the held-out part of the training sets (`qrels/dev.tsv.gz`) and nothing else. Each question is asked of
the passages that the first stage finds in its own set; the judged passage is relevant, the others are not.
Writes the weight of BM25, slope and intercept to `config.json` and renews `SHA256SUMS`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossrag.registry import load
from crossrag.retrieval import retrieve
from crossrag.testing import MemoryStore
from crossrag.types import Chunk

SEED = 20261123
READ = 12
"""Passages that the reranker reads per question."""


def main() -> None:
    """Collect features and labels, fit by Newton's method, report, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=40, help="per set")
    parser.add_argument("--passages", type=int, default=1500, help="per set")
    arguments = parser.parse_args()
    _set_residual(arguments.model, 0.0)
    pairs: list[tuple[float, float]] = []
    labels: list[int] = []
    for name, rows in _judged(arguments.train, arguments.questions, arguments.passages):
        set_pairs, set_labels = _scored(arguments.model, *rows)
        pairs += set_pairs
        labels += set_labels
        print(f"{name:24} {len(set_labels):6} pairs, {sum(set_labels):5} relevant", flush=True)
    features, truth = np.array(pairs), np.array(labels, float)
    slope, sparse, intercept = fit(features, truth)
    probabilities = 1 / (1 + np.exp(-(features @ np.array([slope, sparse]) + intercept)))
    print(f"slope {slope:.4f} BM25 {sparse / slope:.4f} intercept {intercept:.4f}")
    print(f"ECE {_error(probabilities, truth):.4f}")
    best = np.sort(probabilities.reshape(-1, READ).max(1))
    for share in (0.02, 0.05, 0.1):
        reached = best[int(share * len(best))]
        print(f"{1 - share:.0%} of the questions have a passage of relevance {reached:.3f} or more")
    _set_residual(arguments.model, sparse / slope, slope, intercept)


def fit(pairs: Any, labels: Any) -> tuple[float, ...]:
    """Logistic regression by Newton's method: a weight per column, then the intercept."""
    features = np.concatenate([pairs, np.ones((len(pairs), 1))], 1)
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        probabilities = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (probabilities - labels)
        spread = probabilities * (1 - probabilities)
        curvature = (features * spread[:, None]).T @ features + 1e-6 * np.eye(features.shape[1])
        weights = weights - np.linalg.solve(curvature, gradient)
    return tuple(float(weight) for weight in weights)


def _judged(folder: Path, questions: int, passages: int) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    generator = random.Random(SEED)  # noqa: S311 - a sample, no secret
    qrels: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    with gzip.open(folder / "qrels" / "dev.tsv.gz", "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            qrels[row["query-id"].partition(":")[0]][row["query-id"]][row["corpus-id"]] = int(row["score"])
    asked = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl.gz")}
    corpus: dict[str, dict[str, str]] = defaultdict(dict)
    for row in _rows(folder / "corpus.jsonl.gz"):
        corpus[row["_id"].partition(":")[0]][row["_id"]] = f"{row['title']}\n{row['text']}".strip()
    for name in sorted(qrels):
        chosen = generator.sample(sorted(qrels[name]), min(questions, len(qrels[name])))
        needed = {doc for query in chosen for doc in qrels[name][query]}
        rest = sorted(set(corpus[name]) - needed)
        pool = sorted(needed) + generator.sample(rest, min(len(rest), max(0, passages - len(needed))))
        yield (
            name,
            (
                {query: asked[query] for query in chosen},
                {doc: corpus[name][doc] for doc in pool},
                qrels[name],
            ),
        )


def _scored(
    model: Path, queries: dict[str, str], corpus: dict[str, str], qrels: Any
) -> tuple[list[tuple[float, float]], list[int]]:
    embedder, terms = load("embedders", "onnx:bundled"), load("sparse_encoders", "bm25")
    reranker, store = load("rerankers", f"onnx:{model}"), MemoryStore()
    chunks = [
        Chunk(id=doc, document_id=doc, source=doc, text=text, start=0, end=len(text), position=0)
        for doc, text in corpus.items()
    ]
    texts = [chunk.text[:1500] for chunk in chunks]
    store.upsert(chunks, embedder.embed_documents(texts), terms.encode_documents(texts))
    pairs: list[tuple[float, float]] = []
    labels: list[int] = []
    for query, text in queries.items():
        found = retrieve(text, embedder=embedder, sparse_encoder=terms, store=store, fetch_k=20)[:READ]
        said = reranker.score(
            text, [hit.chunk.text[:1500] for hit in found], first_stage=[hit.scores for hit in found]
        )
        pairs += zip(said.logit, [hit.scores.sparse or 0.0 for hit in found], strict=True)
        labels += [int(qrels[query].get(hit.chunk.id, 0) > 0) for hit in found]
    return pairs, labels


def _error(probabilities: Any, labels: Any) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probabilities * 10).astype(int), 9)
    return float(
        sum(
            abs(probabilities[bins == number].mean() - labels[bins == number].mean())
            * (bins == number).mean()
            for number in range(10)
            if (bins == number).any()
        )
    )


def _set_residual(model: Path, sparse: float, slope: float = 1.0, intercept: float = 0.0) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["residual"]["sparse"] = round(sparse, 4)
    config["calibration"] = {"slope": round(slope, 4), "intercept": round(intercept, 4)}
    (model / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    names = ("model.onnx", "tokenizer.json", "config.json")
    sums = [f"{hashlib.sha256((model / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (model / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
