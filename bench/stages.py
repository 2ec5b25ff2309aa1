"""What each stage of the embedded default is worth, on labelled data: nDCG@10 with confidence intervals.

    python bench/stages.py --data ../shared/data/ir/dev --questions 150

Each set's whole corpus is searched; a question without results counts as 0. `reranked` is what a user gets
(early exits, `--depth` candidates, the best 10 wanted), `all layers` the same model without early exits. A
folder with `candidates/BM25.tsv` is measured over those candidates, too. Intervals are 95 % bootstrap over
questions, of the difference to `fused`; ECE is over the ten best passages of each question. Questions are a
fixed sample (seed below). Nothing is trained or tuned here.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ir_measures
import numpy as np

from common import head, printed, sample, searcher, write
from crossrag.calibration import calibration_error
from crossrag.evaluation.statistics import compared
from crossrag.registry import load
from crossrag.training.judged import Collection, read_collections
from crossrag.training.mining import Searcher, candidates
from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.protocols import Reranker

STAGES = ("BM25", "dense", "fused", "reranked", "all layers")
LAYERS = 6


def main() -> None:
    """Measure what was asked for, print it as Markdown, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ir/dev"), help="folder of BEIR sets"
    )
    parser.add_argument("--questions", type=int, default=150, help="most questions per set")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--model", default="progressive:bundled", help="reranker, backend:model")
    parser.add_argument("--embedder", default="onnx:bundled", help="backend:model")
    parser.add_argument("--early-only", action="store_true", help="leave `all layers` out: it takes longest")
    parser.add_argument("--depth", type=int, default=100, help="candidates that are reranked")
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--raw", type=Path, help="write every logit here, as JSON Lines")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is missing: name a folder of BEIR sets with --data")
    write(_report(arguments), arguments.out)


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    started = time.perf_counter()
    yield from printed(head(arguments.questions))
    columns = " | ".join(STAGES)
    yield from printed(
        (
            f"| set | documents | questions | {columns} | reranked - fused | layers saved | ECE | ms |",
            "|---|---|---|" + "---|" * (len(STAGES) + 4),
        )
    )
    reranker = load("rerankers", arguments.model)
    rows: list[Row] = []
    for folder in sorted(arguments.data.iterdir()):
        if not arguments.sets or folder.name in arguments.sets:
            for row in _measured(folder, reranker, arguments):
                rows.append(row)
                yield from printed((row.line(),))
    whole = [row for row in rows if row.counted]
    if whole:
        means = " | ".join(f"**{statistics.mean(row.mean(stage) for row in whole):.3f}**" for stage in STAGES)
        gain = statistics.mean(row.mean("reranked") - row.mean("fused") for row in whole)
        yield from printed(
            (f"| mean of the {len(whole)} sets | | | {means} | **{gain * 100:+.1f}** | | | |",)
        )
    yield from printed(("", f"In all {time.perf_counter() - started:.0f} s."))


