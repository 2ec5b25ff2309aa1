"""Before a model reads: of long texts only what it can read is prepared, and the clock is looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrag import inference
from crossrag.blocks import in_blocks
from crossrag.embedders.onnx import OnnxEmbedder
from crossrag.freestanding import FreestandingReranker
from crossrag.inference import beginning, counted_by, load_tokenizer
from crossrag.registry import BUNDLED_MODELS
from crossrag.rerankers.onnx import OnnxReranker
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.rerankers.torch import TorchReranker
from crossrag.server.batching import shared
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.training.export import Fitted, export, export_single

from .training.toys import TOKENIZER, tiny

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.types import Relevance

TOKENS = load_tokenizer(TOKENIZER)
QUERY = "which letter is it"
WORDS = ("cat", "dog.", "unbelievably", "x" * 99, "y" * 250, "é" * 40, "机器学习", "e\u0301", "\n\n", "[SEP]")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks: `tiny/` with exits, `plain/` as other makers have them."""
    path = tmp_path_factory.mktemp("models")
    fitted = Fitted(margins=(0.0, 0.0), wanted=1)
    export(tiny(exits=(1, 2, 3)), TOKENIZER, path / "tiny", fitted=fitted, int8=False)
    (path / "plain").mkdir()
    export_single(tiny(), path / "plain" / "model.onnx")
    (path / "plain" / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (path / "plain" / "config.json").write_text('{"max_tokens": 64}', encoding="utf-8")
    return path


@pytest.fixture(params=["progressive", "torch", "onnx"])
def reranker(request: pytest.FixtureRequest, home: Path) -> Any:
    if request.param == "onnx":
        return OnnxReranker(home / "plain")
    if request.param == "torch":
        return TorchReranker(home / "tiny", device="cpu")
    return ProgressiveReranker(home / "tiny")


@pytest.fixture(params=["alone", "shared"])
def asked(request: pytest.FixtureRequest, reranker: Any) -> Iterator[Any]:
    """Who is asked; `reranker` is who reads."""
    one = shared(reranker, batch_tokens=1_024) if request.param == "shared" else reranker
    yield one
    if request.param == "shared" and hasattr(one, "close"):
        one.close()


class Watched:
    """A tokenizer that counts the batches that it is given, and takes its time for them."""

    def __init__(self, inner: Any, seconds: float = 0.0) -> None:
        self._inner, self._seconds = inner, seconds
        self.batches: list[int] = []
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, text: str, **named: Any) -> Any:
        self.longest = max(self.longest, len(text))
        return self._inner.encode(text, **named)

    def encode_batch(self, given: Sequence[Any]) -> Any:
        self.batches.append(len(given))
        texts = [one if isinstance(one, str) else one[1] for one in given]
        self.longest = max([self.longest, *map(len, texts)])
        time.sleep(self._seconds)
        return self._inner.encode_batch(given)


def watched(reranker: Any, seconds: float = 0.0) -> Watched:
    folder = reranker._model if hasattr(reranker, "_model") else reranker._folder
    folder.__dict__["tokenizer"] = made = Watched(load_tokenizer(TOKENIZER), seconds)
    return made


def same(one: Relevance, other: Relevance) -> None:
    assert (one.truncated, one.windows, one.unread) == (other.truncated, other.windows, other.unread)
    assert one.logit == other.logit


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.sampled_from(["", " "]), st.integers(1, 9)
)
def test_a_text_begins_with_the_same_tokens_however_it_is_cut(
    words: list[str], gap: str, tokens: int
) -> None:
    whole = gap.join(words) * 500
    part = beginning(whole, tokens, counted_by(TOKENS))
    assert whole.startswith(part)
    cut, uncut = (TOKENS.encode(text, add_special_tokens=False) for text in (part, whole))
    assert cut.ids[:tokens] == uncut.ids[:tokens]
    assert cut.offsets[:tokens] == uncut.offsets[:tokens]
    # Whether there are more can be seen too.
    assert len(cut.ids) > tokens or part == whole


