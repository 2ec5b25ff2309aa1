"""A grounding network learns, is written and read back the same; evidence is cut to what bears on it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag.calibration import Calibration
from crossrag.errors import UsageError
from crossrag.evidence import FEATURES, read
from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.training import grounding, grounding_export
from crossrag.training.grounding import Example, GroundingNetwork, GroundingOptions

from .toys import tiny

TOKENIZER = BUNDLED_MODELS / "progressive-reranker" / "tokenizer.json"
EVIDENCE = "The clinic opened in 1998 in Zurich. It treats 400 patients a year. Cats sleep all day."


def examples(pairs: list[tuple[str, bool]]) -> list[Example]:
    tokenizer = load_tokenizer(TOKENIZER)
    return [
        grounding.example(tokenizer, claim, EVIDENCE, supported=supported, most_words=40)
        for claim, supported in pairs
    ]


def test_what_bears_on_the_claim_is_read_in_order() -> None:
    filler = "Nothing of this matters to anybody here. " * 50
    found = read("The clinic treats 400 patients.", f"{filler}{EVIDENCE} {filler}", most_words=30)
    assert len(found.text.split()) <= 30
    assert found.text.index("clinic opened") < found.text.index("400 patients")


@pytest.mark.parametrize(
    ("name", "says", "does_not"),
    [
        ("covered", "The clinic treats patients.", "The school teaches pupils."),
        ("numbers_missing", "It opened in 1999.", "It opened in 1998."),
        ("names_missing", "The clinic is in Geneva.", "The clinic is in Zurich."),
        ("negated", "It does not treat patients.", "It does treat patients."),
        ("pairs", "The clinic opened.", "The patients opened."),
    ],
)
def test_features_say_what_they_are_called(name: str, says: str, does_not: str) -> None:
    number = FEATURES.index(name)
    assert read(says, EVIDENCE).features[number] > read(does_not, EVIDENCE).features[number]


@given(st.text(max_size=80), st.text(max_size=300), st.integers(1, 50))
def test_any_text_can_be_read(claim: str, evidence: str, words: int) -> None:
    found = read(claim, evidence, most_words=words)
    assert len(found.features) == len(FEATURES)
    assert all(0.0 <= value <= 1.0 for value in found.features)
    assert len(found.text.split()) <= words
    assert read(claim, evidence, most_words=words) == found


def test_a_network_learns_and_is_the_same_when_it_is_written(tmp_path: Path) -> None:
    network = GroundingNetwork(tiny().bert)
    known = examples(
        [("The clinic opened in 1998.", True), ("The clinic opened in 2011.", False)] * 8
        + [("Cats sleep all day.", True), ("Cats never sleep all day.", False)] * 8
    )
    options = GroundingOptions(
        steps=40, batch=8, encoder_rate=1e-3, head_rate=1e-3, scalar_rate=0.05, frozen_layers=0
    )
    grounding.train(network, {"toy": known}, options, checkpoint=tmp_path / "weights.safetensors")
    said = grounding.logits(network, known[:2])
    assert said[0] > said[1] + 0.5

    again = GroundingNetwork(tiny().bert)
    grounding.load(again, tmp_path / "weights.safetensors")
    np.testing.assert_allclose(grounding.logits(again, known[:2]), said, atol=1e-5)

    calibration = Calibration(0.5, 0.1)
    grounding_export.export(network, TOKENIZER, tmp_path / "model", calibration=calibration, most_words=40)
    served = load("grounders", f"onnx:{tmp_path / 'model'}", threads=1).support(
        [(EVIDENCE, "The clinic opened in 1998."), (EVIDENCE, "The clinic opened in 2011.")]
    )
    for probability, logit in zip(served, said, strict=True):
        assert math.isclose(probability, calibration.probability(float(logit)), abs_tol=0.02)


def test_one_label_alone_teaches_nothing(tmp_path: Path) -> None:
    network = GroundingNetwork(tiny().bert)
    with pytest.raises(UsageError, match="one label only"):
        grounding.train(
            network,
            {"toy": examples([("Cats sleep.", True)] * 4)},
            GroundingOptions(steps=1),
            checkpoint=tmp_path / "w.safetensors",
        )
