"""The exported model says what the network says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from crossrag.exported import read_weights
from crossrag.inference import feeds
from crossrag.registry import load
from crossrag.training.export import export, export_single
from crossrag.training.network import from_exported
from crossrag.types import Scores

from .toys import TOKENIZER, plain_tokenizer, tiny

PAIRS = [
    ("what is it", "A cat."),
    ("why", "Because of the rain " * 9),
    ("who was he at all", ""),
    ("it", "x " * 30),
]


@pytest.mark.parametrize("int8", [False, True])
def test_the_exported_model_says_what_the_network_says(tmp_path: Path, *, int8: bool) -> None:
    network = tiny()
    export(network, TOKENIZER, tmp_path / "m", int8=int8)
    reranker = load("rerankers", f"progressive:{tmp_path / 'm'}")
    tokenizer = plain_tokenizer()
    tokenizer.enable_truncation(64, strategy="only_second")
    inputs = {key: torch.from_numpy(a) for key, a in feeds(tokenizer.encode_batch(PAIRS)).items()}
    with torch.no_grad():
        wanted = network(**inputs, first_stage=torch.tensor([[0.5, 1.0]] * len(PAIRS))).logits.numpy()
    for row, (query, text) in enumerate(PAIRS):
        root = len(query.split()) ** 0.5
        said = reranker.score(query, [text], first_stage=[Scores(dense=0.5, sparse=root)])
        assert said.by_exit[0] == pytest.approx(wanted[row].tolist(), abs=0.15 if int8 else 2e-4)


def test_a_model_folder_becomes_a_network_again(tmp_path: Path) -> None:
    network = tiny()
    export(network, TOKENIZER, tmp_path / "m")
    again = from_exported(tmp_path / "m")
    assert again.exits == network.exits
    for (name, one), (_, other) in zip(network.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.allclose(one, other, atol=float(one.abs().max()) / 50 + 1e-6), name
    export(again, TOKENIZER, tmp_path / "n")
    first, second = read_weights(tmp_path / "m")[0], read_weights(tmp_path / "n")[0]
    # What was rounded once stays where it is.
    assert all(np.allclose(first[name], second[name], rtol=0, atol=1e-6) for name in first)


def test_other_programs_get_one_graph_with_logits(tmp_path: Path) -> None:
    import onnxruntime

    network = tiny()
    export_single(network, tmp_path / "model.onnx", int8=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = feeds(plain_tokenizer().encode_batch(PAIRS[:2]))
    (logits,) = session.run(["logits"], inputs)
    with torch.no_grad():
        wanted = network.corrections(**{key: torch.from_numpy(a) for key, a in inputs.items()})[:, -1:]
    assert logits == pytest.approx(wanted.numpy(), abs=2e-4)