@dataclass(slots=True)
class Row:
    """One line of the table."""

    name: str
    documents: int
    counted: bool = True
    """Whether it belongs to the mean."""
    values: dict[str, list[float]] = field(default_factory=dict)
    """nDCG@10 per question."""
    layers: list[int] = field(default_factory=list)
    said: list[tuple[float, bool]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def mean(self, stage: str) -> float:
        """NDCG@10 of a stage."""
        return statistics.mean(self.values[stage])

    def line(self) -> str:
        """As Markdown."""
        values = " | ".join(f"{self.mean(stage):.3f}" for stage in STAGES)
        gain = compared(self.values["fused"], self.values["reranked"]).difference
        saved = 1 - statistics.mean(self.layers) / LAYERS if self.layers else 0.0
        error = calibration_error([p for p, _ in self.said], [y for _, y in self.said])
        return (
            f"| {self.name} | {self.documents} | {len(self.seconds)} | {values} "
            f"| {gain.mean * 100:+.1f} [{gain.low * 100:+.1f}, {gain.high * 100:+.1f}] "
            f"| {saved * 100:.0f} % | {error:.3f} "
            f"| {statistics.median(self.seconds) * 1000:.0f} |"
        )


def _measured(folder: Path, reranker: Reranker, arguments: argparse.Namespace) -> Iterator[Row]:
    (collection,) = read_collections(folder, splits=["test"])
    search = searcher(collection, arguments.embedder)
    chosen = sample(sorted(collection.judgements["test"]), arguments.questions)
    yield _row(folder.name, collection, search, reranker, chosen, None, arguments)
    listed = folder / "candidates" / "BM25.tsv"
    if listed.is_file():
        given = _listed(listed, collection)
        over = [query for query in chosen if query in given]
        row = _row(f"{folder.name}, BM25 top 100", collection, search, reranker, over, given, arguments)
        row.counted = False
        yield row


def _row(
    name: str,
    collection: Collection,
    searcher: Searcher,
    reranker: Reranker,
    chosen: Sequence[str],
    given: Mapping[str, list[int]] | None,
    arguments: argparse.Namespace,
) -> Row:
    row = Row(name, len(collection.passages))
    runs: dict[str, dict[str, list[int]]] = {stage: {} for stage in STAGES}
    judged = collection.judgements["test"]
    texts = [collection.queries[query] for query in chosen]
    for query, text, (dense, sparse) in zip(chosen, texts, searcher.scores(texts), strict=True):
        allowed = None
        if given is not None:
            allowed = np.zeros(len(dense), bool)
            allowed[given[query]] = True
        fused = candidates(dense, sparse, depth=100, allowed=allowed)
        read = fused[: arguments.depth]
        quick, whole = _scored(reranker, text, read, searcher, (dense, sparse), row, arguments.early_only)
        order = {
            "BM25": [p for p in sorted(fused, key=lambda p: -sparse[p]) if sparse[p] > 0],
            "dense": sorted(fused, key=lambda p: -dense[p]),
            "fused": fused,
            "reranked": _ordered(read, quick) + fused[arguments.depth :],
            "all layers": _ordered(read, whole) + fused[arguments.depth :],
        }
        if given is not None:
            order["BM25"] = given[query]
        for stage, ranked in order.items():
            runs[stage][query] = ranked
        grades = judged[query]
        row.said += [
            (p, grades.get(searcher.passages[number].id, 0) > 0)
            for p, number in sorted(zip(whole.relevance, read, strict=True), reverse=True)[:10]
        ]
        if arguments.raw:
            _write_raw(arguments.raw, name, query, read, whole, (dense, sparse), searcher, grades)
    for stage, run in runs.items():
        row.values[stage] = _ndcg(run, {query: judged[query] for query in chosen}, searcher)
    return row


def _scored(
    reranker: Reranker,
    text: str,
    read: Sequence[int],
    searcher: Searcher,
    legs: tuple[NDArray[np.float32], NDArray[np.float32]],
    row: Row,
    early_only: bool,  # noqa: FBT001 - an option of the command line
) -> tuple[Relevance, Relevance]:
    passages = [searcher.passages[number].described for number in read]
    indexed = len(searcher.passages)
    scores = [Scores(dense=float(legs[0][n]), sparse=float(legs[1][n]), indexed=indexed) for n in read]
    begun = time.perf_counter()
    quick = reranker.score(text, passages, first_stage=scores, top_k=10)
    row.seconds.append(time.perf_counter() - begun)
    row.layers += quick.layers
    return quick, quick if early_only else reranker.score(text, passages, first_stage=scores)


def _ordered(read: Sequence[int], said: Relevance) -> list[int]:
    return [read[place] for place in sorted(range(len(read)), key=lambda place: (-said.logit[place], place))]


def _ndcg(
    run: Mapping[str, Sequence[int]], truth: Mapping[str, Mapping[str, int]], searcher: Searcher
) -> list[float]:
    measure = ir_measures.nDCG @ 10
    ranked = {
        query: {searcher.passages[number].id: -float(rank) for rank, number in enumerate(numbers)}
        for query, numbers in run.items()
    }
    found = {row.query_id: row.value for row in ir_measures.iter_calc([measure], truth, ranked)}
    return [found.get(query, 0.0) for query in truth]


def _listed(path: Path, collection: Collection) -> dict[str, list[int]]:
    position = {passage.id: number for number, passage in enumerate(collection.passages)}
    listed: dict[str, list[int]] = {}
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            listed.setdefault(row["query-id"], []).append(position[row["corpus-id"]])
    return listed


def _write_raw(  # noqa: PLR0913, PLR0917 - everything about one question
    path: Path,
    name: str,
    query: str,
    read: Sequence[int],
    said: Relevance,
    legs: tuple[NDArray[np.float32], NDArray[np.float32]],
    searcher: Searcher,
    grades: Mapping[str, int],
) -> None:
    rows = [
        [
            grades.get(searcher.passages[number].id, -1),
            round(float(legs[0][number]), 4),
            round(float(legs[1][number]), 3),
            *(round(logit, 3) for logit in (said.by_exit[place] if said.by_exit else (said.logit[place],))),
        ]
        for place, number in enumerate(read)
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"set": name, "query": query, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
