"""The same question of the same index: the same bytes, whatever process and hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .query_path import fake_rag

SCRIPT = """
import sys
from pathlib import Path
from crossrag.types import Turn
from tests.query_path import QUESTION, as_json, fake_rag

settings = {
    "expansion": {"methods": "feedback,variants,multi-query,hyde"},
    "retrieval": {"search_type": "mmr", "fetch_k": 5},
    "context": {"neighbours": 1, "order": "both-ends"},
}
model = lambda prompt: "old letters" if "conversation" in prompt else "restore command\\nfetch_k service"
history = [Turn(role="user", text="What is the Restore Command?"), Turn(role="assistant", text="A command.")]
with fake_rag(Path(sys.argv[1]), settings=settings, complete=model) as rag:
    print(as_json(rag.search(QUESTION, top_k=9)))
    print(as_json(rag.ask(QUESTION)))
    print(as_json(rag.ask("Where is it?", history=history)))
"""


def test_two_processes_say_the_same(tmp_path: Path) -> None:
    with fake_rag(tmp_path):
        pass
    said = []
    for seed in ("1", "4242"):
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout)
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 3
