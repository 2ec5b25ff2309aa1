"""Pairs per second and nDCG@10 of our reranker, and of the same weights run by other libraries. One run.

    pip install -r bench/requirements.txt
    python bench/rerank.py --data ../shared/data/ir/dev --model src/crossrag/models/progressive-reranker

Every contestant reads the same 100 candidates per question, passages cut to 800 characters, with its own
defaults for batches and threads. sentence-transformers runs the weights in torch, float32; its ONNX
backend, FastEmbed and FlashRank run them as one int8 graph that this bench exports, the fastest that there
is. The first stage's share is added to everybody's logit, so nDCG@10 tells only whether the pairs were read
rightly. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Nobody may go to the network: the models are on this machine.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}

import ir_measures
import numpy as np

from common import sample, searcher
from crossrag.evaluation.report import machine
from crossrag.registry import load
from crossrag.residual import first_stage_share
from crossrag.training.judged import read_collections
from crossrag.training.mining import candidates
from crossrag.types import Scores
from weights import fastembed_encoder, flashrank_ranker, plug, read, standard_folder

CHARACTERS, DEPTH = 800, 100
Score = Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its candidates."""

    query: str
    texts: tuple[str, ...]
    scores: tuple[Scores, ...]
    ids: tuple[str, ...]
    grades: dict[str, int]


