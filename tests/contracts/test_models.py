"""Every embedder and reranker keeps its contract: the fakes, and the bundled models as they ship."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.errors import ModelError
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.testing import EmbedderContract, HashedEmbedder, OverlapReranker, RerankerContract
from crossrag.types import Scores

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Reranker


class TestHashedEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashedEmbedder()


class TestBundledEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return load("embedders", "onnx:bundled")

    def test_meaning_beats_words(self, embedder: Embedder) -> None:
        rows = embedder.embed_documents(["The physician saw her patient.", "The bank of the river flooded."])
        query = embedder.embed_query("a doctor treating a sick person")
        assert float(rows[0] @ query) > float(rows[1] @ query) + 0.3

    def test_a_vector_is_the_same_to_the_bit_alone_and_in_any_company(self, embedder: Embedder) -> None:
        text = "restore the backup of a blue whale in the office at nine or whenever it is open. "
        texts = [text[:length] * times for length in range(5, len(text), 6) for times in (1, 4, 9)]
        together = embedder.embed_documents(texts)
        one_thread = load("embedders", "onnx:bundled", threads=1)
        for size in (1, 2, 5):
            parts = [one_thread.embed_documents(texts[at : at + size]) for at in range(0, len(texts), size)]
            assert b"".join(part.tobytes() for part in parts) == together.tobytes(), size


class TestOverlapReranker(RerankerContract):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return OverlapReranker()


class TestBundledReranker(RerankerContract):
    limited = True

    @pytest.fixture(params=["progressive:bundled", "torch:bundled"])
    def reranker(self, request: pytest.FixtureRequest) -> Reranker:
        return load("rerankers", request.param, device="cpu")

    def test_the_answer_is_found_deep_in_a_long_passage(self, reranker: Reranker) -> None:
        filler = "The weather was mild and nothing happened. " * 60
        answer = "To restore a backup, stop the server and run the restore command."
        text = f"{filler}{answer} {filler}"
        said = reranker.score(self.query, [text, filler * 2], first_stage=[Scores(dense=0.3)] * 2)
        assert said.logit[0] > said.logit[1] + 1
        window = said.windows[0]
        assert window is not None
        assert answer in text[window[0] : window[1]]

    def test_without_a_first_stage_its_own_logit_counts(self, reranker: Reranker) -> None:
        said = reranker.score(self.query, ["To restore a backup, run restore.", "Cats sleep all day."])
        assert said.relevance[0] > said.relevance[1]


@pytest.fixture(scope="module")
def standard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights as one graph, as other makers ship theirs."""
    from crossrag.training.export import export_single
    from crossrag.training.network import from_exported

    folder = tmp_path_factory.mktemp("standard")
    bundled = BUNDLED_MODELS / "progressive-reranker"
    export_single(from_exported(bundled), folder / "model.onnx")
    shutil.copy(bundled / "tokenizer.json", folder)
    (folder / "config.json").write_text('{"batch_size": 4, "max_position_embeddings": 512}', encoding="utf-8")
    return folder


class TestOnnxReranker(RerankerContract):
    limited = True

    @pytest.fixture
    def reranker(self, standard_folder: Path) -> Reranker:
        return load("rerankers", f"onnx:{standard_folder}")

    def test_long_passages_are_cut_and_said_so(self, reranker: Reranker) -> None:
        assert reranker.score("cats", ["cat " * 2000, "cat"]).truncated == (True, False)

    def test_nothing_is_read_after_the_deadline(self, reranker: Reranker) -> None:
        said = reranker.score("cats", ["a", "b"], deadline=0.0)
        assert said.unread == (True, True)
        assert all(map(math.isnan, said.relevance))


@pytest.fixture(scope="module")
def saved_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A folder as `CrossEncoder.save` writes it; its forward pass is that of the bundled weights."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
    from transformers.modeling_outputs import SequenceClassifierOutput

    from crossrag.training.network import from_exported

    folder, bundled = tmp_path_factory.mktemp("saved"), BUNDLED_MODELS / "progressive-reranker"
    small = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1)
    BertForSequenceClassification(small).save_pretrained(folder)
    tokenizer = BertTokenizerFast(tokenizer_file=str(bundled / "tokenizer.json"), model_max_length=512)
    tokenizer.save_pretrained(folder)
    made = load("rerankers", f"sentence-transformers:{folder}", device="cpu")
    network = from_exported(bundled).eval()

    def forward(input_ids: Any, attention_mask: Any, token_type_ids: Any, **_: Any) -> Any:
        said = network.corrections(input_ids, attention_mask, token_type_ids)
        return SequenceClassifierOutput(logits=said[:, -1:])

    encoder: Any = made._encoder  # type: ignore[attr-defined]
    inner = next(m for m in encoder.modules() if type(m).__name__ == "BertForSequenceClassification")
    inner.forward = forward
    return made


class TestSentenceTransformersReranker(RerankerContract):
    limited = True

    @pytest.fixture
    def reranker(self, saved_cross_encoder: Reranker) -> Reranker:
        return saved_cross_encoder

    def test_long_passages_are_cut_and_said_so(self, reranker: Reranker) -> None:
        assert reranker.score("cats", ["cat " * 2000, "cat"]).truncated == (True, False)

    @pytest.mark.parametrize("words", [100, 260, 400])
    def test_a_question_is_cut_before_the_passage_is_blamed(self, reranker: Reranker, words: int) -> None:
        """The encoder would take from whichever is longer."""
        encoder: Any = reranker._encoder  # type: ignore[attr-defined]
        query, cut = reranker._cut("why " * words, 512)  # type: ignore[attr-defined]
        said = reranker.score("why " * words, ["cat " * 300, "cat", "cat " * 9_000])
        assert said.query_truncated is cut is (words > 254)
        assert said.truncated == (words > 209, False, True)
        ids = encoder.tokenizer(query, "cat " * 300, truncation=True, max_length=512)["input_ids"]
        (why,) = encoder.tokenizer("why", add_special_tokens=False)["input_ids"]
        assert ids.count(why) == min(words, 254)

    def test_nothing_is_read_after_the_deadline(self, reranker: Reranker) -> None:
        assert reranker.score("cats", ["a", "b"], deadline=0.0).unread == (True, True)


def test_sentence_transformers_never_downloads() -> None:
    with pytest.raises(ModelError, match="not a folder on this machine"):
        load("rerankers", "sentence-transformers:cross-encoder/ms-marco-MiniLM-L6-v2")


@pytest.mark.parametrize(
    "name", ["model-00002-of-00002.safetensors", "2_Dense/pytorch_model.bin", "vocab.txt"]
)
def test_every_file_of_a_model_of_sentence_transformers_counts(name: str, tmp_path: Path) -> None:
    from crossrag.rerankers.sentence_transformers import _digest

    for number in (1, 2):
        file = tmp_path / str(number) / name
        file.parent.mkdir(parents=True)
        file.write_text("weights", encoding="utf-8")
        (tmp_path / str(number) / "README.md").write_text(f"{number}", encoding="utf-8")
        (tmp_path / str(number) / ".cache").mkdir()
        (tmp_path / str(number) / ".cache" / "fetched.json").write_text(f"{number}", encoding="utf-8")
    before = _digest(tmp_path / "1")
    assert _digest(tmp_path / "2") == before
    (tmp_path / "2" / name).write_text("other weights", encoding="utf-8")
    assert _digest(tmp_path / "2") != before


def test_the_precision_is_part_of_a_fingerprint(saved_cross_encoder: Reranker) -> None:
    assert saved_cross_encoder.fingerprint.startswith("sentence-transformers-float32:")
