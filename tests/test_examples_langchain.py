"""The examples run: all is real but the language model, which a server on the loopback stands in for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs the extra crossrag[langchain]")

from .fake_openai import FakeOpenAI, Reply, answer

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SAID = "Exit code 3 means that the index cannot be read. [Source: exit-codes.txt]"


def whole(**message: Any) -> Reply:
    """A reply that is not streamed."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": None} | message,
    }
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(headers={"Content-Type": "application/json"}, parts=(json.dumps(body).encode(),))


def run(*command: str | Path, folder: Path, server: FakeOpenAI | None = None) -> str:
    """What a command printed."""
    address = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "none"} if server else {}
    environ = {name: value for name, value in os.environ.items() if name not in {"QDRANT_URL", "MODEL"}}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environ | address | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guide_from_beginning_to_end(tmp_path: Path) -> None:
    with FakeOpenAI(whole(content=SAID), answer(*SAID.split(" "))) as server:
        said = run(EXAMPLES / "guide.py", folder=tmp_path, server=server)
    lines = said.splitlines()
    assert lines[0].startswith("Created ")
    assert lines[0].endswith(" documents")
    assert lines[1].endswith("  exit-codes.txt")
    assert f"Answer: {SAID}" in lines
    sources, streamed = lines[lines.index(f"Answer: {SAID}") + 1 :][:2]
    assert sources.startswith("Sources: exit-codes.txt")
    assert streamed == SAID.replace(" ", "")
    assert lines[-5].startswith("Judged by models of this machine")
    assert [line.split(":")[0] for line in lines[-4:]] == [
        "Faithfulness",
        "Answer Relevancy",
        "Context Precision",
        "Context Recall",
    ]
    for asked in server.requests:
        assert "exit-codes.txt" in str(asked.body["messages"][0]) or "cannot be read" in str(asked.body)


NOTEBOOK = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text") or output.get("data", {}).get("text/plain", ""))
"""


def test_the_notebook_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="needs the dev group")
    with FakeOpenAI(whole(content=SAID), answer(*SAID.split(" "))) as server:
        said = run("-c", NOTEBOOK, EXAMPLES / "guide.ipynb", folder=tmp_path, server=server)
    assert SAID in said
    assert "Sources: exit-codes.txt" in said
    assert "Context Recall: " in said
    kept = json.loads((EXAMPLES / "guide.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in kept["cells"]), "a notebook is kept without outputs"


def test_an_agent_searches_by_mcp_before_it_answers(tmp_path: Path, corpus: Path) -> None:
    pytest.importorskip("mcp", reason="needs the extra crossrag[mcp]")
    function = {"name": "search", "arguments": json.dumps({"query": "restore a backup", "top_k": 1})}
    call = {"id": "call-1", "type": "function", "function": function}
    said = "Stop the service and run the restore command (docs/backup.md)."
    with FakeOpenAI(whole(tool_calls=[call]), whole(content=said)) as server:
        printed = run(
            EXAMPLES / "agent_mcp.py", corpus, "How do I restore a backup?", folder=tmp_path, server=server
        )
    assert printed.strip() == said
    first, second = server.requests
    assert {tool["function"]["name"] for tool in first.body["tools"]} >= {"search", "fetch", "ask"}
    found = json.loads(second.body["messages"][-1]["content"])
    assert second.body["messages"][-1]["tool_call_id"] == "call-1"
    assert "run the restore command" in found["results"][0]["text"]


ANIMALS = (
    "owl",
    "fox",
    "bear",
    "wolf",
    "seal",
    "crane",
    "otter",
    "mole",
    "hare",
    "lynx",
    "newt",
    "boar",
    "toad",
    "crow",
    "stork",
    "trout",
    "swan",
    "goat",
    "shrew",
    "viper",
)
FACTS = {
    "Where does the {} live?": "The {} lives beside the river number {}.",
    "What does the {} eat?": "Its food: every {} likes to eat fruit of kind {}.",
    "When does the {} sleep?": "In the month number {1} every {0} goes to sleep.",
}


def test_a_reranker_is_trained_and_used(tmp_path: Path) -> None:
    for module in ("torch", "transformers", "onnx", "safetensors"):
        pytest.importorskip(module, reason="needs the extra crossrag[training]")
    from .training.toys import folder_of_judgements

    docs, general = tmp_path / "docs", tmp_path / "general"
    docs.mkdir()
    rows: list[dict[str, str]] = []
    for number, animal in enumerate(ANIMALS):
        for question, fact in FACTS.items():
            name = f"{animal}-{len(rows)}.txt"
            (docs / name).write_text(fact.format(animal, number) + "\n")
            rows.append({"question": question.format(animal), "source": f"docs/{name}"})
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder_of_judgements(general)
    said = run(
        *(EXAMPLES / "finetune.py", docs, tmp_path / "judged.jsonl", tmp_path / "ours"),
        *("--steps", "2", "--general", general),
        folder=tmp_path,
    )
    assert "held-out questions" in said
    assert "Accepted" in said or "Refused" in said
    assert said.splitlines()[-1].count("docs/") == 1
