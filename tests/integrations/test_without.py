"""Without a framework crossrag works, and the adapter for it says how to get it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"llama_index", "haystack", "langchain", "langchain_core"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import crossrag, crossrag.pipeline, crossrag.integrations, crossrag.integrations.ranking
from crossrag.errors import MissingExtraError
try:
    import crossrag.integrations.%s
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("adapter", "package"), [("llamaindex", "llama-index-core"), ("haystack", "haystack-ai")]
)
def test_a_missing_framework_names_its_extra(adapter: str, package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED % adapter], capture_output=True, text=True, check=True
    )
    assert package in done.stdout
    assert f"pip install 'crossrag[{adapter}]'" in done.stdout


def test_what_is_broken_within_a_framework_is_not_taken_for_a_missing_one() -> None:
    code = BLOCKED.replace('"llama_index", ', '"pydantic_core", ') % "llamaindex"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "pydantic_core" in done.stderr
    assert "crossrag[llamaindex]" not in done.stdout
