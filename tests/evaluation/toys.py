"""A small library with judged questions, searched by fakes: enough for every stage to differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossrag import Rag, Settings
from crossrag.config import IndexSettings, RerankingSettings, RetrievalSettings, VerificationSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapGrounder, OverlapReranker

ANIMALS = (
    "whale", "otter", "heron", "badger", "lynx", "stork", "beaver", "marten", "falcon", "turtle",
    "salmon", "ferret", "weasel", "raven", "magpie", "hedgehog", "squirrel", "dormouse", "adder", "newt",
    "toad", "perch", "carp", "trout", "eagle",
)  # fmt: skip


def library(folder: Path) -> Path:
    """A file per animal: where it sleeps, what it eats, and a sentence that all share."""
    docs = folder / "docs"
    docs.mkdir(parents=True)
    for number, animal in enumerate(ANIMALS):
        (docs / f"{animal}.md").write_text(
            f"# The {animal}\n\n"
            f"The {animal} sleeps for {number + 3} hours in a quiet hollow by the river.\n\n"
            f"Every morning the {animal} eats {number + 2} berries and drinks water from the spring.\n\n"
            "All animals of this valley are counted in autumn by the rangers of the park.\n",
            encoding="utf-8",
        )
    return docs


def questions(folder: Path) -> Path:
    """Two questions per animal with source, quote and answer, and two without an answer."""
    rows: list[dict[str, Any]] = []
    for number, animal in enumerate(ANIMALS):
        quote = f"sleeps for {number + 3} hours"
        rows.append(
            {
                "id": f"sleep-{animal}",
                "question": f"How many hours does the {animal} sleep by the river?",
                "source": f"{animal}.md",
                "quote": quote,
                "answer": f"The {animal} sleeps for {number + 3} hours in a quiet hollow by the river.",
            }
        )
        rows.append(
            {
                "id": f"eat-{animal}",
                "question": f"What berries does the {animal} eat in the morning?",
                "source": f"{animal}.md",
                "quote": f"eats {number + 2} berries",
            }
        )
    rows += [
        {"id": "no-1", "question": "Who painted Guernica?", "answerable": False},
        {"id": "no-2", "question": "Which train reaches Lisbon?", "answerable": False},
    ]
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def made(folder: Path, *, retrieval: dict[str, Any] | None = None, **reranking: Any) -> Rag:
    """A Rag of fakes."""
    settings = Settings(
        retrieval=RetrievalSettings(**(retrieval or {})),
        index=IndexSettings(path=folder / "index"),
        reranking=RerankingSettings(**{"threshold": 0.3, **reranking}),
        verification=VerificationSettings(model="none"),
    )
    return Rag(
        settings,
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=OverlapReranker(),
        grounder=OverlapGrounder(),
    )
