"""What the package promises as a whole: its public names, its weight, its honesty about the outside."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import crossrag

SOURCE = Path(crossrag.__file__).parent
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
ALLOWED_MODULES = {
    "loading/front_matter.py": {"yaml"},  # its safe loader, and that without references
    "rerankers/http.py": {"httpx"},
    "stores/qdrant_connection.py": {"httpx"},
    "rerankers/packed.py": {"torch"},
    "rerankers/sentence_transformers.py": {"torch"},
    "rerankers/torch.py": {"torch"},
    "training/grounding.py": {"torch"},
    "training/network.py": {"torch"},
    "training/losses.py": {"torch"},
    "training/loop.py": {"torch"},
}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "urllib.request", "requests", "httpx", "torch", "yaml"}


def test_public_names() -> None:
    public = {name for name in vars(crossrag) if not name.startswith("_") and name[0].isupper()}
    assert public == {
        *("Rag", "Settings"),
        *("Embedder", "SparseEncoder", "Reranker", "Store", "Grounder", "Generator"),
        *("Document", "Chunk", "Failure", "IngestReport", "Candidate", "Ranking", "Relevance", "Scores"),
        *(
            "Answer",
            "Citation",
            "Cited",
            "Claim",
            "Claimed",
            "Context",
            "Delta",
            "Done",
            "Event",
            "Retrieved",
        ),
        *("Source", "Turn", "Unsupported"),
        *("CrossragError", "UsageError", "ConfigError", "FingerprintError", "LoadError", "MissingExtraError"),
        *("ModelError", "GeneratorError", "StoreError", "StoreLockedError", "StoreSlowError"),
        "IndexMissingError",
    }


def test_importing_loads_no_heavy_library() -> None:
    heavy = ["numpy", "onnxruntime", "tokenizers", "qdrant_edge", "rich", "typer", "pypdf", "openai", "torch"]
    code = f"import sys, crossrag; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_files_and_functions_stay_small() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} is too long"


def test_no_pickle_no_eval_no_downloads() -> None:
    for path in SOURCE.rglob("*.py"):
        forbidden = FORBIDDEN_MODULES - ALLOWED_MODULES.get(path.relative_to(SOURCE).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, f"{path}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & forbidden, f"{path}:{node.lineno}"
            if isinstance(node, ast.ImportFrom):
                assert node.module not in forbidden, f"{path}:{node.lineno}"


def test_onnxruntime_tells_nobody(tmp_path: Path) -> None:
    """From 1.32 on it reports to its makers, and keeps in the home folder what it has to tell."""
    code = "from crossrag.registry import load; load('embedders', 'onnx:bundled').embed_query('x')"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], env=plain | {"HOME": str(tmp_path)}, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_bundled_models_are_what_their_sums_say() -> None:
    from crossrag.inference import OnnxModel

    folders = [path for path in (SOURCE / "models").iterdir() if path.is_dir()]
    assert len(folders) == 3
    for folder in folders:
        assert len(OnnxModel(folder).fingerprint) == 16
        assert (folder / "MODEL_CARD.md").is_file()
        assert sum(path.stat().st_size for path in folder.iterdir()) < 30e6
