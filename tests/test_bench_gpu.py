"""`bench/gpu.py` counts right and says when there is nothing to measure with."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crossrag.inference import load_tokenizer

from .training.toys import TOKENIZER

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    sys.path.insert(0, str(BENCH))
    try:
        return runpy.run_path(str(BENCH / "gpu.py"))
    finally:
        sys.path.remove(str(BENCH))


def test_without_a_gpu_it_says_so_and_ends_with_2(
    bench: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        bench["main"]()
    assert ended.value.code == 2
    assert "no GPU" in capsys.readouterr().out


def test_operations_are_those_that_torch_counts(bench: dict[str, Any]) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=9, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
    )
    # Of fused attention torch counts nothing on the processor.
    config._attn_implementation = "eager"
    bert = BertModel(config, add_pooling_layer=False).eval()
    for length in (8, 48):
        ids = torch.ones((1, length), dtype=torch.long)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            bert(input_ids=ids)
        assert bench["flops"](length, config.to_dict()) == counted.get_total_flops()


def test_pairs_are_as_long_as_they_should_be(bench: dict[str, Any]) -> None:
    works = list(bench["_works"](load_tokenizer(TOKENIZER), [64, 200], 7))
    assert [work.name for work in works] == ["64", "200", "64-512"]
    assert [work.lengths for work in works[:2]] == [[64] * 7, [200] * 7]
    assert all(len(set(work.pairs)) == 7 for work in works)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA A10", None),
    ],
)
def test_cards_are_known_by_whole_words(
    bench: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert bench["_card"](torch.device("cuda"), None)[:2] == (name, peak)
    assert bench["_card"](torch.device("cuda"), 7.0)[:2] == (name, 7.0)


def test_a_rehearsal_says_that_it_is_one(
    bench: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--device cpu --lengths 64 --pairs 3 --rounds 1 --batch-sizes 2 --peak 0.1"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments.split()])
    bench["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert any("REHEARSAL" in line for line in lines)
    said = json.loads(lines[-1])
    assert said["kind"] == "rehearsal"
    for row in said["lengths"].values():
        assert row["logits_apart"]["most"] < 1e-3
        assert set(row["pairs_per_second"]) == {"ours", "ours from tokens", "sentence-transformers"}
        assert all(share > 0 for share in row["share_of_peak"].values())
