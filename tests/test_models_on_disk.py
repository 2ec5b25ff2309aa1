"""Model folders that are cut, altered or foreign are refused with the file's name and the way to mend it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from crossrag import assembly
from crossrag.config import RerankingSettings, Settings
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


@pytest.mark.parametrize(
    ("kind", "name"),
    [("embedders", "onnx:bundled"), ("rerankers", "progressive:bundled"), ("grounders", "onnx:bundled")],
)
def test_a_gpu_that_cannot_be_used_is_an_error(kind: Any, name: str) -> None:
    model = load(kind, name, device="cuda:1")
    with pytest.raises(ModelError, match=r"cuda:1 is wanted.*onnxruntime-gpu"):
        used(model)


def test_a_gpu_without_its_libraries_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime itself goes on without it, on the processor.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    model = load("embedders", "onnx:bundled", device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match="cuda cannot be used"):
            used(model)


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_cuda_is_chosen_where_there_is_one(monkeypatch: pytest.MonkeyPatch, device: str, number: int) -> None:
    asked = []

    class Session:
        def __init__(self, _path: str, _options: Any, *, providers: Any) -> None:
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    model = ProgressiveReranker(BUNDLED, device=device)
    assert isinstance(model._model._session("layers-1-2.onnx"), Session)
    assert asked == [[("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]]
    # Without a wish for it, the processor, also where there is a GPU.
    ProgressiveReranker(BUNDLED)._model._session("layers-1-2.onnx")
    assert asked[1] == ["CPUExecutionProvider"]


ONE_AFTER_THE_OTHER = """
from pathlib import Path
from crossrag.embedders.onnx import OnnxEmbedder
from crossrag.registry import BUNDLED_MODELS

held = []
for model in [OnnxEmbedder(BUNDLED_MODELS / "minilm-l6-embedder") for _ in range(3)]:
    model._model.config["batch_tokens"] = 8_192
    model.embed_query("cat")  # the weights are there
    model.embed_documents(["cat " * 250] * 32)
    held.append(int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024)
print(*held)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_models_share_the_memory_of_their_largest_batches() -> None:
    ran = subprocess.run([sys.executable, "-c", ONE_AFTER_THE_OTHER], check=True, capture_output=True)
    first, second, third = map(int, ran.stdout.split())
    # 32 texts of 256 tokens take some 300 MB; a session of its own would keep them for each model.
    assert second - first < 150
    assert third - second < 150


def test_the_processor_may_be_named() -> None:
    named, plain = load("embedders", "onnx:bundled", device="cpu"), load("embedders", "onnx:bundled")
    assert named.embed_query("cat").tolist() == plain.embed_query("cat").tolist()


def test_a_device_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="http runs on no device of its own"):
        assembly.reranker(Settings(reranking=RerankingSettings(model="http:tei", device="cuda")))


def used(model: Any) -> None:
    if hasattr(model, "embed_query"):
        model.embed_query("cat")
    elif hasattr(model, "support"):
        model.support([("A cat sat on the mat, and a dog did not.", "The dog is a cat in a hat.")])
    else:
        model.score("cat", ["A cat."])
