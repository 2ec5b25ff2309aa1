"""The same passages behind FastAPI, LangChain's retriever and its `CrossEncoderReranker`, with our weights.

Run by bench/serve.py; an endpoint as LangServe has it: `POST /invoke` with `{"input": QUESTION}`.
Needs bench/requirements.txt.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

from crossrag import Rag, Settings
from crossrag.config import IndexSettings
from crossrag.registry import BUNDLED_MODELS
from ingest_peer import _Dense, _Sparse
from weights import plug, read, standard_folder

_MODEL = BUNDLED_MODELS / "progressive-reranker"


def main() -> None:
    """Read the passages out of an index, serve them, say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # its local mode warns above 20 000 points
    with tempfile.TemporaryDirectory() as scratch:
        serve(retriever(arguments.index, Path(scratch)))


def retriever(index: Path, scratch: Path) -> Any:
    """As wide and as deep as crossrag by default."""
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_classic.retrievers.document_compressors.cross_encoder import BaseCrossEncoder
    from langchain_qdrant import QdrantVectorStore, RetrievalMode
    from sentence_transformers import CrossEncoder

    settings = Settings(index=IndexSettings(path=index))
    with Rag(settings) as rag:
        texts = [point.chunk.described for point in rag.store.scan()]
    store = QdrantVectorStore.from_texts(
        texts,
        _Dense("onnx:bundled"),
        sparse_embedding=_Sparse(),
        retrieval_mode=RetrievalMode.HYBRID,
        location=":memory:",
        collection_name="bench",
    )
    folder = standard_folder(_MODEL, scratch / "model", calibrated=True)
    encoder = CrossEncoder(str(folder), local_files_only=True)
    plug(encoder, read(_MODEL, calibrated=True))

    class Encoder(BaseCrossEncoder):
        def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
            scores: list[float] = encoder.predict(text_pairs, show_progress_bar=False).tolist()
            return scores

    wanted = settings.reranking
    return ContextualCompressionRetriever(
        base_compressor=CrossEncoderReranker(model=Encoder(), top_n=wanted.top_k),
        base_retriever=store.as_retriever(search_kwargs={"k": wanted.depth}),
    )


def serve(found: Any) -> None:
    """Until it is told to stop."""
    import socket
    import sys

    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/invoke")
    def invoke(asked: dict[str, Any]) -> dict[str, Any]:
        documents = found.invoke(str(asked["input"]))
        return {"output": [{"page_content": one.page_content, "metadata": one.metadata} for one in documents]}

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen(2_048)  # what is said next is asked at once
    sys.stderr.write(f"Listening at http://127.0.0.1:{taken.getsockname()[1]} (Ctrl-C ends it)\n")
    sys.stderr.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[taken])


if __name__ == "__main__":
    main()
