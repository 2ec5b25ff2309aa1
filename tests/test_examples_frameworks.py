"""The examples for LlamaIndex and Haystack run as they stand, with sockets off, and find what they should."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

EXAMPLES = Path(__file__).parent.parent / "examples"
QUESTION = "How do I restore a damaged index?"


def run(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, QUESTION])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    return capsys.readouterr().out


def shown(part: str) -> list[float]:
    return [float(number) for number in re.findall(r"^  (\d\.\d\d)  [\w-]+\.md: ", part, re.MULTILINE)]


def test_llamaindex(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, index, filtered = run("llamaindex_rerank.py", capsys, monkeypatch, tmp_path).split("\n\n")
    for part in (own, index):
        assert len(shown(part)) == 3
        assert shown(part) == sorted(shown(part), reverse=True)
        assert "repair" in part
    kept = filtered.splitlines()[1:]
    assert kept
    assert all("index-problems.md" in line for line in kept)


def test_haystack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, rest = run("haystack_pipeline.py", capsys, monkeypatch, tmp_path).split("\n\n", 1)
    index, prompt = rest.split("\n\n", 1)
    for part in (own, index):
        assert shown(part)
        assert shown(part) == sorted(shown(part), reverse=True)
        assert "repair" in part
    assert len(shown(own)) == 3
    assert prompt.startswith("Answer from these sources alone")
    assert f"Question: {QUESTION}" in prompt
    assert "[1] " in prompt