def test_texts_in_blocks_are_the_texts() -> None:
    texts = ["a" * length for length in (3, 3, 9, 0, 1, 4, 4, 1)]
    blocks = [list(block) for block in in_blocks(texts, 8)]
    assert [text for block in blocks for text in block] == texts
    assert [sum(map(len, block)) for block in blocks] == [6, 9, 5, 5]
    assert list(in_blocks([], 8)) == []


@pytest.mark.parametrize("count", [40, 700, 720, 740, 2_000])
def test_what_is_said_of_a_long_text_is_what_the_whole_of_it_says(
    reranker: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around sixteen windows, and far beyond; a text with long words has fewer tokens than it seems."""
    texts = ["cat dog. " * (count // 2), ("z" * 300 + " ") * count, "机" * count, "short", ""]
    said = reranker.score(QUERY * 90, texts)
    for module in ("questions", "onnx"):
        monkeypatch.setattr(f"crossrag.rerankers.{module}.beginning", lambda text, *_, **__: text)
    monkeypatch.setattr(inference, "beginning", lambda text, *_, **__: text)
    same(said, reranker.score(QUERY * 90, texts))


def test_of_a_very_long_text_little_is_tokenized(reranker: Any) -> None:
    tokens = watched(reranker)
    said = reranker.score("why " * 100_000, ["cat dog tree. " * 100_000])
    assert said.truncated == (True,)
    assert said.query_truncated
    assert tokens.longest < 100_000


def test_after_the_deadline_nothing_is_tokenized(reranker: Any, asked: Any) -> None:
    tokens = watched(reranker)
    said = asked.score(QUERY, ["cat", "dog"], deadline=time.monotonic())
    assert said.unread == (True, True)
    assert said.truncated == (False, False)
    assert (tokens.batches, tokens.longest) == ([], 0)


def test_the_clock_is_looked_at_while_texts_are_tokenized(reranker: Any, asked: Any) -> None:
    tokens = watched(reranker, seconds=0.1)
    said = asked.score(QUERY, ["cat " * 2_000] * 100, deadline=time.monotonic() + 0.15)
    assert said.unread == (True,) * 100
    assert sum(tokens.batches) <= 8, tokens.batches
    # Without one, all of them are read.
    assert not any(asked.score(QUERY, ["cat " * 2_000] * 9).unread)


class Slow(HashedEmbedder):
    """Takes its time for every batch."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(0.1)
        return super().embed_documents(texts)


class NotAsked:
    fingerprint = "not asked"

    def score(self, *_: Any, **__: Any) -> Relevance:
        raise AssertionError("there is no time left")


def test_the_clock_is_looked_at_while_texts_get_their_first_stage() -> None:
    embedder = Slow()
    free = FreestandingReranker(NotAsked(), embedder=embedder, sparse_encoder=HashedTerms())
    texts = ["cat " * 500] * 100
    assert free.score(QUERY, texts, deadline=time.monotonic()).unread == (True,) * 100
    assert embedder.calls == 0
    assert free.score(QUERY, texts, deadline=time.monotonic() + 0.15).unread == (True,) * 100
    assert 0 < embedder.calls <= 4


def test_a_deadline_that_does_not_pass_changes_nothing(home: Path) -> None:
    inner = ProgressiveReranker(home / "tiny")
    free = FreestandingReranker(inner, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    texts = [f"which letter {'and more of it ' * (number * 40)}" for number in range(9)]
    said = free.score(QUERY, texts, deadline=time.monotonic() + 600)
    assert said == free.score(QUERY, texts)
    assert not any(said.unread)


def test_a_long_text_gets_the_vector_of_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = OnnxEmbedder(BUNDLED_MODELS / "minilm-l6-embedder")
    tokens = watched(embedder)
    texts = ["The weather was mild. " * 3_000, "é机" * 9_000]
    rows = embedder.embed_documents(texts)
    assert tokens.longest < 5_000
    monkeypatch.setattr("crossrag.embedders.onnx.beginning", lambda text, *_: text)
    assert embedder.embed_documents(texts).tobytes() == rows.tobytes()
