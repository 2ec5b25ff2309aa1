"""The contract of stores, as a class of tests: inherit it, override the fixture, and pytest runs it.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with closing(MyStore(tmp_path)) as store:
            yield store
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .contracts import TEXTS
from .filter_contract import FilterContract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.protocols import Store
    from crossrag.types import Chunk, SparseVector, StoredPoint


class StoreContract(FilterContract):
    """What every Store must do; override the fixture `store`, which is empty and 256 wide."""

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
        for limit in (1, 5, 11, 12, 100):
            assert [point.chunk for point in store.scan(limit=limit)] == chunks
        middle = chunks[4].id
        assert [point.chunk for point in store.scan(limit=2, after=middle)] == chunks[5:]
        only = [point.chunk for point in store.scan(limit=2, after=middle, where={"team": "red"})]
        assert only == [chunk for chunk in chunks[5:] if chunk.metadata["team"] == "red"]
        between = f"{middle[:-1]}f"
        assert [point.chunk for point in store.scan(limit=3, after=between)] == [
            chunk for chunk in chunks if chunk.id > between
        ]
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
