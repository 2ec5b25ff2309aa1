"""A reranker of your own: trained on questions about your documents, and used only if it is better.

    pip install 'crossrag[training,langchain]'
    python examples/finetune.py documents/ judged.jsonl models/ours

`judged.jsonl` holds lines such as {"question": "…", "source": "docs/leave.md", "quote": "fourteen months"}.
A few hundred questions and an hour make a difference; what is not better on held-out questions is refused.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from crossrag import Rag
from crossrag.calibrating import read_judgements
from crossrag.integrations.langchain import CrossEncoderRetriever

REFUSED = 8
"""Exit code of `crossrag train` where the new model is not better."""


def main(folder: Path, judged: Path, out: Path, *more: str) -> None:
    """Index, train, search with what came of it."""
    index = out.resolve().parent / ".crossrag-finetune"
    with Rag.open(index) as rag:
        rag.ingest(folder)

    # The command, as you would type it; `more` are further options of it, such as --steps 500.
    command = ["crossrag", "train", "--judgements", judged, "--index", index, "--out", out, *more]
    print(*command)
    done = subprocess.run([sys.executable, "-m", *map(str, command)], check=False)
    if done.returncode not in {0, REFUSED}:
        sys.exit(done.returncode)
    reranker = f"progressive:{out}" if done.returncode == 0 else "progressive:bundled"

    # The trained model in a LangChain retriever, and everywhere else by the same name.
    with Rag.open(index, reranking={"model": reranker}) as rag:
        question = read_judgements(judged)[0].question
        print(f"{question} (by {reranker.partition(':')[0]}:{Path(reranker.partition(':')[2]).name})")
        for document in CrossEncoderRetriever(rag=rag, k=3).invoke(question):
            print(f"{document.metadata['relevance_score']:.2f}  {document.metadata['source']}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} FOLDER JUDGEMENTS OUT [options of crossrag train]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
