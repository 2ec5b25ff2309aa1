"""The bundled reranker in floats, as for a GPU: the same network, so nearly the same scores."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from crossrag.registry import BUNDLED_MODELS
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.types import Scores

SCRIPT = Path(__file__).parents[2] / "scripts" / "float_reranker.py"


def test_it_ranks_as_the_integers_do(tmp_path: Path) -> None:
    bundled = BUNDLED_MODELS / "progressive-reranker"
    runpy.run_path(str(SCRIPT))["convert"](bundled, tmp_path)
    texts = ["Backups are restored by the script.", "The cat sleeps in winter.", "Backups are made at night."]
    first = [Scores(dense=0.6, sparse=5.0), Scores(dense=0.0, sparse=0.0), Scores(dense=0.5, sparse=3.0)]
    integers, floats = (
        ProgressiveReranker(folder).score("How do I restore a backup?", texts, first_stage=first)
        for folder in (bundled, tmp_path)
    )
    assert floats.logit == pytest.approx(integers.logit, abs=0.5)
    assert floats.logit != integers.logit
    assert ProgressiveReranker(bundled).fingerprint != ProgressiveReranker(tmp_path).fingerprint
