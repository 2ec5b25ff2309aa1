"""What expansions without a language model are worth: nDCG@10 and recall@100, with and without each.

    python bench/expansion.py --data ../shared/data/ir/dev --questions 40
    python bench/expansion.py --data ../shared/data/ir/train --split dev --by-prefix --questions 40

Defaults are chosen on the second (held-out questions of the training sets), the first is measured only. A set
with more than `--passages` passages is measured over the judged ones and a fixed sample of the others. With
`--rerank` the candidates of every variant are read by the reranker, too. Intervals are 95 % bootstrap over
questions, of the difference to the question alone. Questions are a fixed sample (seed below).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ir_measures
import numpy as np

from common import SEED, head, printed, sample, searcher, write
from crossrag.evaluation.statistics import interval
from crossrag.expansion import expand
from crossrag.registry import load
from crossrag.retrieval import reciprocal_rank_fusion
from crossrag.training.judged import Collection, read_collections
from crossrag.types import Scores

if TYPE_CHECKING:
    from crossrag.training.mining import Searcher

VARIANTS: dict[str, tuple[str, ...]] = {
    "alone": (),
    "feedback": ("feedback",),
    "variants": ("variants",),
    "both": ("feedback", "variants"),
}
DEPTH = 100
NDCG, RECALL = ir_measures.nDCG @ 10, ir_measures.R @ DEPTH


def main() -> None:
    """Measure what was asked for, print it as Markdown, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ir/dev"), help="BEIR folders, or one"
    )
    parser.add_argument("--split", default="test", help="name of the qrels")
    parser.add_argument("--by-prefix", action="store_true", help="one folder, ids are set:id")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--questions", type=int, default=40, help="most questions per set")
    parser.add_argument("--passages", type=int, default=3_000, help="most passages per set")
    parser.add_argument("--weight", type=float, default=0.5, help="of an expansion's leg")
    parser.add_argument("--rerank", action="store_true", help="let the reranker read the candidates")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    arguments = parser.parse_args()
    write(_report(arguments), arguments.out)


@dataclass(slots=True)
class Found:
    """Per variant and question: the order of passages, first stage and reranked."""

    fused: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    reranked: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    started = time.perf_counter()
    yield from printed(head(arguments.questions))
    columns = ["nDCG@10", "recall@100", *(["reranked nDCG@10"] if arguments.rerank else [])]
    cells = " | ".join(f"{column} | difference" for column in columns)
    yield from printed(
        (
            f"| set | passages | questions | expansion | expanded | {cells} |",
            "|---" * (5 + 2 * len(columns)) + "|",
        )
    )
    differences: dict[tuple[str, str], list[float]] = {}
    for collection in _collections(arguments):
        yield from printed(_measured(collection, arguments, differences))
    for (variant, column), values in differences.items():
        found = interval(values)
        line = (
            f"{variant}, {column}: {found.mean * 100:+.2f} [{found.low * 100:+.2f}, {found.high * 100:+.2f}]"
        )
        yield from printed((f"- over all {len(values)} questions, {line}",))
    yield from printed(("", f"In all {time.perf_counter() - started:.0f} s."))


def _collections(arguments: argparse.Namespace) -> Iterator[Collection]:
    folders = [arguments.data] if arguments.by_prefix else sorted(arguments.data.iterdir())
    for folder in folders:
        if not arguments.by_prefix and arguments.sets and folder.name not in arguments.sets:
            continue
        for one in read_collections(folder, splits=[arguments.split], by_prefix=arguments.by_prefix):
            wanted = not (arguments.by_prefix and arguments.sets) or one.name in arguments.sets
            if wanted and one.judgements.get(arguments.split):
                yield _smaller(one, arguments)


def _smaller(collection: Collection, arguments: argparse.Namespace) -> Collection:
    """The questions of the sample, the passages judged for them, and others up to the number wanted."""
    judged = collection.judgements[arguments.split]
    answerable = sorted(
        query for query, grades in judged.items() if any(grade > 0 for grade in grades.values())
    )
    chosen = sample(answerable, arguments.questions)
    known = {passage for query in chosen for passage in judged[query]}
    order = list(collection.passages)
    random.Random(SEED).shuffle(order)  # noqa: S311 - a sample, no secret
    order.sort(key=lambda passage: passage.id not in known)
    return replace(
        collection,
        passages=tuple(order[: max(arguments.passages, len(known))]),
        judgements={arguments.split: {query: judged[query] for query in chosen}},
    )


