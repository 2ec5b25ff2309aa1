"""Model folders that are cut, altered or foreign are refused with the file's name and the way to mend it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from crossrag.errors import ConfigError, MissingExtraError, ModelError
from crossrag.registry import BUNDLED_MODELS, Backend, load
from crossrag.rerankers.onnx import OnnxReranker
from crossrag.types import Scores

BUNDLED = BUNDLED_MODELS / "progressive-reranker"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def score(folder: Path) -> float:
    (logit,) = OnnxReranker(folder).score("cat", ["A cat."], first_stage=[Scores(dense=0.5)]).logit
    return logit


def test_any_folder_with_model_and_tokenizer_works(copied: Path) -> None:
    (copied / "SHA256SUMS").unlink()
    (copied / "config.json").unlink()
    bare = OnnxReranker(copied).score("cat", ["A cat."]).logit[0]
    config = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))
    # Without its config it is no residual: its own last logit is what counts.
    assert score(BUNDLED) == pytest.approx(bare + config["residual"]["dense"] * 0.5, abs=1e-4)


def test_one_altered_byte_is_found(copied: Path) -> None:
    data = bytearray((copied / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copied / "model.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"model.onnx is damaged.*reinstall"):
        score(copied)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.onnx", b"", "model.onnx is empty"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("model.onnx", b"\x08\x07 cut", "cannot be loaded"),
        ("tokenizer.json", b"{}", "is no tokenizer"),
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"[]", "JSON object"),
    ],
)
def test_broken_files_are_named(copied: Path, name: str, content: bytes, says: str) -> None:
    (copied / "SHA256SUMS").unlink()
    (copied / name).write_bytes(content)
    with pytest.raises(ModelError, match=says):
        score(copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        score(copied)


def test_a_residual_asks_for_its_first_stage() -> None:
    with pytest.raises(ModelError, match="first_stage"):
        OnnxReranker(BUNDLED).score("cat", ["A cat."])


def test_unknown_backends_list_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'onnx'\? Choices: onnx"):
        load("rerankers", "onx:bundled")
    with pytest.raises(ConfigError, match="takes no model"):
        load("stores", "edge:there")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrag import registry

    absent = Backend("nowhere:Nothing", "", model="model", needs="no_such_package", extra="some")
    monkeypatch.setitem(registry.BACKENDS["generators"], "absent", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'crossrag\[some\]'"):
        load("generators", "absent:model")
