"""Ingestion by stage: chunks per second, peak memory, a second run over unchanged files, hybrid queries.

Real text of a BEIR corpus as files of some passages each. Sizes are in chunks, roughly.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from common import machine, printed
from crossrag import Rag, retrieval
from crossrag.loading import Loader
from crossrag.manifest import Manifest

_PASSAGES_IN_A_FILE = 20
_QUERIES = 100


def main() -> None:
    """Every size in a process of its own, so that peaks of memory are its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of a BEIR set: corpus.jsonl.gz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.data, arguments.one)))
        return
    command = (
        f"python bench/ingest.py --data {arguments.data.name} --sizes {' '.join(map(str, arguments.sizes))}"
    )
    printed([f"Measured on {time.strftime('%Y-%m-%d')}, {machine()}, with `{command}`.", ""])
    rows = []
    for size in arguments.sizes:
        done = subprocess.run(
            [sys.executable, __file__, "--data", str(arguments.data), "--one", str(size)],
            check=True,
            capture_output=True,
            text=True,
        )
        rows.append(json.loads(done.stdout))
    printed(table(rows))


def measured(data: Path, size: int) -> dict[str, Any]:
    """Figures of one size."""
    texts = list(passages(data / "corpus.jsonl.gz", size))
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs"
        write(docs, texts)
        clock: dict[str, float] = {}
        with Rag.open(Path(folder) / "index") as rag:
            rag.embedder.embed_query("ready")
            with timed(clock, parts(rag)):
                report = rag.ingest(docs)
            again = rag.ingest(docs)
            assert (again.embedded, again.added) == (0, 0), again
            counting = seconds(rag.store.count, 20)
            queries = [text.partition(".")[0][:200] for text in texts[:: max(1, len(texts) // _QUERIES)]]
            taken = [seconds(partial(hybrid, rag, query), 1) for query in queries]
    return {
        "chunks": report.chunks,
        "seconds": report.seconds,
        "stages": clock | {"other": report.seconds - sum(clock.values())},
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "again": again.seconds,
        "count": counting,
        "p50": statistics.median(taken),
        "p95": statistics.quantiles(taken, n=20)[-1],
    }


def hybrid(rag: Rag, query: str) -> None:
    """Both legs and their fusion; the embedding of the question is in it."""
    with rag.index.reading():
        retrieval.retrieve(query, embedder=rag.embedder, sparse_encoder=rag.sparse_encoder, store=rag.index)


def parts(rag: Rag) -> dict[str, tuple[Any, str]]:
    """Where each stage's time is spent."""
    rag.index.indexer()  # opens the store
    store, cutting = type(rag.store), type(rag.index)
    return {
        "reading": (Loader, "load"),
        "splitting": (cutting, "_split"),
        "embedding": (type(rag.embedder), "embed_documents"),
        "BM25": (type(rag.sparse_encoder), "encode_documents"),
        "store: write": (store, "upsert"),
        "store: flush": (store, "flush"),
        "manifest": (Manifest, "flip"),
    }


@contextmanager
def timed(clock: dict[str, float], methods: dict[str, tuple[Any, str]]) -> Iterator[None]:
    """Add up the seconds within each method while the block runs."""
    kept = {name: getattr(owner, method) for name, (owner, method) in methods.items()}

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measure(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                clock[name] = clock.get(name, 0.0) + time.perf_counter() - started

        return measure

    for name, (owner, method) in methods.items():
        setattr(owner, method, counted(name, kept[name]))
    try:
        yield
    finally:
        for name, (owner, method) in methods.items():
            setattr(owner, method, kept[name])


def seconds(call: Callable[[], Any], times: int) -> float:
    """Seconds of one call, on average."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def passages(corpus: Path, size: int) -> Iterator[str]:
    """Texts of the corpus in its order, cut to what makes one chunk."""
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number == size:
                return
            yield str(json.loads(line)["text"])[:700]


def write(docs: Path, texts: list[str]) -> None:
    """Files of some passages each, with a heading over each passage."""
    docs.mkdir()
    for start in range(0, len(texts), _PASSAGES_IN_A_FILE):
        part = texts[start : start + _PASSAGES_IN_A_FILE]
        text = "\n\n".join(f"# Passage {start + n}\n\n{one}" for n, one in enumerate(part))
        (docs / f"{start:07d}.md").write_text(text, encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """One column a size."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stages"]))
    lines = [
        "| chunks | " + " | ".join(f"{row['chunks']}" for row in rows) + " |",
        "|---|" + "---|" * len(rows),
        "| chunks/s | " + " | ".join(f"{row['chunks'] / row['seconds']:.0f}" for row in rows) + " |",
    ]
    lines += [
        f"| {stage}, share | "
        + " | ".join(f"{row['stages'].get(stage, 0.0) / row['seconds']:.1%}" for row in rows)
        + " |"
        for stage in stages
    ]
    rest = [row["chunks"] / (row["seconds"] - row["stages"].get("embedding", 0.0)) for row in rows]
    lines.append("| without embedding, chunks/s | " + " | ".join(f"{one:.0f}" for one in rest) + " |")
    lines.append("| peak memory, MiB | " + " | ".join(f"{row['peak']:.0f}" for row in rows) + " |")
    lines.append("| second run, s | " + " | ".join(f"{row['again']:.2f}" for row in rows) + " |")
    lines.append("| count, ms | " + " | ".join(f"{1000 * row['count']:.2f}" for row in rows) + " |")
    for name in ("p50", "p95"):
        lines.append(
            f"| hybrid query {name}, ms | " + " | ".join(f"{1000 * row[name]:.1f}" for row in rows) + " |"
        )
    return lines


if __name__ == "__main__":
    main()