def _measured(
    collection: Collection, arguments: argparse.Namespace, differences: dict[tuple[str, str], list[float]]
) -> list[str]:
    judged = collection.judgements[arguments.split]
    search = searcher(collection)
    found = _found(collection, judged, search, arguments)
    lines = []
    base: dict[str, list[float]] = {}
    for variant in VARIANTS:
        columns = {
            "nDCG@10": _values(NDCG, found.fused[variant], judged, search),
            "recall@100": _values(RECALL, found.fused[variant], judged, search),
        }
        if arguments.rerank:
            columns["reranked nDCG@10"] = _values(NDCG, found.reranked[variant], judged, search)
        base = base or columns
        cells = []
        for column, values in columns.items():
            gains = [value - before for value, before in zip(values, base[column], strict=True)]
            gain = interval(gains)
            cells.append(f"{statistics.mean(values):.3f}")
            cells.append(f"{gain.mean * 100:+.1f} [{gain.low * 100:+.1f}, {gain.high * 100:+.1f}]")
            if variant != "alone":
                differences.setdefault((variant, column), []).extend(gains)
        lines.append(
            f"| {collection.name} | {len(search.passages)} | {len(judged)} | {variant} "
            f"| {found.changed[variant]} | {' | '.join(cells)} |"
        )
    return lines


def _found(
    collection: Collection,
    judged: Mapping[str, Mapping[str, int]],
    search: Searcher,
    arguments: argparse.Namespace,
) -> Found:
    encoder = load("sparse_encoders", "bm25")
    reranker = load("rerankers", "progressive:bundled") if arguments.rerank else None
    found = Found(changed=dict.fromkeys(VARIANTS, 0))
    texts = [collection.queries[query] for query in judged]
    for query, text, (dense, sparse) in zip(judged, texts, search.scores(texts), strict=True):
        own = [_top(dense), _top(sparse)]
        first = _fused(own, [1.0, 1.0])
        passages = [search.passages[number].described for number in first[:DEPTH]]
        legs = {
            method: [
                _top(search.sparse(one.terms))
                for one in expand(text, [method], passages=passages, sparse_encoder=encoder).expansions
                if one.terms
            ]
            for method in ("feedback", "variants")
        }
        pools: dict[str, list[int]] = {}
        for variant, methods in VARIANTS.items():
            further = [leg for method in methods for leg in legs[method]]
            found.changed[variant] += bool(further)
            weights = [1.0, 1.0, *([arguments.weight] * len(further))]
            pools[variant] = _fused([*own, *further], weights)[:DEPTH]
            found.fused.setdefault(variant, {})[query] = pools[variant]
        if reranker is not None:
            union = sorted({number for pool in pools.values() for number in pool})
            said = reranker.score(
                text,
                [search.passages[number].described for number in union],
                first_stage=[
                    Scores(dense=float(dense[n]), sparse=float(sparse[n]), indexed=len(search.passages))
                    for n in union
                ],
            )
            logit = dict(zip(union, said.logit, strict=True))
            for variant, pool in pools.items():
                found.reranked.setdefault(variant, {})[query] = sorted(pool, key=lambda n: -logit[n])
    return found


def _top(scores: np.ndarray) -> list[int]:
    order = np.argsort(-np.round(scores, 5), kind="stable")[:DEPTH]
    return [int(number) for number in order if scores[number] > 0]


def _fused(legs: Sequence[Sequence[int]], weights: Sequence[float]) -> list[int]:
    fused = reciprocal_rank_fusion(legs, weights=weights)
    return sorted(fused, key=lambda number: (-fused[number], number))


def _values(
    measure: ir_measures.Measure,
    run: Mapping[str, Sequence[int]],
    truth: Mapping[str, Mapping[str, int]],
    search: Searcher,
) -> list[float]:
    ranked = {
        query: {search.passages[number].id: -float(rank) for rank, number in enumerate(numbers)}
        for query, numbers in run.items()
    }
    found = {row.query_id: row.value for row in ir_measures.iter_calc([measure], truth, ranked)}
    return [found.get(query, 0.0) for query in truth]


if __name__ == "__main__":
    main()
