"""`crossrag demo`: the bundled user guide, indexed and asked."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from . import show

GUIDE = Path(__file__).parent.parent / "examples"
QUESTIONS = (
    "What happens when an ingestion is interrupted?",
    "How do I use a local model served by Ollama for the answers?",
    "What is the boiling point of liquid helium?",
)


def run(index: Path | None) -> None:
    """Index the guide at `index`, or in a folder that is removed afterwards, and ask three questions."""
    if index is not None:
        _run(index)
        return
    with tempfile.TemporaryDirectory(prefix="crossrag-demo-") as folder:
        _run(Path(folder) / "index")


def _run(index: Path) -> None:
    from crossrag.pipeline import Rag

    started = time.perf_counter()
    with Rag.open(index) as rag:
        print(f"$ crossrag ingest {GUIDE.name}/")
        with show.ingest_progress() as progress:
            show.report(rag.ingest(GUIDE, progress=progress), as_json=False)
        for question in QUESTIONS:
            print(f'\n$ crossrag ask "{question}"', flush=True)
            show.answer_stream(rag.stream(question), context=False)
    print(f"\nAll of it took {time.perf_counter() - started:.1f} s.")
    print("With your own documents: crossrag ingest PATH, then crossrag ask QUESTION")
