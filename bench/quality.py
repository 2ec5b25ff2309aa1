"""What each stage of the embedded default is worth, on labelled data.

    python bench/quality.py --data ../shared/data --questions 150 --out docs/quality-results.md

Two tables. Retrieval: nDCG@10 by BM25, dense, fused and reranked, each over the whole corpus of the set, by
ir-measures; a question without results counts as 0. Folders: real files ingested by `Rag`, its answers held
against the reference answers: how often the reference's words stand in the cited text.

Questions are a fixed sample (seed below). Nothing is trained or tuned here.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import ir_measures

from crossrag import Rag
from crossrag.registry import load
from crossrag.reranking import rerank
from crossrag.retrieval import retrieve
from crossrag.types import Candidate, Chunk

SEED = 20261123
STAGES = ("BM25", "dense", "fused", "reranked")
Judgements = dict[str, dict[str, int]]


def main() -> None:
    """Measure what was asked for, print it as Markdown, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with ir/dev and rag"
    )
    parser.add_argument("--questions", type=int, default=150, help="most questions per set")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--part", choices=("retrieval", "folders"), help="only this table")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is missing: name a folder of BEIR sets with --data")
    lines = list(_report(arguments))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    started = time.perf_counter()
    head = (
        f"Measured on {date.today().isoformat()}, {_machine()}, with",  # noqa: DTZ011 - the day where it ran
        f"`{' '.join(['python', *sys.argv])}`.",
        f"Questions per set: at most {arguments.questions}, sampled with seed {SEED}.",
        "",
    )
    yield from _printed(head)
    if arguments.part != "folders":
        yield from _retrieval_table(arguments.data / "ir" / "dev", arguments.questions, arguments.sets)
    if arguments.part != "retrieval":
        yield from _folder_table(arguments.data / "rag", arguments.questions, arguments.sets)
    yield from _printed(("", f"In all {time.perf_counter() - started:.0f} s."))


def _retrieval_table(data: Path, questions: int, only: Sequence[str] | None) -> Iterator[str]:
    yield from _printed(
        (
            "| set | documents | questions | " + " | ".join(STAGES) + " | ms per question |",
            "|---|---|---|" + "---|" * (len(STAGES) + 1),
        )
    )
    sums: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for folder in sorted(data.iterdir()):
        if not only or folder.name in only:
            row, figures = _retrieval(folder, questions)
            for stage in STAGES:
                sums[stage].append(figures[stage])
            yield from _printed((row,))
    means = " | ".join(f"**{statistics.mean(sums[stage]):.3f}**" if sums[stage] else "" for stage in STAGES)
    yield from _printed((f"| mean | | | {means} | |", ""))


def _folder_table(data: Path, questions: int, only: Sequence[str] | None) -> Iterator[str]:
    yield from _printed(
        (
            "| folder | files | questions | reference's words cited | answered | ms per question |",
            "|---|---|---|---|---|---|",
        )
    )
    for folder in sorted(data.iterdir()):
        if not only or folder.name in only:
            yield from _printed((_folder(folder, questions),))


def _printed(lines: Sequence[str]) -> Sequence[str]:
    for line in lines:
        print(line, flush=True)
    return lines


# --- retrieval


def _retrieval(folder: Path, questions: int) -> tuple[str, dict[str, float]]:
    corpus = list(_rows(folder / "corpus.jsonl.gz"))
    queries = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl.gz")}
    judged = {query: judgements for query, judgements in _qrels(folder).items() if query in queries}
    chosen = _sample(sorted(judged), questions)
    with tempfile.TemporaryDirectory() as scratch:
        search = _searcher(Path(scratch), corpus)
        runs: dict[str, dict[str, dict[str, float]]] = {stage: {} for stage in STAGES}
        seconds = []
        for query in chosen:
            begun = time.perf_counter()
            for stage, ranked in search(queries[query]).items():
                runs[stage][query] = {doc: -float(rank) for rank, doc in enumerate(ranked)}
            seconds.append(time.perf_counter() - begun)
    truth = {query: judged[query] for query in chosen}
    measure = ir_measures.nDCG @ 10
    figures = {
        stage: float(ir_measures.calc_aggregate([measure], truth, run)[measure])
        for stage, run in runs.items()
    }
    values = " | ".join(f"{figures[stage]:.3f}" for stage in STAGES)
    latency = f"{statistics.median(seconds) * 1000:.0f}"
    return f"| {folder.name} | {len(corpus)} | {len(chosen)} | {values} | {latency} |", figures


