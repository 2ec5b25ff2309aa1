"""Every grounder keeps its contract: the fake, and the bundled model as it ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrag.errors import ModelError
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.testing import GrounderContract, OverlapGrounder

if TYPE_CHECKING:
    from crossrag.protocols import Grounder

EVIDENCE = "The clinic opened in 1998 in Zurich. Dr. Meyer directs it. It treats 400 patients a year."


class TestOverlapGrounder(GrounderContract):
    @pytest.fixture
    def grounder(self) -> Grounder:
        return OverlapGrounder()


@pytest.fixture(scope="module")
def bundled() -> Grounder:
    return load("grounders", "onnx:bundled", threads=1)


class TestBundledGrounder(GrounderContract):
    @pytest.fixture
    def grounder(self, bundled: Grounder) -> Grounder:
        return bundled

    @pytest.mark.parametrize(
        ("says", "does_not_say"),
        [
            ("The clinic opened in 1998.", "The clinic opened in 1989."),
            ("The clinic is in Zurich.", "The clinic is in Geneva."),
            ("The clinic treats 400 patients a year.", "The clinic does not treat patients."),
            ("Dr. Meyer directs the clinic.", "Dr. Keller directs the clinic."),
        ],
    )
    def test_one_changed_word_is_noticed(self, grounder: Grounder, says: str, does_not_say: str) -> None:
        yes, no = grounder.support([(EVIDENCE, says), (EVIDENCE, does_not_say)])
        assert yes > no + 0.05

    def test_another_kind_of_model_is_refused(self) -> None:
        with pytest.raises(ModelError, match="no grounding model"):
            load("grounders", f"onnx:{BUNDLED_MODELS / 'minilm-l6-embedder'}")

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "grounding"
        shutil.copytree(BUNDLED_MODELS / "grounding", folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["bias"] += 1
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ModelError, match="is damaged"):
            load("grounders", f"onnx:{folder}").support([("a", "b")])
