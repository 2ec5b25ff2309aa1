"""Where questions to learn from come from: a folder of judged pairs, or judgements about one's own index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import crossrag
from crossrag import calibrating, retrieval
from crossrag.errors import UsageError

from .judged import Collection, Passage, read_collections
from .mining import Mined, Question, Searcher, mine

if TYPE_CHECKING:
    from crossrag.calibrating import Judgement
    from crossrag.pipeline import Rag
    from crossrag.protocols import Embedder, SparseEncoder

Told = Callable[[str], None]
_DEPTH = 40
"""Passages taken from each leg."""


def from_folder(
    folder: Path,
    *,
    embedder: Embedder,
    sparse_encoder: SparseEncoder,
    by_prefix: bool = False,
    limit: int | None = None,
    check: Callable[[int, int], None] = lambda *_: None,
    told: Told = lambda _: None,
) -> tuple[list[Mined], list[Mined]]:
    """Mine a BEIR folder. Returns the questions of `qrels/train` and those of `qrels/dev`, which may be none.

    A folder with neither but one other file of judgements is read as if it was `train`. `check` is given the
    numbers of both before anything is searched.

    Raises:
        UsageError: The folder is not of that layout.
    """
    train: list[Mined] = []
    dev: list[Mined] = []
    collections = read_collections(folder, by_prefix=by_prefix)
    check(_count(collections, None), _count(collections, "dev"))
    for collection in collections:
        told(f"searching {len(collection.passages)} passages of {collection.name}")
        searcher = Searcher(collection.passages, embedder=embedder, sparse_encoder=sparse_encoder)
        for split, target in ((_train_split(collection), train), ("dev", dev)):
            if split in collection.judgements:
                questions = tuple(mine(collection, split, searcher=searcher, depth=_DEPTH, limit=limit))
                target.append(Mined(collection.name, collection.passages, questions))
    return train, dev


def from_index(
    rag: Rag, judgements: Sequence[Judgement], *, told: Told = lambda _: None
) -> tuple[Mined, int]:
    """Mine one's own index: what the search finds and no judgement names is a negative.

    Returns:
        The questions, and how many were left out because the search found none of their relevant passages.
    """
    passages: list[Passage] = []
    number_of: dict[str, int] = {}
    questions: list[Question] = []
    lost = 0
    grouped = calibrating.by_question(judgements)
    told(f"searching the index for {len(grouped)} questions")
    for text, wanted in grouped.items():
        found = retrieval.retrieve(
            text,
            embedder=rag.embedder,
            sparse_encoder=rag.sparse_encoder,
            store=rag.index,
            fetch_k=rag.settings.retrieval.fetch_k,
            rrf_k=rag.settings.retrieval.rrf_k,
            dense_weight=rag.settings.retrieval.dense_weight,
        )
        grades = [1 if calibrating.answers(wanted, c.chunk) else -1 for c in found]
        if 1 not in grades:
            lost += 1
            continue
        for candidate in found:
            if candidate.chunk.id not in number_of:
                number_of[candidate.chunk.id] = len(passages)
                heading = candidate.chunk.described.removesuffix(candidate.chunk.text).rstrip("\n")
                passages.append(Passage(candidate.chunk.id, heading, candidate.chunk.text))
        questions.append(
            Question(
                text,
                text,
                np.asarray([number_of[c.chunk.id] for c in found], np.int32),
                np.asarray(grades, np.int8),
                np.asarray([[c.scores.dense, c.scores.sparse] for c in found], np.float32),
            )
        )
    return Mined("index", tuple(passages), tuple(questions), rag.store.count()), lost


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