def _searcher(scratch: Path, corpus: Sequence[Any]) -> Callable[[str], dict[str, list[str]]]:
    """Each document is one passage, as these sets judge whole documents; long ones are cut by the models."""
    embedder, terms = load("embedders", "onnx:bundled"), load("sparse_encoders", "bm25")
    reranker = load("rerankers", "onnx:bundled")
    store = load(
        "stores", "edge", path=scratch, dimension=embedder.dimension, fingerprint={"bench": "1"}, create=True
    )
    texts = [f"{row.get('title', '')}\n{row['text']}".strip() for row in corpus]
    names = [row["_id"] for row in corpus]
    for start in range(0, len(texts), 2_000):
        part = slice(start, start + 2_000)
        chunks = [_as_chunk(start + offset, text) for offset, text in enumerate(texts[part])]
        store.upsert(chunks, embedder.embed_documents(texts[part]), terms.encode_documents(texts[part]))

    def search(query: str) -> dict[str, list[str]]:
        fused = retrieve(query, embedder=embedder, sparse_encoder=terms, store=store, fetch_k=100)
        reranked = rerank(query, fused, reranker=reranker, depth=50).candidates
        return {
            "BM25": _by_rank(fused, names, "sparse_rank"),
            "dense": _by_rank(fused, names, "dense_rank"),
            "fused": [names[candidate.chunk.position] for candidate in fused],
            "reranked": [names[candidate.chunk.position] for candidate in reranked],
        }

    return search


def _as_chunk(position: int, text: str) -> Chunk:
    point = f"00000000-0000-4000-8000-{position:012d}"
    return Chunk(
        id=point, document_id=point, source=point, text=text, start=0, end=len(text), position=position
    )


def _by_rank(candidates: Sequence[Candidate], names: Sequence[str], rank: str) -> list[str]:
    ranked = [(getattr(candidate.scores, rank), candidate.chunk.position) for candidate in candidates]
    return [names[position] for place, position in sorted(pair for pair in ranked if pair[0] is not None)]


# --- folders of files


def _folder(folder: Path, questions: int) -> str:
    rows = [row for row in _rows(folder / "questions.jsonl.gz") if row.get("answers") or row.get("evidence")]
    chosen = _sample(rows, min(questions, 100))
    files = [path for path in (folder / "docs").rglob("*") if path.is_file()]
    recalls, answered, seconds = [], 0, []
    with tempfile.TemporaryDirectory() as scratch, Rag.open(Path(scratch) / "index") as rag:
        rag.ingest(*_needed(folder / "docs", chosen, files))
        for row in chosen:
            begun = time.perf_counter()
            answer = rag.ask(row["question"])
            seconds.append(time.perf_counter() - begun)
            answered += answer.status == "answered"
            cited = {citation.number for citation in answer.citations}
            text = " ".join(source.chunk.text for source in answer.context.sources if source.number in cited)
            recalls.append(max(_words_found(reference, text) for reference in _references(row)))
    share = statistics.mean(recalls)
    return (
        f"| {folder.name} | {len(files)} | {len(chosen)} | {share:.3f} | {answered / len(chosen):.2f} "
        f"| {statistics.median(seconds) * 1000:.0f} |"
    )


def _needed(docs: Path, rows: Sequence[Any], files: Sequence[Path]) -> list[Path]:
    """The whole folder; of one with hundreds of files, those asked about and fifty others."""
    if len(files) <= 100:
        return [docs]
    named = {source for row in rows for source in row["sources"]}
    others = _sample(sorted(path for path in files if path.name not in named), 50)
    return sorted([path for path in files if path.name in named] + others)


def _references(row: Any) -> list[str]:
    evidence = [item["content"] if isinstance(item, dict) else item for item in row.get("evidence", [])]
    return row["answers"] or [" ".join(evidence)]


def _words_found(reference: str, text: str) -> float:
    wanted, there = set(_words(reference)), set(_words(text))
    return len(wanted & there) / len(wanted) if wanted else 1.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


# --- reading


def _qrels(folder: Path) -> Judgements:
    judgements: Judgements = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            judgements.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return judgements


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _sample(items: Sequence[Any], count: int) -> list[Any]:
    return random.Random(SEED).sample(list(items), min(count, len(items)))  # noqa: S311 - a sample, no secret


def _machine() -> str:
    import os

    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
