"""Haystack 3 with crossrag: documents of its own store reranked, and an index of crossrag in a pipeline.

    pip install 'crossrag[haystack]'
    HAYSTACK_TELEMETRY_ENABLED=False python examples/haystack_pipeline.py "How do I restore a damaged index?"

No LLM, no network: the pipeline ends with the prompt that a generator would be given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Read when haystack is imported; without it usage figures are sent.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

import crossrag
from crossrag import Rag
from crossrag.integrations.haystack import CrossRagRanker, CrossRagRetriever

GUIDE = Path(crossrag.__file__).parent / "examples"
FILES = ("index-problems.md", "moving-and-repairing.md", "incremental-ingest.md", "searching.md")
PROMPT = """Answer from these sources alone, and cite them.
{% for document in documents %}
[{{ loop.index }}] {{ document.meta.location }}
{{ document.content }}
{% endfor %}
Question: {{ question }}
"""


def main(question: str) -> None:
    """Both ways, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder) / "index")
        with Rag.open(index) as rag:
            rag.ingest(*(GUIDE / name for name in FILES))
        print("Documents of Haystack's store, read by crossrag:")
        show(
            of_haystack().run({"bm25": {"query": question}, "ranker": {"query": question}})["ranker"][
                "documents"
            ]
        )

        pipeline = of_crossrag(index)
        # A pipeline in a file names classes; whoever loads it says which modules may be imported.
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["crossrag.integrations.haystack"])
        said = pipeline.run(
            {"retriever": {"query": question}, "prompt": {"question": question}},
            include_outputs_from={"retriever"},
        )
        print("\nAn index of crossrag, hybrid and reranked:")
        show(said["retriever"]["documents"])
        print(f"\n{said['prompt']['prompt']}")
        pipeline.close()


def of_haystack() -> Pipeline:
    """BM25 in memory, then crossrag's reranker."""
    store = InMemoryDocumentStore()
    store.write_documents(
        [
            Document(content=paragraph, meta={"source": name})
            for name in FILES
            for paragraph in (GUIDE / name).read_text(encoding="utf-8").split("\n\n")
        ]
    )
    pipeline = Pipeline()
    pipeline.add_component("bm25", InMemoryBM25Retriever(store, top_k=30))
    pipeline.add_component("ranker", CrossRagRanker(top_k=3))
    pipeline.connect("bm25.documents", "ranker.documents")
    return pipeline


def of_crossrag(index: str) -> Pipeline:
    """Search, rerank, and write the prompt."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", CrossRagRetriever(index=index, top_k=3, relevant_only=True))
    pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables=["documents", "question"]))
    pipeline.connect("retriever.documents", "prompt.documents")
    return pipeline


def show(documents: Sequence[Document]) -> None:
    """Relevance, source, and the beginning of the text."""
    for one in documents:
        text = " ".join((one.content or "").split())
        print(f"  {one.score or 0.0:.2f}  {Path(one.meta['source']).name}: {text[:70]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "How do I restore a damaged index?")
