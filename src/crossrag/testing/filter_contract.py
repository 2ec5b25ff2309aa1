"""What a filter must mean in every store: the same as `memory_store.matches` says in Python."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from crossrag import filters
from crossrag.errors import UsageError
from crossrag.types import Chunk

from .contracts import TEXTS
from .fakes import HashedEmbedder, HashedTerms
from .memory_store import matches

if TYPE_CHECKING:
    from crossrag.protocols import Store

METADATA: tuple[dict[str, Any], ...] = (
    {"team": "blue", "year": 2020, "price": 9.5, "date": "2024-01-01", "draft": False, "tag": ["a", "b"]},
    {"team": "Blue", "year": 2021, "price": 10, "date": "2024-01-01T10:00:00Z", "draft": True, "tag": ["b"]},
    {"team": "blueish", "year": 2021.5, "date": "2024-01-02T00:30:00+02:00", "tag": []},
    {"team": ["red", "blue/north"], "year": "2021", "date": "yesterday", "area": {"name": "north", "no": 7}},
    {
        "year": [2019, 2023],
        "date": ["2023-05-05", "2025-05-05 12:00"],
        "draft": "true",
        "area": {"name": "n"},
    },
    {"year": True, "price": 0.0, "team": 7, "date": "2024-02-29T23:59:59.5Z", "some-key": "x"},
    {"year": None, "team": None, "area": {"name": ["north", "south"], "no": -1}},
    {"date": "2024-01-01T10:00", "year": 2021.0, "team": "", "tag": ["ä", "B", "a b"]},
    {},
)
WHERE: tuple[dict[str, Any], ...] = (
    {},
    {"team": "blue"},
    {"team": ["blue", "red"]},
    {"team": 7},
    {"tag": "b", "draft": True},
    {"draft": False},
    {"draft": "true"},
    {"year": 2021},
    {"year": [2021, 2019]},
    {"year": "2021"},
    {"year": {"gte": 2020, "lt": 2024}},
    {"year": {"gt": 2020.5}},
    {"price": {"lte": 10}},
    {"price": 9.5},
    {"date": {"gte": "2024-01-01"}},
    {"date": {"gt": "2024-01-01", "lt": "2024-01-02"}},
    {"date": {"lte": "2024-01-01T10:00:00Z"}},
    {"date": {"gte": "2024-01-01T22:30:00Z", "lte": "2024-01-01T22:30:00Z"}},
    {"date": "2024-01-01"},
    {"date": {"prefix": "2024-01"}},
    {"team": {"prefix": "blue"}},
    {"team": {"prefix": "blue/"}},
    {"source": {"prefix": "meta"}},
    {"area.name": "north"},
    {"area.no": {"gte": 0}},
    {"some-key": "x"},
    {"nothing": "x"},
    {"not": {"team": "blue"}},
    {"not": {"year": {"gte": 0}}},
    {"or": [{"team": "blue"}, {"year": {"lt": 2020}}]},
    {"and": [{"tag": "a"}, {"not": {"draft": True}}]},
    {"not": {"or": [{"tag": "a"}, {"not": {"year": 2021}}]}},
    {"page": {"gte": 2, "lt": 4}, "chunk_id": [1, 2, 3]},
)


class FilterContract:
    """Filters of a Store; override the fixture `store`, which is empty and 256 wide."""

    seed = 20260101

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

    def fill_with_metadata(self, store: Store) -> list[Chunk]:
        """One chunk for each metadata; not the plainest first, which would decide what is indexed."""
        chunks = [
            replace(self.chunk("meta", position, TEXTS[position % len(TEXTS)]), metadata=metadata)
            for position, metadata in enumerate(METADATA)
        ]
        texts = [chunk.text for chunk in chunks]
        dense, sparse = self.embedder.embed_documents(texts), self.terms.encode_documents(texts)
        for position in (4, 2, 0, 1, 3, 5, 6, 7, 8):
            row = slice(position, position + 1)
            store.upsert(chunks[row], dense[row], sparse[row])
        return chunks

    def check_filter(self, store: Store, chunks: list[Chunk], where: dict[str, Any]) -> None:
        """The store finds what the reference says."""
        tree = filters.parse(where)
        expected = [
            chunk.position for chunk in chunks if tree is None or matches(tree, chunk.payload()["metadata"])
        ]
        found = sorted(point.chunk.position for point in store.scan(where=where))
        assert found == expected, where

    def test_filters_mean_the_same_everywhere(self, store: Store) -> None:
        """Whatever types stand under a key, and whichever of them came first."""
        chunks = self.fill_with_metadata(store)
        for where in WHERE:
            self.check_filter(store, chunks, where)

    def test_random_filters_mean_the_same_everywhere(self, store: Store) -> None:
        """Nested at random; the seed is in the message."""
        chunks = self.fill_with_metadata(store)
        chance = random.Random(self.seed)  # noqa: S311 - tests, not secrets
        print(f"seed {self.seed}")  # noqa: T201 - shown where the test fails
        for _ in range(150):
            self.check_filter(store, chunks, random_filter(chance))

    def test_filters_hold_for_both_legs(self, store: Store) -> None:
        """Before anything is ranked, not after."""
        chunks = self.fill_with_metadata(store)
        query = self.embedder.embed_query(TEXTS[0]), self.terms.encode_query(TEXTS[0])
        for where in ({"year": {"lt": 2020}}, {"not": {"tag": "b"}}, {"team": {"prefix": "blu"}}):
            expected = {point.chunk.id for point in store.scan(where=where)}
            found = store.search(*query, limit=len(chunks), where=where)
            assert {hit.chunk.id for hit in found.dense} == expected
            assert {hit.chunk.id for hit in found.sparse} <= expected
            one = store.search(*query, limit=1, where=where)
            assert [hit.chunk for hit in one.dense] == [found.dense[0].chunk]

    def test_what_is_no_filter_is_refused(self, store: Store) -> None:
        """At the lowest layer too."""
        query = self.embedder.embed_query("blue"), self.terms.encode_query("blue")
        refused: list[dict[str, Any]] = [{"team": {"gte!": 1}}, {"a; DROP": "b"}, {"or": []}, {"team": None}]
        for where in refused:
            with pytest.raises(UsageError):
                store.search(*query, limit=1, where=where)
            with pytest.raises(UsageError):
                list(store.scan(where=where))


def random_filter(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """A valid filter over `METADATA`."""
    kind = chance.choice(["plain", "plain", "range", "or", "and", "not"][: 6 if depth < 3 else 3])
    if kind == "not":
        return {"not": random_filter(chance, depth + 1)}
    if kind in {"or", "and"}:
        return {kind: [random_filter(chance, depth + 1) for _ in range(chance.randint(1, 3))]}
    plain = [entry for where in WHERE for entry in where.items() if entry[0] not in {"and", "or", "not"}]
    key, value = chance.choice(plain)
    other = dict([chance.choice(plain)]) if kind == "range" else {}
    return {**other, key: value}
