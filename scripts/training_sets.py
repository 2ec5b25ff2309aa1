"""Sets beyond the merged one, for the bundled reranker: claims and their texts, questions without answer.

In: folders of JSON Lines. Out: mined questions, as `crossrag.training.mining` gives them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossrag.registry import load
from crossrag.training.judged import Collection, Passage, read_collections
from crossrag.training.mining import Mined, Searcher, mine

CLAIMS = ("begin", "summedits")
"""Trained on."""
UNSEEN = ("expertqa", "faithdial-audit")
"""Never trained on: what the mix of first stage and correction is chosen by."""
_LONGEST = 1_200


def claims(
    folder: Path, name: str, *, key: str = "claim", depth: int = 30, limit: int | None = None
) -> Mined:
    """Supported claims (or, by `key`, their questions) as queries; what supports them is relevant."""
    rows = [row for row in _lines(folder / f"{name}.jsonl.gz") if row.get(key)]
    numbers = {text: f"{name}-{n}" for n, text in enumerate(dict.fromkeys(_text(row) for row in rows))}
    supported = [row for row in rows if row["label"] == 1]
    queries = {f"{key}-{n}": text for n, text in enumerate(dict.fromkeys(row[key] for row in supported))}
    ids = {text: identifier for identifier, text in queries.items()}
    judged: dict[str, dict[str, int]] = {}
    for row in supported:
        judged.setdefault(ids[row[key]], {})[numbers[_text(row)]] = 1
    passages = tuple(Passage(number, "", text) for text, number in numbers.items())
    collection = Collection(f"{name}-{key}s", passages, queries, {"all": judged})
    found = mine(collection, "all", searcher=_searcher(collection), depth=depth, limit=limit)
    return Mined(collection.name, passages, tuple(found))


def unanswerable(folder: Path, merged: Path, *, articles: int = 18, depth: int = 15) -> Mined:
    """Questions that look as if their article answered them; every candidate is judged irrelevant.

    Args:
        folder: With `questions.jsonl.gz`: questions, and the articles that do not answer them.
        merged: BEIR folder with the paragraphs of the articles, in its set `squad`.
        articles: So many of them, in alphabetical order; the others stay for measuring.
        depth: Candidates from each leg.
    """
    rows = [row for row in _lines(folder / "questions.jsonl.gz") if not row["answers"]]
    chosen = sorted({row["sources"][0] for row in rows})[:articles]
    titles = {source.removesuffix(".txt").replace("_", " ") for source in chosen}
    (squad,) = (c for c in read_collections(merged, by_prefix=True) if c.name == "squad")
    passages = tuple(passage for passage in squad.passages if passage.title in titles)
    queries = {row["id"]: row["question"] for row in rows if row["sources"][0] in chosen}
    collection = Collection(
        "squad-unanswerable", passages, queries, {"all": {identifier: {} for identifier in queries}}
    )
    found = [
        replace(question, grades=np.zeros_like(question.grades))
        for question in mine(collection, "all", searcher=_searcher(collection), depth=depth)
    ]
    return Mined(collection.name, passages, tuple(found))


def _searcher(collection: Collection) -> Searcher:
    return Searcher(
        collection.passages,
        embedder=load("embedders", "onnx:bundled"),
        sparse_encoder=load("sparse_encoders", "bm25"),
    )


def _text(row: dict[str, Any]) -> str:
    return str(row["context"])[:_LONGEST]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
