"""LlamaIndex with crossrag: its nodes reranked, an index of crossrag as its retriever. No LLM, no network.

pip install 'crossrag[llamaindex]'
python examples/llamaindex_rerank.py "How do I restore a damaged index?"
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llama_index.core import SummaryIndex
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

import crossrag
from crossrag import Rag
from crossrag.integrations.llamaindex import CrossRagRerank, CrossRagRetriever

GUIDE = Path(crossrag.__file__).parent / "examples"
FILES = ("index-problems.md", "moving-and-repairing.md", "incremental-ingest.md", "searching.md")


def main(question: str) -> None:
    """Both ways, one after the other."""
    nodes = [
        TextNode(text=paragraph, metadata={"source": name})
        for name in FILES
        for paragraph in (GUIDE / name).read_text(encoding="utf-8").split("\n\n")
    ]
    with tempfile.TemporaryDirectory() as folder, Rag.open(Path(folder) / "index") as rag:
        # Any retriever of LlamaIndex's; this one simply gives all nodes, so that nothing has to be embedded.
        found = SummaryIndex(nodes).as_retriever().retrieve(question)
        print(f"{len(found)} nodes of LlamaIndex, read by crossrag:")
        show(CrossRagRerank(rag, top_n=3).postprocess_nodes(found, query_str=question))

        rag.ingest(*(GUIDE / name for name in FILES))
        print("\nAn index of crossrag, hybrid and reranked:")
        show(CrossRagRetriever(rag, top_k=3).retrieve(question))

        only = MetadataFilters(filters=[MetadataFilter(key="source", value="index-problems.md")])
        print("\nThe same, of one document, as far as it is relevant:")
        show(CrossRagRetriever(rag, top_k=3, filters=only, relevant_only=True).retrieve(question))


def show(nodes: Sequence[NodeWithScore]) -> None:
    """Relevance, source, and the beginning of the text."""
    for one in nodes:
        text = " ".join(one.node.get_content().split())
        print(f"  {one.get_score():.2f}  {Path(one.node.metadata['source']).name}: {text[:70]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "How do I restore a damaged index?")
