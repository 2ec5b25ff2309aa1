"""An index of the toy library, and its questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrag.evaluation.reading import read_dataset

from . import toys

if TYPE_CHECKING:
    from crossrag import Rag
    from crossrag.evaluation.dataset import Dataset


@pytest.fixture(scope="module")
def place(in_memory: Path) -> Path:
    """The folder of both."""
    docs = toys.library(in_memory)
    toys.questions(in_memory)
    with toys.made(in_memory) as rag:
        rag.ingest(docs)
    return in_memory


@pytest.fixture
def library(place: Path) -> Iterator[Rag]:
    """A Rag of fakes over the index."""
    with toys.made(place) as rag:
        yield rag


@pytest.fixture
def data(place: Path) -> Dataset:
    """The questions."""
    return read_dataset(place / "questions.jsonl")
