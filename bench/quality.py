"""What each stage of the embedded default is worth, on labelled data; makes docs/quality.md and its pictures.

    python bench/quality.py --data ../shared/data --out docs/quality.md

`DATA/ir/dev` holds BEIR folders, searched whole and exactly; `DATA/rag` folders of real files with questions,
ingested and asked; `DATA/grounding/dev` claims labelled by people. What is measured is what `crossrag eval`
measures. Everything is remembered in the cache, so a second run takes minutes. The part of the page between
the two marks is written anew; what people wrote around it stays. Nothing is trained or tuned here.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import page
from crossrag import Rag
from crossrag.config import load_settings
from crossrag.evaluation import report, running
from crossrag.evaluation.agreement import agreement, read_labels
from crossrag.evaluation.experiment import conduct, subject
from crossrag.evaluation.journal import Journal, key
from crossrag.evaluation.local import LocalJudge
from crossrag.evaluation.outcome import outcome
from crossrag.evaluation.reading import read_dataset

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.evaluation.dataset import Dataset

RELEVANT_FROM = {"trec-dl19": 2}
QUESTIONS = {"ir": 100, "rag": 40, "ir/scifact": 300, "ir/anthropic-docs": 15}
"""All questions where published figures are of all; fewer where one takes long, so that an hour suffices."""
MANY = 100
"""Files of a folder beyond which only those asked about and fifty others are ingested."""


def main() -> None:
    """Measure, draw, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="see above")
    parser.add_argument("--questions", type=int, help="most questions per set; else as QUESTIONS says")
    parser.add_argument("--claims", type=int, default=500, help="most labelled claims per set")
    parser.add_argument("--sets", nargs="*", help="only these, such as ir/scifact rag/squad grounding")
    parser.add_argument(
        "--verification", default="onnx:bundled", help="grounding model, backend:model, or none"
    )
    parser.add_argument("--cache", type=Path, default=Path(".quality"), help="folder for indexes and results")
    parser.add_argument("--out", type=Path, default=Path("docs/quality.md"), help="page to write")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is missing: name a folder with --data")
    known = (arguments.cache / "results.sqlite").is_file()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with Journal(arguments.cache / "results.sqlite") as journal:
        retrieval = [
            r for folder in _chosen(arguments, "ir", "ir/dev") for r in _corpus(folder, arguments, journal)
        ]
        folders = [_folder(folder, arguments, journal) for folder in _chosen(arguments, "rag", "rag")]
        labels = dict(_agreement(arguments, journal))
    today = date.today().isoformat()  # noqa: DTZ011 - the day where it ran
    minutes = (time.perf_counter() - begun) / 60
    command = " ".join(["python", *sys.argv])
    remembered = " (what an earlier run had measured is remembered)" if known else ""
    head = (
        f"Measured on {today}, {report.machine()}, with `{command}`, in {minutes:.0f} minutes{remembered}."
        f" At most {_most(arguments, 'ir')} questions per set and {_most(arguments, 'rag')} per folder"
        f"{'' if arguments.questions else ', all 300 of scifact'}, the same ones in every run."
    )
    page.write(arguments.out, head=head, retrieval=retrieval, folders=folders, labels=labels)


def _chosen(arguments: argparse.Namespace, kind: str, where: str) -> Iterator[Path]:
    place = arguments.data / where
    for folder in sorted(place.iterdir()) if place.is_dir() else ():
        wanted = arguments.sets is None or f"{kind}/{folder.name}" in arguments.sets or kind in arguments.sets
        if folder.is_dir() and wanted:
            yield folder


def _settings(path: Path, arguments: argparse.Namespace) -> Settings:
    """All defaults, whatever is set on this machine."""
    said = {"index": {"path": path}, "verification": {"model": arguments.verification}}
    return load_settings(said, environ={}, directory=path).settings


def _most(arguments: argparse.Namespace, kind: str, name: str = "") -> int:
    """Questions of a set that are asked."""
    return int(arguments.questions or QUESTIONS.get(f"{kind}/{name}", QUESTIONS[kind]))


