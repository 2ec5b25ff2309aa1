"""Reranking never hurts in silence: a small labelled set of our own, measured with the bundled models.

`pinned` in `data/frozen.json` holds nDCG@10 by the models' fingerprints. New models need a new entry, which
the failing test prints: that is how a change of quality is seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from crossrag.registry import load
from crossrag.reranking import rerank
from crossrag.retrieval import retrieve
from crossrag.testing import MemoryStore
from crossrag.types import Candidate, Chunk

FROZEN = Path(__file__).parent / "data" / "frozen.json"


def ndcg(ranked: Sequence[str], grades: Mapping[str, int]) -> float:
    """Järvelin and Kekäläinen (2002), gains as they are, first ten."""
    gain = sum(grades.get(name, 0) / math.log2(rank + 1) for rank, name in enumerate(ranked[:10], start=1))
    ideal = sum(
        g / math.log2(rank + 1) for rank, g in enumerate(sorted(grades.values(), reverse=True), start=1)
    )
    return gain / ideal


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.chunk.document_id for candidate in candidates]


def test_reranking_helps_as_much_as_it_did() -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    embedder = load("embedders", "onnx:bundled", threads=1)
    encoder = load("sparse_encoders", "bm25")
    reranker = load("rerankers", "progressive:bundled", threads=1)
    chunks = [
        Chunk(id=name, document_id=name, source=name, text=text, start=0, end=len(text), position=0)
        for name, text in frozen["passages"].items()
    ]
    texts = [chunk.described for chunk in chunks]
    store = MemoryStore()
    store.upsert(chunks, embedder.embed_documents(texts), encoder.encode_documents(texts))
    first, reranked = [], []
    for question, grades in frozen["questions"].items():
        found = retrieve(question, embedder=embedder, sparse_encoder=encoder, store=store)
        read = rerank(question, found, reranker=reranker)
        first.append(ndcg(names(found), grades))
        reranked.append(ndcg(names(read.candidates), grades))
    before, after = (sum(values) / len(values) for values in (first, reranked))
    assert after >= before - 0.005
    key = f"{reranker.fingerprint} {embedder.fingerprint} {encoder.fingerprint}"
    entry = {"first stage": round(before, 4), "reranked": round(after, 4)}
    assert key in frozen["pinned"], f"add to `pinned` of {FROZEN.name}: {json.dumps({key: entry})}"
    assert entry == pytest.approx(frozen["pinned"][key], abs=1e-4)
