"""What the benches share: a fixed sample, a head that says where and when, printing."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from crossrag.evaluation.report import machine
from crossrag.registry import load
from crossrag.training.mining import Searcher

if TYPE_CHECKING:
    from crossrag.training.judged import Collection

SEED = 20261123
Item = TypeVar("Item")


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """The same items in every run."""
    return random.Random(SEED).sample(list(items), min(count, len(items)))  # noqa: S311 - a sample, no secret


def head(questions: int) -> tuple[str, ...]:
    """When, where and how the figures below were measured."""
    return (
        f"Measured on {date.today().isoformat()}, {machine()}, with",  # noqa: DTZ011 - the day where it ran
        f"`{' '.join(['python', *sys.argv])}`.",
        f"Questions per set: at most {questions}, sampled with seed {SEED}.",
        "",
    )


def printed(lines: Sequence[str]) -> Sequence[str]:
    """Print at once what is returned."""
    for line in lines:
        print(line, flush=True)
    return lines


def write(lines: Iterable[str], out: Path | None) -> None:
    """Take the report line by line, and keep it where that is wanted."""
    text = "\n".join(lines) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")


def searcher(collection: Collection, embedder: str = "onnx:bundled") -> Searcher:
    """The default first stage over a whole corpus, or one with another embedder."""
    return Searcher(
        collection.passages,
        embedder=load("embedders", embedder),
        sparse_encoder=load("sparse_encoders", "bm25"),
    )
