"""The same passages into langchain-qdrant's store on a local path, hybrid, with our embedder and BM25.

    python bench/ingest_peer.py --data ../shared/data/ir/train --sizes 1000 10000

Only embedding and writing: no files are read, nothing is split, no second run is possible. Needs
`langchain-qdrant` (bench/requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector

from common import printed
from crossrag.evaluation.report import machine
from crossrag.registry import load
from ingest import MADE_UP, Clock, MadeUp, passages

_QUERIES = 100
_FOUND = 100


def main() -> None:
    """Every size in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a BEIR set: corpus.jsonl.gz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--embedder", default="onnx:bundled", help=f"backend:model, or {MADE_UP}")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.data, arguments.one, arguments.embedder)))
        return
    printed([f"Measured on {time.strftime('%Y-%m-%d')}, {machine()}.", ""])
    for size in arguments.sizes:
        done = subprocess.run(
            [
                *(sys.executable, __file__, "--data", str(arguments.data)),
                *("--embedder", arguments.embedder, "--one", str(size)),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        printed(
            [f"{size}: {', '.join(f'{name} {value:.1f}' for name, value in json.loads(done.stdout).items())}"]
        )


class _Dense(Embeddings):
    """Our embedder as LangChain asks for it, with the time that it takes."""

    def __init__(self, name: str) -> None:
        self._embedder = MadeUp() if name == MADE_UP else load("embedders", name)
        self.clock = Clock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        with self.clock.running():
            rows: list[list[float]] = self._embedder.embed_documents(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        row: list[float] = self._embedder.embed_query(text).tolist()
        return row


class _Sparse(SparseEmbeddings):
    """Our BM25 likewise."""

    def __init__(self) -> None:
        self._encoder = load("sparse_encoders", "bm25")

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        return [
            SparseVector(indices=list(one.indices), values=list(one.values))
            for one in self._encoder.encode_documents(texts)
        ]

    def embed_query(self, text: str) -> SparseVector:
        one = self._encoder.encode_query(text)
        return SparseVector(indices=list(one.indices), values=list(one.values))


def measured(data: Path, size: int, embedder: str) -> dict[str, Any]:
    """Figures of one size."""
    warnings.simplefilter("ignore")  # its local mode warns above 20 000 points
    texts = [text for text in passages(data / "corpus.jsonl.gz", size) if text.strip()]
    dense, whole = _Dense(embedder), Clock()
    dense.embed_query("ready")
    with tempfile.TemporaryDirectory() as folder:
        with whole.running():
            store = QdrantVectorStore.from_texts(
                texts,
                dense,
                sparse_embedding=_Sparse(),
                retrieval_mode=RetrievalMode.HYBRID,
                path=folder,
                collection_name="bench",
            )
        taken = []
        for text in texts[:: max(1, len(texts) // _QUERIES)]:
            asked = Clock()
            with asked.running():
                store.similarity_search_with_score(text.partition(".")[0][:200], k=_FOUND)
            taken.append(asked.passed)
        store.client.close()
    rest = whole.worked - dense.clock.worked
    return {
        "chunks": len(texts),
        "chunks per second that passed": len(texts) / whole.passed,
        "chunks per processor second": len(texts) / whole.worked,
        "without embedding": len(texts) / rest,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "query p50 ms": 1000 * statistics.median(taken),
        "query p95 ms": 1000 * statistics.quantiles(taken, n=20)[-1],
    }


if __name__ == "__main__":
    main()
