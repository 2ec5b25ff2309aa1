"""What LangChain's standard tests leave out: contracts for document compressors and cross-encoders.

class TestMyReranker(CompressorContract):
    @pytest.fixture
    def compressor(self):
        return MyReranker(top_n=3)
"""

from __future__ import annotations

import asyncio
import copy
import math
from typing import TYPE_CHECKING, ClassVar

from .contracts import TEXTS

if TYPE_CHECKING:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document

QUESTION = "How do I restore a backup?"
_ANSWER = 2


class CompressorContract:
    """What a reranking compressor must do; override the fixture `compressor`, which keeps three documents."""

    score_key: ClassVar[str | None] = "relevance_score"
    """Key of the metadata that holds the score; None where a compressor throws it away."""
    kept: ClassVar[int] = 3

    def documents(self) -> list[Document]:
        """One per text, each with its number."""
        from langchain_core.documents import Document

        return [
            Document(id=str(number), page_content=text, metadata={"number": number, "more": {"a": [1]}})
            for number, text in enumerate(TEXTS)
        ]

    def test_the_answer_is_first_and_the_best_are_kept(self, compressor: BaseDocumentCompressor) -> None:
        """As many as were asked for, and no more."""
        found = compressor.compress_documents(self.documents(), QUESTION)
        assert found[0].page_content == TEXTS[_ANSWER]
        assert len(found) == self.kept

    def test_text_metadata_and_id_stay_together(self, compressor: BaseDocumentCompressor) -> None:
        """Nothing is lost or exchanged on the way."""
        for document in compressor.compress_documents(self.documents(), QUESTION):
            number = document.metadata["number"]
            assert document.page_content == TEXTS[number]
            assert document.metadata["more"] == {"a": [1]}
            assert document.id == str(number)

    def test_what_was_given_stays_as_it_was(self, compressor: BaseDocumentCompressor) -> None:
        """The same documents can be given to another one, for another question."""
        given = self.documents()
        before = copy.deepcopy(given)
        compressor.compress_documents(given, QUESTION)
        compressor.compress_documents(given, "What is the largest animal?")
        assert given == before

    def test_order_of_input_does_not_matter(self, compressor: BaseDocumentCompressor) -> None:
        """To the two that share words with the question; the others may be equals."""
        straight = compressor.compress_documents(self.documents(), QUESTION)
        turned = compressor.compress_documents(self.documents()[::-1], QUESTION)
        assert [one.id for one in turned[:2]] == [one.id for one in straight[:2]]

    def test_equals_keep_their_order(self, compressor: BaseDocumentCompressor) -> None:
        """The same text twice is two documents, the first one first."""
        twice = [self.documents()[_ANSWER].model_copy(update={"id": name}) for name in ("first", "second")]
        found = compressor.compress_documents([*self.documents()[:2], *twice], QUESTION)
        assert [one.id for one in found[:2]] == ["first", "second"]

    def test_scores_are_finite_and_in_order(self, compressor: BaseDocumentCompressor) -> None:
        """And of every document that is kept."""
        if self.score_key is None:
            return
        found = compressor.compress_documents(self.documents(), QUESTION)
        scores = [one.metadata[self.score_key] for one in found]
        assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
        assert scores == sorted(scores, reverse=True)

    def test_none_and_one(self, compressor: BaseDocumentCompressor) -> None:
        """The empty and the smallest case."""
        assert list(compressor.compress_documents([], QUESTION)) == []
        (only,) = compressor.compress_documents(self.documents()[:1], QUESTION)
        assert only.page_content == TEXTS[0]

    def test_the_async_twin_gives_the_same(self, compressor: BaseDocumentCompressor) -> None:
        """In the same order."""
        found = asyncio.run(compressor.acompress_documents(self.documents(), QUESTION))
        assert list(found) == list(compressor.compress_documents(self.documents(), QUESTION))


class CrossEncoderContract:
    """What a cross-encoder must do; override the fixture `encoder`."""

    def test_the_answer_scores_highest(self, encoder: BaseCrossEncoder) -> None:
        """Among unlike texts."""
        scores = encoder.score([(QUESTION, text) for text in TEXTS])
        assert max(range(len(TEXTS)), key=scores.__getitem__) == _ANSWER

    def test_scores_belong_to_their_pairs(self, encoder: BaseCrossEncoder) -> None:
        """Also where questions alternate and texts repeat."""
        pairs = [
            (question, text) for text in (*TEXTS, TEXTS[0]) for question in (QUESTION, "the largest animal")
        ]
        order = sorted(range(len(pairs)), key=lambda place: (place * 7) % len(pairs))
        straight, mixed = encoder.score(pairs), encoder.score([pairs[place] for place in order])
        assert len(straight) == len(pairs)
        for place, score in zip(order, mixed, strict=True):
            assert math.isclose(score, straight[place], abs_tol=1e-4)
        assert math.isclose(straight[0], straight[-2], abs_tol=1e-4)

    def test_every_score_is_a_finite_number(self, encoder: BaseCrossEncoder) -> None:
        """Also of odd texts; of no pairs there are none."""
        odd = [(QUESTION, text) for text in ("", " ", "🦉", "word " * 2000)]
        assert all(math.isfinite(score) for score in encoder.score(odd))
        assert list(encoder.score([])) == []
