"""One contract per seam, as a class of tests: inherit it, override the fixture, and pytest runs it.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with closing(MyStore(tmp_path)) as store:
            yield store
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crossrag.types import Chunk, Scores

from .fakes import HashedEmbedder, HashedTerms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.protocols import Embedder, Reranker, Store
    from crossrag.types import SparseVector, StoredPoint

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

    def test_empty_and_odd_input(self, reranker: Reranker) -> None:
        """No texts give nothing; odd ones give finite scores."""
        assert reranker.score(self.query, [], first_stage=[]).relevance == ()
        odd = ("", " ", "🦉", "word " * 5000)
        said = reranker.score(self.query, odd, first_stage=self.first_stage(self.query, odd))
        assert all(map(math.isfinite, said.logit))


class StoreContract:
    """What every Store must do; override the fixture `store`, which is empty and 256 wide."""

    embedder = HashedEmbedder()
    terms = HashedTerms()

    def chunk(self, document: str, position: int, text: str, generation: str = "1") -> Chunk:
        """A chunk whose id says where it is from."""
        number = sum(f"{document}{generation}".encode()) * 1000 + position
        return Chunk(
            id=f"00000000-0000-4000-8000-{number:012d}",
            document_id=document,
            source=f"{document}.md",
            text=text,
            start=100 * position,
            end=100 * position + len(text),
            position=position,
            title_path=("Guide", document),
            page=position + 1,
            generation=generation,
            metadata={"team": "blue" if position % 2 else "red"},
        )

    def fill(
        self, store: Store, document: str = "doc", texts: tuple[str, ...] = TEXTS, generation: str = "1"
    ) -> list[Chunk]:
        """Write texts as the chunks of one document."""
        chunks = [self.chunk(document, position, text, generation) for position, text in enumerate(texts)]
        store.upsert(chunks, self.embedder.embed_documents(texts), self.terms.encode_documents(texts))
        return chunks

    def test_what_is_written_is_found_as_it_was(self, store: Store) -> None:
        """Every field of a chunk survives, in both legs."""
        chunks = self.fill(store)
        found = store.search(
            self.embedder.embed_query(TEXTS[2]), self.terms.encode_query(TEXTS[2]), limit=len(TEXTS)
        )
        assert found.dense[0].chunk == chunks[2]
        assert found.sparse[0].chunk == chunks[2]
        assert {hit.chunk.id for hit in found.dense} == {chunk.id for chunk in chunks}

    def test_every_hit_has_both_scores(self, store: Store) -> None:
        """A hit of one leg carries the other leg's score too: the same in both lists."""
        self.fill(store)
        query = "blue whale backup"
        vector = self.embedder.embed_query(query)
        found = store.search(vector, self.terms.encode_query(query), limit=2)
        expected = {
            text: float(row @ vector)
            for text, row in zip(TEXTS, self.embedder.embed_documents(TEXTS), strict=True)
        }
        for hit in (*found.dense, *found.sparse):
            assert math.isclose(hit.dense, expected[hit.chunk.text], abs_tol=1e-4)
        everything = store.search(vector, self.terms.encode_query(query), limit=len(TEXTS))
        sparse = {hit.chunk.id: hit.sparse for hit in everything.sparse}
        for hit in (*found.dense, *found.sparse):
            assert math.isclose(hit.sparse, sparse.get(hit.chunk.id, 0.0), abs_tol=1e-4)

    def test_a_leg_without_a_vector_is_empty(self, store: Store) -> None:
        """Nothing to look for gives nothing, not an error."""
        self.fill(store)
        assert store.search(self.embedder.embed_query("blue"), None, limit=3).sparse == ()
        assert store.search(None, self.terms.encode_query("blue"), limit=3).dense == ()
        assert store.search(None, self.terms.encode_query(""), limit=3).sparse == ()

    def test_filters_hold_in_both_legs(self, store: Store) -> None:
        """Before anything is ranked, not after."""
        self.fill(store)
        query = self.embedder.embed_query("blue"), self.terms.encode_query("blue")
        for where, wanted in (({"team": "red"}, {"red"}), ({"team": ["red", "blue"]}, {"red", "blue"})):
            found = store.search(*query, limit=10, where=where)
            assert {hit.chunk.metadata["team"] for hit in found.dense} == wanted
        found = store.search(*query, limit=1, where={"chunk_id": 3})
        assert [hit.chunk.position for hit in (*found.dense, *found.sparse)] == [3, 3]

    def test_writing_twice_replaces(self, store: Store) -> None:
        """Ids are the chunks' own."""
        self.fill(store)
        self.fill(store)
        assert store.count() == len(TEXTS)

    def test_deleting_a_document_leaves_the_others(self, store: Store) -> None:
        """And leaves the generation that is to be kept."""
        self.fill(store, "one", TEXTS[:2], generation="1")
        self.fill(store, "one", TEXTS[:3], generation="2")
        self.fill(store, "two")
        assert store.count("one") == 5
        store.delete_document("one", keep_generation="2")
        assert (store.count("one"), store.count("two")) == (3, len(TEXTS))
        assert {point.chunk.generation for point in store.scan(where={"document_id": "one"})} == {"2"}
        store.delete_document("one")
        assert (store.count("one"), store.count()) == (0, len(TEXTS))

    def test_hidden_generations_are_not_found(self, store: Store) -> None:
        """Left out before ranking, in both legs, together with a filter too; other documents' stay."""
        self.fill(store, "one", generation="old")
        self.fill(store, "one", generation="new")
        self.fill(store, "two", TEXTS[:1], generation="")
        query = self.embedder.embed_query(TEXTS[2]), self.terms.encode_query(TEXTS[2])
        for where, count in ((None, 7), ({"team": "red"}, 4)):
            found = store.search(*query, limit=20, where=where, hidden={"old"})
            assert len(found.dense) == count
            assert {hit.chunk.generation for hit in found.dense} == {"new", ""}
            assert {hit.chunk.generation for hit in found.sparse} == {"new", ""}
            nearest = store.search(*query, limit=1, where=where, hidden=["old"])
            assert [hit.chunk for hit in (*nearest.dense, *nearest.sparse)] == [found.dense[0].chunk] * 2
        nothing = store.search(*query, limit=4, hidden=["old", "new", ""])
        assert (nothing.dense, nothing.sparse) == ((), ())

    def test_a_scan_gives_everything_in_order_of_id(self, store: Store) -> None:
        """Whatever the size of its pages; from where one wants; filtered; hidden or not."""
        chunks = sorted(
            [*self.fill(store, "one"), *self.fill(store, "two", generation="2")], key=lambda chunk: chunk.id
        )
        for limit in (1, 5, 12, 100):
            assert [point.chunk for point in store.scan(limit=limit)] == chunks
        middle = chunks[4].id
        assert [point.chunk for point in store.scan(limit=2, after=middle)] == chunks[5:]
        only = [point.chunk for point in store.scan(limit=2, after=middle, where={"team": "red"})]
        assert only == [chunk for chunk in chunks[5:] if chunk.metadata["team"] == "red"]
        assert all(point.dense is None and point.sparse is None for point in store.scan())

    def test_what_a_scan_gives_can_be_written_again(self, store: Store) -> None:
        """Vectors come back as they went in; writing them again changes nothing."""
        chunks = self.fill(store)
        points = list(store.scan(with_vectors=True))
        by_id = {point.chunk.id: point for point in points}
        for chunk, row, terms in zip(
            chunks,
            self.embedder.embed_documents(TEXTS),
            self.terms.encode_documents(TEXTS),
            strict=True,
        ):
            stored = by_id[chunk.id]
            assert stored.dense is not None
            assert str(stored.dense.dtype) == "float32"
            assert float(abs(stored.dense - row).max()) < 1e-6
            assert stored.sparse == terms
        query = self.embedder.embed_query("backup"), self.terms.encode_query("backup")
        before = store.search(*query, limit=10)
        store.upsert(*self._columns(points))
        assert store.search(*query, limit=10) == before

    def _columns(
        self, points: list[StoredPoint]
    ) -> tuple[list[Chunk], NDArray[np.float32], list[SparseVector]]:
        import numpy as np

        rows = [point.dense for point in points if point.dense is not None]
        return (
            [point.chunk for point in points],
            np.stack(rows),
            [point.sparse for point in points if point.sparse is not None],
        )

    def test_neighbours_come_in_order(self, store: Store) -> None:
        """Of the same document and generation alone, itself included, none beyond the ends."""
        chunks = self.fill(store, "one")
        self.fill(store, "one", generation="2")
        self.fill(store, "two")
        assert store.neighbours(chunks[2], 1) == chunks[1:4]
        assert store.neighbours(chunks[0], 2) == chunks[:3]

    def test_an_empty_store_finds_nothing(self, store: Store) -> None:
        """A search before anything was written."""
        found = store.search(self.embedder.embed_query("x"), self.terms.encode_query("x"), limit=5)
        assert (found.dense, found.sparse, store.count()) == ((), (), 0)
