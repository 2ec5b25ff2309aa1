"""On real questions, the reranker in torch ranks as the int8 graphs do: what is left is their rounding."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from crossrag.freestanding import first_stage_scores
from crossrag.registry import load
from crossrag.training.judged import read_collections

LISTS, CANDIDATES = 30, 20


class Asked(NamedTuple):
    query: str
    names: list[str]
    texts: list[str]
    grades: dict[str, int]


def asked(folder: Path) -> list[Asked]:
    """The first questions, each with the best by BM25."""
    (collection,) = read_collections(folder, splits=["test"])
    texts = {passage.id: passage.described for passage in collection.passages}
    found: dict[str, list[str]] = defaultdict(list)
    with (folder / "candidates" / "BM25.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["rank"]) <= CANDIDATES:
                found[row["query-id"]].append(row["corpus-id"])
    judged = collection.judgements["test"]
    return [
        Asked(
            collection.queries[query],
            found[query],
            [texts[name] for name in found[query]],
            dict(judged[query]),
        )
        for query in sorted(found)[:LISTS]
    ]


def ndcg(ranked: Sequence[str], grades: Mapping[str, int]) -> float:
    """Of the first ten, gains as they are, against the best ten of all that were judged."""
    found = [grades.get(name, 0) for name in ranked[:10]]
    ideal = sorted(grades.values(), reverse=True)[:10]
    gain, best = (
        sum(grade / math.log2(rank + 1) for rank, grade in enumerate(row, start=1)) for row in (found, ideal)
    )
    return gain / best


@pytest.mark.shared
def test_real_lists_are_ranked_as_by_the_graphs(shared: Path) -> None:
    embedder, encoder = load("embedders", "onnx:bundled"), load("sparse_encoders", "bm25")
    graphs = load("rerankers", "progressive:bundled")
    network = load("rerankers", "torch:bundled", device="cpu")
    apart: list[float] = []
    gains: list[list[float]] = []
    same_first = 0
    questions = asked(shared / "data" / "ir" / "dev" / "trec-dl19")
    assert len(questions) == LISTS
    for query, names, texts, grades in questions:
        first = first_stage_scores(query, texts, embedder=embedder, sparse_encoder=encoder)
        said = [made.score(query, texts, first_stage=first).logit for made in (graphs, network)]
        apart += [abs(one - other) for one, other in zip(*said, strict=True)]
        orders = [sorted(range(len(texts)), key=logits.__getitem__, reverse=True) for logits in said]
        same_first += orders[0][0] == orders[1][0]
        gains.append([ndcg([names[place] for place in order], grades) for order in orders])
    before, after = (statistics.mean(values) for values in zip(*gains, strict=True))
    print(f"nDCG@10 {before:.4f} and {after:.4f}; same first {same_first} of {LISTS}")
    print(f"logits are {statistics.mean(apart):.3f} apart, at most {max(apart):.3f}")
    assert abs(after - before) < 0.003
    assert statistics.mean(apart) < 0.1
    assert max(apart) < 0.6
    assert same_first >= LISTS - 2
