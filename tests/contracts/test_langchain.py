"""Compressors and cross-encoders, crossrag's and LangChain's own, keep the same contracts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain_classic", reason="needs the dev group")

from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.cross_encoders import BaseCrossEncoder

from crossrag import Rag, Settings
from crossrag.config import IndexSettings
from crossrag.integrations.langchain import CrossEncoderCompressor, CrossRagCrossEncoder
from crossrag.testing import (
    CompressorContract,
    CrossEncoderContract,
    HashedEmbedder,
    HashedTerms,
    OverlapReranker,
)
from crossrag.testing.fakes import words

if TYPE_CHECKING:
    from langchain_core.documents import BaseDocumentCompressor


@pytest.fixture(scope="module")
def bundled() -> Rag:
    """Models alone."""
    return Rag(Settings(index=IndexSettings(path=Path("nowhere"))))


class Overlap(BaseCrossEncoder):
    """Somebody else's: shared words."""

    def score(self, text_pairs: Any) -> list[float]:
        return [float(len({*words(question)} & {*words(text)})) for question, text in text_pairs]


class TestOurCompressor(CompressorContract):
    @pytest.fixture
    def compressor(self, bundled: Rag) -> BaseDocumentCompressor:
        return CrossEncoderCompressor(rag=bundled, top_n=3)


class TestOurCompressorWithAnotherReranker(CompressorContract):
    @pytest.fixture
    def compressor(self) -> BaseDocumentCompressor:
        rag = Rag(
            Settings(),
            reranker=OverlapReranker(),
            embedder=HashedEmbedder(),
            sparse_encoder=HashedTerms(),
        )
        return CrossEncoderCompressor(rag=rag, top_n=3)


class TestLangChainsCompressorWithOurCrossEncoder(CompressorContract):
    score_key = None

    @pytest.fixture
    def compressor(self, bundled: Rag) -> BaseDocumentCompressor:
        return CrossEncoderReranker(model=CrossRagCrossEncoder(bundled), top_n=3)


class TestLangChainsCompressor(CompressorContract):
    score_key = None

    @pytest.fixture
    def compressor(self) -> BaseDocumentCompressor:
        return CrossEncoderReranker(model=Overlap(), top_n=3)


class TestOurCrossEncoder(CrossEncoderContract):
    @pytest.fixture
    def encoder(self, bundled: Rag) -> BaseCrossEncoder:
        return CrossRagCrossEncoder(bundled)


class TestOurCrossEncodersLogits(CrossEncoderContract):
    @pytest.fixture
    def encoder(self, bundled: Rag) -> BaseCrossEncoder:
        return CrossRagCrossEncoder(bundled, score="logit")


class TestAnotherCrossEncoder(CrossEncoderContract):
    @pytest.fixture
    def encoder(self) -> BaseCrossEncoder:
        return Overlap()
