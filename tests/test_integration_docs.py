"""The code of docs/integrations.md runs as written; local servers stand in for Qdrant and the LLM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("langchain_qdrant", reason="needs the extra crossrag[langchain]")
pytest.importorskip("langchain_classic", reason="needs the dev group")

from .fake_openai import FakeOpenAI, answer
from .fake_qdrant import fake_qdrant
from .test_examples_langchain import run, whole

PAGE = Path(__file__).parent.parent / "docs" / "integrations.md"
SAID = "Run the restore command."


def snippets(section: str) -> list[str]:
    """The Python of one part of the page, in order."""
    found = re.search(
        rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return re.findall(r"```python\n(.*?)```", found[1], re.DOTALL)


def test_the_code_for_langchain_runs(tmp_path: Path, corpus: Path) -> None:
    (corpus / "restore.txt").write_text("To restore a backup, run the restore command.\n")
    code = snippets("LangChain")
    assert len(code) == 6
    with fake_qdrant() as qdrant, FakeOpenAI(whole(content=SAID), answer("Run", " it.")) as openai:
        script = "import warnings\nwarnings.simplefilter('ignore')\n" + "\n".join(code)
        assert "http://localhost:6333" in script
        (tmp_path / "page.py").write_text(
            script.replace("http://localhost:6333", qdrant.url), encoding="utf-8"
        )
        said = run("page.py", folder=tmp_path, server=openai)
    for expected in (SAID, "{'answer': ' it.'}", "docs/backup.md", "384", "langchain:ChatOpenAI"):
        assert expected in said
    assert "restore command" in said.splitlines()[-1]
