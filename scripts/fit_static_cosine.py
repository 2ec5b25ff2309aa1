r"""Chooses how a static embedder's cosines are scaled, by how well the bundled reranker ranks with them.

    python scripts/fit_static_cosine.py --pack train.jsonl.gz --unseen unseen.jsonl.gz --model models/static

The reranker adds what a cosine says to what it reads, and trusts it as it may trust the bi-encoder's: one
that knows less must say less, by a smaller scale. The shift keeps the mean of what it says. The order of
the cosines, hence the search, stays as it is. Questions are held-out ones of the packs; writes `config.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossrag.registry import BUNDLED_MODELS, load
from crossrag.training.export import write_checksums
from crossrag.training.packing import read_pack
from crossrag.types import Scores
from static_table import ndcg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.protocols import Embedder, Reranker
    from crossrag.training.mining import Mined

SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUESTIONS = 20
"""Of each set."""
CANDIDATES = 30
LONGEST = 900


@dataclass(frozen=True, slots=True)
class Ranked:
    """A question's candidates."""

    group: str
    relevant: NDArray[np.bool_]
    logits: NDArray[np.float32]
    """With the bi-encoder's cosines."""
    theirs: NDArray[np.float32]
    """The bi-encoder's cosines."""
    ours: NDArray[np.float32]
    """The table's, as they are."""


def main() -> None:
    """Read once, try every scale, write the best."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True, help="what train_reranker.py pack wrote")
    parser.add_argument("--unseen", type=Path, required=True, help="what train_reranker.py pack-more wrote")
    parser.add_argument("--model", type=Path, required=True, help="folder of the static embedder")
    arguments = parser.parse_args()
    path = arguments.model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    _write(arguments.model, {name: value for name, value in config.items() if name != "cosine"})
    embedder, reranker = (
        load("embedders", f"static:{arguments.model}"),
        load("rerankers", "progressive:bundled"),
    )
    parts = (*read_pack(arguments.pack)["dev"], *read_pack(arguments.unseen)["unseen"])
    read = [one for part in parts for one in _read(part, embedder, reranker)]
    weight = _weight()
    found = {scale: _quality(read, scale, weight) for scale in SCALES}
    for scale, value in found.items():
        print(f"scale {scale:.1f}: nDCG@10 {value:.4f}, shift {_shift(read, scale):+.4f}", flush=True)
    best = max(found, key=lambda scale: found[scale])
    _write(arguments.model, config | {"cosine": {"scale": best, "shift": round(_shift(read, best), 4)}})


def _read(part: Mined, embedder: Embedder, reranker: Reranker) -> Iterator[Ranked]:
    judged = [question for question in part.questions if (question.grades > 0).any()]
    for question in judged[:: max(1, len(judged) // QUESTIONS)][:QUESTIONS]:
        kept = np.flatnonzero((np.arange(len(question.grades)) < CANDIDATES) | (question.grades > 0))
        texts = [part.passages[number].described[:LONGEST] for number in question.passages[kept]]
        first = question.first_stage[kept]
        scores = [
            Scores(dense=float(dense), sparse=float(sparse), indexed=part.indexed) for dense, sparse in first
        ]
        said = reranker.score(question.text, texts, first_stage=scores)
        yield Ranked(
            part.name,
            question.grades[kept] > 0,
            np.asarray(said.logit, np.float32),
            first[:, 0],
            embedder.embed_documents(texts) @ embedder.embed_query(question.text),
        )


def _weight() -> float:
    """What the bundled reranker multiplies a cosine by."""
    config = json.loads((BUNDLED_MODELS / "progressive-reranker" / "config.json").read_text(encoding="utf-8"))
    return float(config["first_stage"]["dense"])


def _quality(read: list[Ranked], scale: float, weight: float) -> float:
    """Mean over sets of the mean over questions."""
    by_group: dict[str, list[float]] = {}
    for one in read:
        logits = one.logits + weight * (scale * one.ours - one.theirs)
        by_group.setdefault(one.group, []).append(ndcg(one.relevant, logits))
    return float(np.mean([np.mean(values) for values in by_group.values()]))


def _shift(read: list[Ranked], scale: float) -> float:
    return float(np.mean([(one.theirs - scale * one.ours).mean() for one in read]))


def _write(folder: Path, config: dict[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_checksums(folder)


if __name__ == "__main__":
    main()