def main() -> None:
    """Run every contestant in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ir/dev"), help="folder of BEIR sets"
    )
    parser.add_argument("--sets", nargs="*", default=["scifact", "covidqa", "cranfield"])
    parser.add_argument("--questions", type=int, default=8, help="per set and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Path("src/crossrag/models/progressive-reranker"))
    parser.add_argument("--only", nargs="*", help="only these contestants")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON line")
    arguments = parser.parse_args()
    tasks = [task for name in arguments.sets for task in _tasks(arguments.data / name, arguments.questions)]
    with tempfile.TemporaryDirectory() as scratch:
        contestants = {
            name: make
            for name, make in _contestants(arguments.model, Path(scratch)).items()
            if not arguments.only or name in arguments.only
        }
        speeds, found = _run(contestants, tasks, arguments.rounds)
    if not arguments.json:
        _print(speeds, found, len(tasks))
    print(json.dumps({"pairs_per_second": speeds, "ndcg@10": found}))


def _run(
    contestants: dict[str, Callable[[], Callable[[Task], Sequence[float]]]],
    tasks: Sequence[Task],
    rounds: int,
) -> tuple[dict[str, float], dict[str, float]]:
    made = {name: make() for name, make in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    logits: dict[str, list[Sequence[float]]] = {}
    for score in made.values():
        score(tasks[0])  # warm: sessions, threads, caches
    for _ in range(rounds):
        # In turn, so that a slow minute of the machine hits everybody.
        for name, score in made.items():
            begun = time.perf_counter()
            logits[name] = [score(task) for task in tasks]
            seconds[name].append(time.perf_counter() - begun)
    pairs = sum(len(task.texts) for task in tasks)
    speeds = {name: round(pairs / statistics.median(values), 1) for name, values in seconds.items()}
    return speeds, {name: round(_ndcg(tasks, values), 4) for name, values in logits.items()}


def _contestants(model: Path, scratch: Path) -> dict[str, Callable[[], Callable[[Task], Sequence[float]]]]:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    weights, bias = config["first_stage"], config["biases"][-1]

    def with_share(score: Score) -> Callable[[Task], Sequence[float]]:
        def scored(task: Task) -> Sequence[float]:
            shares = first_stage_share(weights, task.query, task.scores)
            return [
                bias + share + own for share, own in zip(shares, score(task.query, task.texts), strict=True)
            ]

        return scored

    def ours(top_k: int | None) -> Callable[[Task], Sequence[float]]:
        reranker = load("rerankers", f"progressive:{model}")
        return lambda task: reranker.score(task.query, task.texts, first_stage=task.scores, top_k=top_k).logit

    return {
        "progressive": lambda: ours(10),
        "full": lambda: ours(None),
        "sentence-transformers": lambda: with_share(_torch(model, scratch)),
        "sentence-transformers-onnx": lambda: with_share(_torch_onnx(model, scratch)),
        "fastembed": lambda: with_share(_fastembed(model, scratch)),
        "flashrank": lambda: with_share(_flashrank(model, scratch)),
    }


# --- the others


def _folder(model: Path, scratch: Path) -> Path:
    return standard_folder(model, scratch / "standard")


def _torch(model: Path, scratch: Path) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(_folder(model, scratch)), local_files_only=True)
    plug(encoder, read(model))
    return lambda query, texts: _column(
        encoder.predict(
            [(query, text) for text in texts], activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    )


def _torch_onnx(model: Path, scratch: Path) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    folder = _folder(model, scratch)
    encoder = CrossEncoder(
        str(folder),
        backend="onnx",
        local_files_only=True,
        model_kwargs={"file_name": "onnx/model.onnx", "export": False},
    )
    return lambda query, texts: _column(
        encoder.predict(
            [(query, text) for text in texts], activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    )


def _column(said: Any) -> Sequence[float]:
    values: list[float] = np.asarray(said, np.float64).reshape(-1).tolist()
    return values


def _fastembed(model: Path, scratch: Path) -> Score:
    encoder = fastembed_encoder(_folder(model, scratch))
    return lambda query, texts: list(encoder.rerank(query, list(texts)))


def _flashrank(model: Path, scratch: Path) -> Score:
    from flashrank import RerankRequest

    ranker = flashrank_ranker(_folder(model, scratch), scratch / "flashrank")

    def score(query: str, texts: Sequence[str]) -> Sequence[float]:
        passages = [{"id": number, "text": text} for number, text in enumerate(texts)]
        said = {
            row["id"]: float(row["score"])
            for row in ranker.rerank(RerankRequest(query=query, passages=passages))
        }
        # It answers with the sigmoid of the logit.
        kept = [min(1 - 1e-7, max(1e-7, said[number])) for number in range(len(texts))]
        return [float(np.log(p / (1 - p))) for p in kept]

    return score


# --- questions


def _tasks(folder: Path, questions: int) -> list[Task]:
    (collection,) = read_collections(folder, splits=["test"])
    search = searcher(collection)
    judged = collection.judgements["test"]
    chosen = sample(sorted(judged), questions)
    texts = [collection.queries[query] for query in chosen]
    tasks = []
    for query, text, (dense, sparse) in zip(chosen, texts, search.scores(texts), strict=True):
        read = candidates(dense, sparse, depth=DEPTH)[:DEPTH]
        tasks.append(
            Task(
                text,
                tuple(search.passages[number].described[:CHARACTERS] for number in read),
                tuple(
                    Scores(dense=float(dense[n]), sparse=float(sparse[n]), indexed=len(search.passages))
                    for n in read
                ),
                tuple(search.passages[number].id for number in read),
                dict(judged[query]),
            )
        )
    return tasks


def _ndcg(tasks: Sequence[Task], logits: Sequence[Sequence[float]]) -> float:
    truth = {str(number): task.grades for number, task in enumerate(tasks)}
    run = {
        str(number): dict(zip(task.ids, map(float, said), strict=True))
        for number, (task, said) in enumerate(zip(tasks, logits, strict=True))
    }
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], truth, run)[measure])


def _print(speeds: dict[str, float], found: dict[str, float], tasks: int) -> None:
    print(f"{machine()}; {tasks} questions, {DEPTH} candidates each of at most {CHARACTERS} characters")
    base = speeds.get("sentence-transformers")
    for name, speed in speeds.items():
        ratio = f"{speed / base:5.1f} x" if base else ""
        print(f"{name:<28}{speed:8.1f} pairs/s  {ratio}  nDCG@10 {found[name]:.4f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