def _told(what: str) -> running.Progress:
    """A line on stderr when something begins, and one each tenth of it."""

    def begin(stage: str) -> Callable[[int, int], None]:
        last = -1
        begun = time.perf_counter()

        def step(done: int, total: int) -> None:
            nonlocal last
            tenth = 10 * done // max(1, total)
            if tenth != last and done:
                left = (time.perf_counter() - begun) / done * (total - done)
                print(f"{what}: {stage} {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
            last = tenth

        return step

    return begin


def _corpus(folder: Path, arguments: argparse.Namespace, journal: Journal) -> Iterator[dict[str, Any]]:
    whole = read_dataset(folder, relevant_from=RELEVANT_FROM.get(folder.name, 1))
    data = running.sampled(whole, _most(arguments, "ir", folder.name))
    settings = _settings(arguments.cache / "none", arguments)
    progress = _told(folder.name)
    with running.opened(folder, settings, progress=progress) as found:
        content, _ = running.evaluate(data, found, journal=journal, progress=progress)
        yield content | {"documents": found.rag.index.count()}
        listed = folder / "candidates" / "BM25.tsv"
        if listed.is_file():
            yield _over_candidates(data, found, listed, journal)


def _over_candidates(data: Dataset, found: Any, listed: Path, journal: Journal) -> dict[str, Any]:
    """The standard task of reranking the first hundred of BM25."""
    given = _listed(listed)
    name = f"{data.name}, BM25 top 100"
    data = replace(data, name=name, questions=tuple(q for q in data.questions if q.id in given))
    index: Any = found.rag.index
    records = []
    for question in data.questions:
        index.restrict(given[question.id])
        restricted = replace(found, identity={**found.identity, "candidates": key(given[question.id])})
        records += conduct(replace(data, questions=(question,)), restricted, journal=journal)
    index.restrict(None)
    result = outcome(data, records, found)
    content = report.report(data, records, result, found)
    return content | {"documents": index.count(), "apart": True}


def _listed(path: Path) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            listed.setdefault(row["query-id"], []).append(row["corpus-id"])
    return listed


def _folder(folder: Path, arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    data = running.sampled(_available(folder), _most(arguments, "rag"))
    files = _needed(folder / "docs", data)
    place = arguments.cache / f"index-{folder.name}-{key([str(file) for file in files])[:8]}"
    progress = _told(folder.name)
    with Rag(_settings(place, arguments)) as rag:
        rag.ingest(*files)
        judges = (LocalJudge(grounder=rag.grounder, reranker=rag.reranker),)
        wanted = running.Wanted(answers=True, judges=judges, timed=False)
        content, _ = running.evaluate(data, subject(rag), journal=journal, wanted=wanted, progress=progress)
        return content | {"documents": len(rag.documents()), "passages": rag.store.count()}


def _available(folder: Path) -> Dataset:
    """Questions whose file is there."""
    file = folder / "questions.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        missing = {row["id"] for row in map(json.loads, lines) if not row.get("available", True)}
    data = read_dataset(folder)
    return replace(data, questions=tuple(q for q in data.questions if q.id not in missing))


def _needed(docs: Path, data: Dataset) -> list[Path]:
    files = sorted(path for path in docs.rglob("*") if path.is_file())
    if len(files) <= MANY:
        return [docs]
    named = {source for question in data.questions for place in question.places for source in place.sources}
    others = sorted((path for path in files if path.name not in named), key=lambda path: key(path.name))
    return sorted([path for path in files if path.name in named] + others[:50])


def _agreement(arguments: argparse.Namespace, journal: Journal) -> Iterator[tuple[str, Any]]:
    place = arguments.data / "grounding" / "dev"
    if not place.is_dir() or not (arguments.sets is None or "grounding" in arguments.sets):
        return
    with Rag(_settings(arguments.cache / "none", arguments)) as rag:
        if (grounder := rag.grounder) is None:
            return
        for file in sorted(place.glob("*.jsonl*")):
            rows = sorted(read_labels(file), key=lambda row: key(*row[:2]))[: arguments.claims]
            name = file.name.partition(".")[0]
            yield name, agreement(grounder, rows, journal=journal, progress=_told(name)("claims"))


if __name__ == "__main__":
    main()
