"""Ingestion by stage: chunks per second, peak memory, a second run over unchanged files, hybrid queries.

Real text of a BEIR corpus as files of some passages each. Sizes are in passages; few have more than a chunk,
some have none of their own. Beside the time that passed stands processor time, which other work on the
machine hardly changes: all threads of the process, without waiting for the disk.
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
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common import printed
from crossrag import Rag, assembly, retrieval
from crossrag.config import load_settings
from crossrag.evaluation.report import machine
from crossrag.loading import Loader
from crossrag.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MADE_UP = "made-up"
_PASSAGES_IN_A_FILE = 20
_QUERIES = 100


def main() -> None:
    """Every size in a process of its own, so that peaks of memory are its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of a BEIR set: corpus.jsonl.gz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument(
        "--embedder", default="onnx:bundled", help=f"backend:model, or {MADE_UP}: what all else costs"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.data, arguments.one, arguments.embedder)))
        return
    command = (
        f"python bench/ingest.py --data {arguments.data.name} --sizes {' '.join(map(str, arguments.sizes))}"
    )
    if arguments.embedder != "onnx:bundled":
        command += f" --embedder {arguments.embedder}"
    printed([f"Measured on {time.strftime('%Y-%m-%d')}, {machine()}, with `{command}`.", ""])
    rows = []
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
        rows.append(json.loads(done.stdout))
    printed(table(rows))


@dataclass(slots=True)
class Clock:
    """Seconds that passed, and seconds of processors."""

    passed: float = 0.0
    worked: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what the block takes."""
        passed, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.passed += time.perf_counter() - passed
            self.worked += time.process_time() - worked


def measured(data: Path, size: int, embedder: str) -> dict[str, Any]:
    """Figures of one size."""
    texts = list(passages(data / "corpus.jsonl.gz", size))
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs"
        write(docs, texts)
        stages: dict[str, Clock] = {}
        whole, again = Clock(), Clock()
        sections: dict[str, dict[str, Any]] = {"index": {"path": Path(folder) / "index"}}
        if embedder != MADE_UP:
            sections["embedder"] = {"model": embedder}
        made_up = MadeUp() if embedder == MADE_UP else None
        with Rag(load_settings(sections).settings, embedder=made_up) as rag:
            rag.embedder.embed_query("ready")
            with timed(stages, parts(rag)), whole.running():
                report = rag.ingest(docs)
            with again.running():
                second = rag.ingest(docs)
            assert (second.embedded, second.added) == (0, 0), second
            counting = seconds(rag.store.count, 20)
            queries = [text.partition(".")[0][:200] for text in texts[:: max(1, len(texts) // _QUERIES)]]
            taken = [seconds(partial(hybrid, rag, query), 1) for query in queries]
    return {
        "chunks": report.chunks,
        "passed": whole.passed,
        "worked": whole.worked,
        "stages": {name: clock.worked for name, clock in stages.items()}
        | {"other": whole.worked - sum(clock.worked for clock in stages.values())},
        "rest": whole.passed - stages["embedding"].passed,
        "flushed": stages["store: flush"].passed,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "again": again.passed,
        "count": counting,
        "p50": statistics.median(taken),
        "p95": statistics.quantiles(taken, n=20)[-1],
    }


class MadeUp:
    """Vectors of unit length that say nothing, but are always the same for a text."""

    dimension, fingerprint, max_tokens = 384, MADE_UP, None

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to float32[n, 384]."""
        found = np.stack(
            [
                np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.dimension, np.float32)
                for text in texts
            ]
        )
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The same for one."""
        row: NDArray[np.float32] = self.embed_documents([text])[0]
        return row


def hybrid(rag: Rag, query: str) -> None:
    """Both legs and their fusion; the embedding of the question is in it."""
    with rag.index.reading():
        retrieval.retrieve(query, embedder=rag.embedder, sparse_encoder=rag.sparse_encoder, store=rag.index)


def parts(rag: Rag) -> dict[str, tuple[Any, str]]:
    """Where each stage's time is spent."""
    rag.index.indexer()  # opens the store
    store = type(rag.store)
    return {
        "reading": (Loader, "load"),
        "splitting": (assembly, "_cut"),
        "embedding": (type(rag.embedder), "embed_documents"),
        "BM25": (type(rag.sparse_encoder), "encode_documents"),
        "store: write": (store, "upsert"),
        "store: flush": (store, "flush"),
        "manifest": (Manifest, "flip"),
    }


@contextmanager
def timed(stages: dict[str, Clock], methods: dict[str, tuple[Any, str]]) -> Iterator[None]:
    """Add up the time within each method while the block runs."""
    kept = {name: getattr(owner, method) for name, (owner, method) in methods.items()}

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measure(*arguments: Any, **named: Any) -> Any:
            with stages.setdefault(name, Clock()).running():
                return call(*arguments, **named)

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
    """One column a size; shares are of processor time."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stages"]))
    rest = [row["worked"] - row["stages"].get("embedding", 0.0) for row in rows]
    lines = [
        _line("chunks", [f"{row['chunks']}" for row in rows]),
        "|---|" + "---|" * len(rows),
        _line("chunks per second that passed", [f"{row['chunks'] / row['passed']:.0f}" for row in rows]),
        _line(
            "the same without embedding",
            [f"{row['chunks'] / row['rest']:.0f}" for row in rows],
        ),
        _line("chunks per processor second", [f"{row['chunks'] / row['worked']:.0f}" for row in rows]),
        _line(
            "the same without embedding",
            [f"{row['chunks'] / one:.0f}" for row, one in zip(rows, rest, strict=True)],
        ),
    ]
    lines += [
        _line(
            f"{stage}, µs of a processor per chunk",
            [f"{1e6 * row['stages'].get(stage, 0.0) / row['chunks']:.0f}" for row in rows],
        )
        for stage in stages
    ]
    lines += [
        _line(
            "embedding, share", [f"{row['stages'].get('embedding', 0) / row['worked']:.1%}" for row in rows]
        ),
        _line("waiting for flushes, s", [f"{row['flushed']:.1f}" for row in rows]),
        _line("peak memory, MiB", [f"{row['peak']:.0f}" for row in rows]),
        _line("second run, s", [f"{row['again']:.2f}" for row in rows]),
        _line("count, ms", [f"{1000 * row['count']:.2f}" for row in rows]),
    ]
    return lines + [
        _line(f"hybrid query {name}, ms", [f"{1000 * row[name]:.1f}" for row in rows])
        for name in ("p50", "p95")
    ]


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
