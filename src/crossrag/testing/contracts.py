"""One contract per seam, as a class of tests: inherit it, override the fixture, and pytest runs it.

class TestMyEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self):
        return MyEmbedder()
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crossrag.types import Scores

from .fakes import HashedEmbedder

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Reranker

TEXTS = (
    "A backup is written every night at two and kept for thirty days.",
    "Whales are mammals; the blue whale is the largest animal that ever lived.",
    "To restore a backup, stop the service and run the restore command.",
    "The blue car was parked behind the old station.",
    "Short.",
    "Cats sleep for most of the day. " * 12,
)


class EmbedderContract:
    """What every Embedder must do; override the fixture `embedder`."""

    def test_rows_are_unit_vectors_in_order(self, embedder: Embedder) -> None:
        """Row i is text i, of the declared dimension and of length 1."""
        rows = embedder.embed_documents(TEXTS)
        assert rows.shape == (len(TEXTS), embedder.dimension)
        assert str(rows.dtype) == "float32"
        for row, text in zip(rows, TEXTS, strict=True):
            assert math.isclose(float(row @ row), 1.0, abs_tol=1e-4)
            assert float(row @ embedder.embed_documents([text])[0]) > 0.999

    def test_no_texts_give_no_rows(self, embedder: Embedder) -> None:
        """An empty batch keeps its width."""
        assert embedder.embed_documents([]).shape == (0, embedder.dimension)

    def test_a_question_is_nearest_to_its_passage(self, embedder: Embedder) -> None:
        """The least that search needs."""
        cosines = embedder.embed_documents(TEXTS) @ embedder.embed_query("restore a backup")
        assert int(cosines.argmax()) == 2

    def test_any_text_has_a_vector(self, embedder: Embedder) -> None:
        """Empty, blank, long and odd texts are embedded, not refused."""
        rows = embedder.embed_documents(["", " \n", "word " * 5000, "🦉 ünï 机器", "\u202e"])
        assert all(math.isfinite(float(value)) for row in rows for value in row)


class RerankerContract:
    """What every Reranker must do; override the fixture `reranker`."""

    query = "How do I restore a backup?"
    limited = False
    """Whether it reads only so many tokens, and cuts a longer question."""

    def first_stage(self, query: str, texts: tuple[str, ...]) -> list[Scores]:
        """Scores for rerankers that are residuals over the first stage."""
        embedder = HashedEmbedder()
        return [
            Scores(dense=float(row @ embedder.embed_query(query))) for row in embedder.embed_documents(texts)
        ]

    def test_the_answer_ranks_first(self, reranker: Reranker) -> None:
        """Among unlike passages the one that answers wins."""
        said = reranker.score(self.query, TEXTS, first_stage=self.first_stage(self.query, TEXTS))
        assert max(range(len(TEXTS)), key=said.logit.__getitem__) == 2
        assert all(0.0 <= value <= 1.0 for value in said.relevance)

    def test_scores_belong_to_their_texts(self, reranker: Reranker) -> None:
        """Permuting the texts permutes the scores, also where texts repeat."""
        texts = (*TEXTS, TEXTS[0])
        order = [3, 0, 6, 2, 5, 1, 4]
        shuffled = tuple(texts[position] for position in order)
        straight = reranker.score(self.query, texts, first_stage=self.first_stage(self.query, texts)).logit
        mixed = reranker.score(self.query, shuffled, first_stage=self.first_stage(self.query, shuffled)).logit
        for place, position in enumerate(order):
            assert math.isclose(mixed[place], straight[position], abs_tol=1e-4)
        assert math.isclose(straight[0], straight[6], abs_tol=1e-4)

    def test_a_score_does_not_depend_on_its_batch(self, reranker: Reranker) -> None:
        """Alone or in company, the same number."""
        scores = self.first_stage(self.query, TEXTS)
        together = reranker.score(self.query, TEXTS, first_stage=scores).logit
        for position, text in enumerate(TEXTS):
            alone = reranker.score(self.query, [text], first_stage=[scores[position]]).logit
            assert math.isclose(alone[0], together[position], abs_tol=1e-4)

    def test_a_long_question_leaves_room_for_the_passage(self, reranker: Reranker) -> None:
        """It is the question that is cut, and said to be; passages still tell themselves apart."""
        query = self.query + " Why?" * 3000
        texts = (TEXTS[2], TEXTS[1])
        said = reranker.score(query, texts, first_stage=[Scores(dense=0.1)] * 2)
        assert said.logit[0] != said.logit[1]
        assert said.truncated == (False, False)
        if self.limited:
            assert said.query_truncated

    def test_empty_and_odd_input(self, reranker: Reranker) -> None:
        """No texts give nothing; odd ones give finite scores."""
        assert reranker.score(self.query, [], first_stage=[]).relevance == ()
        odd = ("", " ", "🦉", "word " * 5000)
        said = reranker.score(self.query, odd, first_stage=self.first_stage(self.query, odd))
        assert all(map(math.isfinite, said.logit))
