"""Model folders that are cut, altered or foreign are refused with the file's name and the way to mend it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from crossrag.errors import ConfigError, MissingExtraError, ModelError
from crossrag.registry import BUNDLED_MODELS, Backend, load
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.types import Scores

BUNDLED = BUNDLED_MODELS / "progressive-reranker"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def score(folder: Path) -> float:
    (logit,) = ProgressiveReranker(folder).score("cat", ["A cat."], first_stage=[Scores(dense=0.5)]).logit
    return logit


def test_the_first_stage_is_part_of_the_logit() -> None:
    reranker = ProgressiveReranker(BUNDLED)
    low, high = reranker.score(
        "cat", ["A cat."] * 2, first_stage=[Scores(dense=0.1), Scores(dense=0.5)]
    ).logit
    config = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))
    assert high - low == pytest.approx(config["first_stage"]["dense"] * 0.4, abs=1e-4)


def test_one_altered_byte_is_found(copied: Path) -> None:
    data = bytearray((copied / "layers-3-4.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copied / "layers-3-4.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"layers-3-4.onnx is damaged.*reinstall"):
        score(copied)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("layers-1-2.onnx", b"", "layers-1-2.onnx is empty"),
        ("layers-1-2.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("layers-5-6.onnx", b"\x08\x07 cut", "cannot be loaded"),
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


def test_unknown_backends_list_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'onnx'\? Choices: .*progressive"):
        load("rerankers", "onx:bundled")
    with pytest.raises(ConfigError, match="takes no model"):
        load("stores", "edge:there")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrag import registry

    absent = Backend("nowhere:Nothing", "", model="model", needs="no_such_package", extra="some")
    monkeypatch.setitem(registry.BACKENDS["generators"], "absent", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'crossrag\[some\]'"):
        load("generators", "absent:model")
