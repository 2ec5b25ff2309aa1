"""Answers over real files: where the reference answer's words stand, and which questions are refused.

    python bench/answers.py --data ../shared/data/rag --questions 100

Files are ingested by `Rag` with its defaults and asked about; the answers are the extractive generator's. Of
`squad`, questions without an answer are asked too, from articles whose questions no model was trained on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import head, printed, sample, write
from crossrag import Rag
from crossrag.claims import split
from crossrag.evaluation.statistics import interval
from folders import needed, references, rows_of, words_found

SETS = ("anthropic-docs", "chunkeval", "covidqa", "squad")
TRAINED_ON = 18
"""Articles of squad, in alphabetical order, whose questions without answer the reranker was trained on."""
WHOLE = 0.999


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with a known answer, or known to have none, and what came of it."""

    answerable: bool
    refused: bool
    relevance: float
    """Of the best passage."""
    first: float = 0.0
    """Share of the reference's words in the first sentence."""
    whole: float = 0.0
    """The same in all of the answer."""
    cited: float = 0.0
    """The same in the passages cited."""
    length: int = 0
    """Words of the answer."""
    rerank: float = 0.0
    """Seconds."""
    answer: float = 0.0


def main() -> None:
    """Measure, print as Markdown, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/rag"), help="folders of files")
    parser.add_argument("--questions", type=int, default=100, help="most questions per folder and kind")
    parser.add_argument("--sets", nargs="*", default=SETS, help="only these")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="other settings")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is missing: name a folder with --data")
    write(_report(arguments), arguments.out)


def _report(arguments: argparse.Namespace) -> Iterator[str]:
    yield from printed(head(arguments.questions))
    yield from printed(
        (
            (
                "| folder | questions | words in first sentence | in the answer | in passages cited "
                "| all words in first sentence | in the answer | words long | refused | answer / rerank, ms |"
            ),
            "|---|---|---|---|---|---|---|---|---|---|",
        )
    )
    asked: list[Asked] = []
    for name in arguments.sets:
        asked = _folder(arguments.data / name, arguments.questions, _sections(arguments.set))
        yield from printed((_row(name, [one for one in asked if one.answerable]),))
        if any(not one.answerable for one in asked):
            yield from printed(["", *_abstention(name, asked), ""])


def _sections(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def _folder(folder: Path, count: int, sections: dict[str, dict[str, str]]) -> list[Asked]:
    rows = list(rows_of(folder / "questions.jsonl.gz"))
    known = [row for row in rows if row.get("answers") or row.get("evidence")]
    none = sorted({row["sources"][0] for row in rows if not row.get("answers")})[:TRAINED_ON]
    hopeless = [
        row for row in rows if "answers" in row and not row["answers"] and row["sources"][0] not in none
    ]
    if folder.name != "squad":
        hopeless = []
    if hopeless:
        known = [row for row in known if row["sources"][0] not in none]
    chosen = sample(known, count) + sample(hopeless, count)
    files = [path for path in (folder / "docs").rglob("*") if path.is_file()]
    with tempfile.TemporaryDirectory() as scratch, Rag.open(Path(scratch) / "index", **sections) as rag:
        rag.ingest(*needed(folder / "docs", chosen, files))
        return [
            _ask(rag, row, answerable=number < min(count, len(known))) for number, row in enumerate(chosen)
        ]


def _ask(rag: Rag, row: Any, *, answerable: bool) -> Asked:
    said = rag.ask(row["question"])
    best = max((one.scores.relevance or 0.0 for one in said.ranking), default=0.0)
    refused = said.status == "no_answer"
    if not answerable:
        return Asked(answerable=False, refused=refused, relevance=best)
    cited = {citation.number for citation in said.citations}
    passages = " ".join(source.chunk.text for source in said.context.sources if source.number in cited)
    text = "" if refused else said.text
    wanted = references(row)
    return Asked(
        answerable=True,
        refused=refused,
        relevance=best,
        first=max(words_found(each, (split(text) or [""])[0]) for each in wanted),
        whole=max(words_found(each, text) for each in wanted),
        cited=max(words_found(each, passages) for each in wanted),
        length=len(text.split()),
        rerank=said.timings.get("rerank", 0.0),
        answer=said.timings["answer"],
    )


def _row(name: str, asked: Sequence[Asked]) -> str:
    columns = (
        _mean([one.first for one in asked]),
        _mean([one.whole for one in asked]),
        _mean([one.cited for one in asked]),
        _mean([one.first >= WHOLE for one in asked]),
        _mean([one.whole >= WHOLE for one in asked]),
        str(int(statistics.median(one.length for one in asked if not one.refused))),
        _mean([one.refused for one in asked]),
        (
            f"{statistics.median(one.answer for one in asked) * 1000:.0f} / "
            f"{statistics.median(one.rerank for one in asked) * 1000:.0f}"
        ),
    )
    return f"| {name} | {len(asked)} | {' | '.join(columns)} |"


def _abstention(name: str, asked: Sequence[Asked]) -> Iterator[str]:
    """What is refused as it ships, what could be, and the risk at some coverages."""
    yes = np.array([one.relevance for one in asked if one.answerable])
    no = np.array([one.relevance for one in asked if not one.answerable])
    refused = [one.refused for one in asked if not one.answerable]
    cut = float(np.quantile(yes, 0.05))
    area = float((yes[:, None] > no[None, :]).mean() + 0.5 * (yes[:, None] == no[None, :]).mean())
    yield f"{name}, {len(yes)} questions with an answer and {len(no)} without:"
    yield f"- refused as it ships: {_mean(refused)} of those without"
    yield (
        f"- at the threshold {cut:.4f} that refuses 5 % of those with an answer: "
        f"{_mean((no < cut).tolist())} of those without; AUC {area:.3f}"
    )
    order = np.concatenate([yes, no]).argsort()[::-1]
    right = np.concatenate([np.ones(len(yes)), np.zeros(len(no))])[order]
    for coverage in (0.2, 0.4, 0.6, 0.8, 1.0):
        kept = right[: max(1, round(coverage * len(right)))]
        yield f"- coverage {coverage:.1f}: risk {1 - kept.mean():.3f}"


def _mean(values: Sequence[float | bool]) -> str:
    """With its 95 % interval."""
    found = interval([float(value) for value in values])
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
