"""The guide "Cross-Encoder RAG" from beginning to end: its code, with the imports changed.

    pip install 'crossrag[langchain,qdrant]'
    export OPENAI_API_KEY=…      # or OPENAI_BASE_URL=http://localhost:11434/v1 and MODEL=llama3.2
    python examples/guide.py documents/

Without a folder it reads the text files of crossrag's own user guide. Embeddings and reranker are bundled, so
only the language model needs a network. Set QDRANT_URL to keep the collection on a server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from langchain_openai import ChatOpenAI

import crossrag
from crossrag.integrations.langchain import (
    CrossRagEmbeddings,
    QdrantVectorStore,
    create_cross_encoder_chain,
    create_rag_with_sources,
    evaluate_rag,
    load_and_process_documents,
)

QUESTION = "What does exit code 3 mean?"
EXPECTED = "The index is missing, locked by another process, or cannot be read."


def main(folder: str) -> None:
    """Documents, store, retriever, chain, sources, evaluation."""
    # Initialize. The guide's embeddings, OpenAIEmbeddings(model="text-embedding-3-small"), go here as well.
    llm = ChatOpenAI(model=os.environ.get("MODEL", "gpt-4o-mini"), temperature=0)
    embeddings = CrossRagEmbeddings()

    # Document processing
    chunks = load_and_process_documents(folder)

    # Build vector store
    url = os.environ.get("QDRANT_URL")
    where = {"url": url} if url else {"location": ":memory:"}
    vectorstore = QdrantVectorStore.from_documents(
        documents=chunks, embedding=embeddings, index_name="my-rag-index", **where
    )

    # Cross-encoder retriever: 25 passages are fetched, all of them read, 6 unlike each other kept.
    retriever = vectorstore.as_retriever(
        search_type="mmr", search_kwargs={"k": 6, "fetch_k": 25, "lambda_mult": 0.7}
    )
    for document in retriever.invoke(QUESTION):
        print(f"{document.metadata['relevance_score']:.2f}  {Path(document.metadata['source']).name}")

    # RAG chain
    rag_chain = create_cross_encoder_chain(retriever, llm)
    answer = rag_chain.invoke(QUESTION)
    print(f"Answer: {answer}")

    # Streaming with sources: one search, sources first, then the answer word by word
    for piece in create_rag_with_sources(retriever, llm).stream(QUESTION):
        print(piece.get("answer") or "", end="", flush=True)
        if "sources" in piece:
            print(f"Sources: {', '.join(Path(source).name for source in piece['sources'])}")
    print()

    # Evaluation
    evaluate_rag(
        [
            {
                "question": QUESTION,
                "answer": answer,
                "contexts": [document.page_content for document in retriever.invoke(QUESTION)],
                "ground_truth": EXPECTED,
            }
        ]
    )
    vectorstore.client.close()


if __name__ == "__main__":
    bundled = Path(crossrag.__file__).parent / "examples"
    main(sys.argv[1] if len(sys.argv) > 1 else str(bundled))
