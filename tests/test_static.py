"""The static embedder keeps the contract of an embedder, and refuses what does not fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from crossrag.errors import ModelError
from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.testing import EmbedderContract

if TYPE_CHECKING:
    from crossrag.protocols import Embedder

TOKENIZER = BUNDLED_MODELS / "minilm-l6-embedder" / "tokenizer.json"
WORDS, SPECIAL = 30_522, 999


def folder(path: Path, *, rows: int = WORDS, **config: object) -> Path:
    """Random rows; those of special tokens and of the commonest words are short."""
    chance = np.random.default_rng(5)
    path.mkdir()
    scales = np.full(rows, 0.01, np.float32)
    scales[:SPECIAL] = 1e-4
    scales[SPECIAL : SPECIAL + 1_100] = 5e-4
    np.save(path / "table.npy", chance.integers(-127, 128, (rows, 64)).astype(np.int8), allow_pickle=False)
    np.save(path / "scales.npy", scales, allow_pickle=False)
    (path / "config.json").write_text(json.dumps({"max_tokens": 32, **config}), encoding="utf-8")
    shutil.copy(TOKENIZER, path)
    return path


class TestStaticEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, tmp_path: Path) -> Embedder:
        return load("embedders", f"static:{folder(tmp_path / 'm')}")

    def test_a_vector_is_the_sum_of_the_rows_of_its_tokens(self, embedder: Embedder, tmp_path: Path) -> None:
        table, scales = (np.load(tmp_path / "m" / f"{name}.npy") for name in ("table", "scales"))
        ids = load_tokenizer(TOKENIZER).encode("restore the backup").ids
        wanted = (table[ids] * scales[ids, np.newaxis]).sum(0)
        assert embedder.embed_query("restore the backup") == pytest.approx(
            wanted / np.linalg.norm(wanted), abs=1e-5
        )

    def test_what_is_beyond_the_limit_is_not_seen(self, embedder: Embedder) -> None:
        rows = embedder.embed_documents(["cat " * 31, "cat " * 31 + "dog " * 50])
        assert rows[0] == pytest.approx(rows[1])


class TestTranslatedCosines(EmbedderContract):
    @pytest.fixture
    def embedder(self, tmp_path: Path) -> Embedder:
        return load("embedders", f"static:{folder(tmp_path / 'm', cosine={'scale': 0.6, 'shift': 0.15})}")

    def test_cosines_are_scaled_and_shifted(self, embedder: Embedder, tmp_path: Path) -> None:
        plain = load("embedders", f"static:{folder(tmp_path / 'plain')}")
        texts = ["a copy of the data", "whales sing", ""]
        as_they_are = plain.embed_documents(texts) @ plain.embed_query("restore the backup")
        translated = embedder.embed_documents(texts) @ embedder.embed_query("restore the backup")
        assert translated == pytest.approx(0.6 * as_they_are + 0.15, abs=1e-5)
        assert np.linalg.norm(embedder.embed_documents(texts), axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("cosine", [{"scale": 1.2}, {"scale": 0.6, "shift": 0.5}, {"scale": 0.0}])
def test_cosines_that_no_vectors_have_are_refused(tmp_path: Path, cosine: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="cosines are to be"):
        load("embedders", f"static:{folder(tmp_path / 'm', cosine=cosine)}")


def test_a_table_that_does_not_fit_the_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 30522 tokens"):
        load("embedders", f"static:{folder(tmp_path / 'm', rows=100)}").embed_query("cat")


def test_a_cut_table_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "m")
    whole = (path / "table.npy").read_bytes()
    (path / "table.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="holds no token table"):
        load("embedders", f"static:{path}").embed_query("cat")
