"""Where questions to learn from come from: a folder of judged pairs, or judgements about one's own index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import crossrag
from crossrag import calibrating, retrieval
from crossrag.errors import UsageError

from .judged import Collection, Passage, read_collections
from .mining import (
    Mined,
    Question,
    Searcher,
    mine,
    pseudo_questions,
    pseudo_texts,
    unjudged,
    unlabelled,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.calibrating import Judgement
    from crossrag.pipeline import Rag
    from crossrag.protocols import Embedder, SparseEncoder
    from crossrag.types import Candidate

Told = Callable[[str], None]
_DEPTH = 40
"""Passages taken from each leg."""
_LABELLED_PER_UNLABELLED = 6
"""Judged questions for each that nobody judged, on which the first stage's order is kept."""


class Found(NamedTuple):
    """Mined questions: those of `qrels/train`, those of `qrels/dev`, and some that nobody judged."""

    train: list[Mined]
    dev: list[Mined]
    unlabelled: list[Mined]


def from_folder(
    folder: Path,
    *,
    embedder: Embedder,
    sparse_encoder: SparseEncoder,
    by_prefix: bool = False,
    limit: int | None = None,
    check: Callable[[int, int], None] = lambda *_: None,
    told: Told = lambda _: None,
) -> Found:
    """Mine a BEIR folder. Those of dev may be none.

    A folder with neither train nor dev but one other file of judgements is read as if that was `train`.
    `check` is given the numbers of both before anything is searched.

    Raises:
        UsageError: The folder is not of that layout.
    """
    found = Found([], [], [])
    collections = read_collections(folder, by_prefix=by_prefix)
    check(_count(collections, None), _count(collections, "dev"))
    for collection in collections:
        told(f"searching {len(collection.passages)} passages of {collection.name}")
        searcher = Searcher(collection.passages, embedder=embedder, sparse_encoder=sparse_encoder)
        train = _train_split(collection)
        for split, target in ((train, found.train), ("dev", found.dev)):
            if split in collection.judgements:
                questions = tuple(mine(collection, split, searcher=searcher, depth=_DEPTH, limit=limit))
                target.append(Mined(collection.name, collection.passages, questions))
        count = len(collection.judgements.get(train, ())) // _LABELLED_PER_UNLABELLED
        found.unlabelled.append(pseudo_questions(collection, searcher=searcher, count=count))
    return found


def from_index(
    rag: Rag, judgements: Sequence[Judgement], *, told: Told = lambda _: None
) -> tuple[Mined, int]:
    """Mine one's own index: what the search finds and no judgement names is a negative.

    Returns:
        The questions, and how many were left out because the search found none of their relevant passages.
    """
    pool = _Pool()
    questions: list[Question] = []
    lost = 0
    grouped = calibrating.by_question(judgements)
    told(f"searching the index for {len(grouped)} questions")
    for text, wanted in grouped.items():
        found = _search(rag, text)
        grades = [1 if calibrating.answers(wanted, c.chunk) else -1 for c in found]
        if 1 not in grades:
            lost += 1
            continue
        places, scores = pool.places(found)
        questions.append(Question(text, text, places, np.asarray(grades, np.int8), scores))
    return Mined("index", tuple(pool.passages), tuple(questions), rag.store.count()), lost


def unlabelled_from_index(rag: Rag, labelled: Mined) -> Mined:
    """Headings and sentences of what was found for judged questions, as questions that nobody judged."""
    pool = _Pool()
    count = len(labelled.questions) // _LABELLED_PER_UNLABELLED
    questions = []
    for number, text in enumerate(pseudo_texts(labelled.passages, count, seed=labelled.name)):
        places, scores = pool.places(_search(rag, text))
        questions.append(unjudged(number, text, places.tolist(), scores))
    return Mined(unlabelled(labelled.name), tuple(pool.passages), tuple(questions), labelled.searched)


class _Pool:
    """Passages of an index, each once, in the order in which they were found."""

    def __init__(self) -> None:
        self.passages: list[Passage] = []
        self._number_of: dict[str, int] = {}

    def places(self, found: Sequence[Candidate]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Int32[n], where they stand, and float32[n, 2], their scores; NaN of a leg that was not asked."""
        for candidate in found:
            chunk = candidate.chunk
            if chunk.id not in self._number_of:
                self._number_of[chunk.id] = len(self.passages)
                heading = chunk.described.removesuffix(chunk.text).rstrip("\n")
                self.passages.append(Passage(chunk.id, heading, chunk.text))
        places = np.asarray([self._number_of[c.chunk.id] for c in found], np.int32)
        scores = np.asarray([[c.scores.dense, c.scores.sparse] for c in found], np.float32).reshape(-1, 2)
        return places, scores


def _search(rag: Rag, text: str) -> Sequence[Candidate]:
    settings = rag.settings.retrieval
    return retrieval.retrieve(
        text,
        embedder=rag.embedder,
        sparse_encoder=rag.sparse_encoder,
        store=rag.index,
        fetch_k=settings.fetch_k,
        rrf_k=settings.rrf_k,
        dense_weight=settings.dense_weight,
    )


def bundled_questions(rag: Rag) -> Mined:
    """The bundled guide with judged questions, mined with the models of `rag`: a small general set."""
    from crossrag.pipeline import Rag

    examples = Path(crossrag.__file__).parent / "examples"
    judgements = calibrating.read_judgements(Path(__file__).parent / "general.jsonl")
    with tempfile.TemporaryDirectory(prefix="crossrag-general-") as scratch:
        settings = rag.settings.model_copy(
            update={"index": rag.settings.index.model_copy(update={"path": Path(scratch) / "index"})}
        )
        with Rag(settings, embedder=rag.embedder, sparse_encoder=rag.sparse_encoder) as guide:
            guide.ingest(examples)
            mined, _ = from_index(guide, judgements)
    return replace(mined, name="bundled guide")


def _count(collections: Sequence[Collection], split: str | None) -> int:
    return sum(len(one.judgements.get(split or _train_split(one), {})) for one in collections)


def _train_split(collection: Collection) -> str:
    if "train" in collection.judgements:
        return "train"
    others = sorted(split for split in collection.judgements if split != "dev")
    # Beside a dev split, one that is called test is there to measure.
    if len(others) > 1 or (others == ["test"] and "dev" in collection.judgements):
        raise UsageError(
            f"{collection.name} has the judgements {', '.join(others)}",
            hint="Call the file of those to learn from train.tsv",
        )
    return others[0] if others else "train"
