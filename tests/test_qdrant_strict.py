"""A server that refuses filters on keys without an index, and more than 100 indexes, as Qdrant Cloud does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crossrag.errors import StoreError
from crossrag.stores.adopted import AdoptedStore
from crossrag.stores.points import SERVED_INDEXES
from crossrag.testing import HashedEmbedder

from .crashing import opened as opened_rag
from .fake_qdrant import FakeQdrant, fake_qdrant
from .test_qdrant import chunk, opened, write

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        served.strict = True
        yield served


DOCUMENTED: tuple[tuple[dict[str, Any], bool], ...] = (
    ({"source": "doc"}, True),
    ({"document_id": "doc"}, True),
    ({"title": "none"}, False),
    ({"title": {"prefix": "x"}}, False),
    ({"not": {"title": "none"}}, True),
    ({"page": {"gte": 1}}, False),
    ({"chunk_id": 0}, True),
    ({"start": 0}, True),
    ({"end": {"gte": 1}}, True),
    ({"chunk_length": {"lt": 100}}, True),
    ({"start": "0"}, False),
    ({"variant": "Cross-Encoder"}, True),
    ({"title_path": "Guide"}, False),
    ({"team": "blue"}, False),
    ({"not": {"team": "blue"}}, True),
    ({"team": ["blue", "red"]}, False),
    ({"year": {"gte": 2020}}, False),
    ({"date": {"gte": "2020-01-01"}}, False),
    ({"draft": True}, False),
    ({"or": [{"team": {"prefix": "b"}}, {"chunk_id": 0}]}, True),
    ({"colour": 5}, False),
    ({"colour": "green"}, True),
)


@pytest.mark.parametrize(("where", "holds"), DOCUMENTED, ids=str)
def test_every_filter_of_the_language_is_answered(
    server: FakeQdrant, where: dict[str, Any], *, holds: bool
) -> None:
    with closing(opened(server)) as store:
        write(store, [chunk("doc", 0, "whales are mammals", colour="green")])
        query = HashedEmbedder().embed_query("whales")
        assert bool(store.search(query, None, limit=3, where=where).dense) == holds
        assert bool(list(store.scan(where=where))) == holds


def test_a_key_that_another_process_wrote_meanwhile_is_found(server: FakeQdrant) -> None:
    with closing(opened(server)) as reader, closing(opened(server)) as writer:
        assert list(reader.scan(where={"team": "blue"})) == []
        write(writer, [chunk("doc", 0, "whales", team="blue")])
        assert len(list(reader.scan(where={"team": "blue"}))) == 1
        server.asked.clear()
        assert list(reader.scan(where={"or": [{f"nothing{number}": "x"} for number in range(50)]})) == []
        assert len([one for one in server.asked if one.path == "/collections/crossrag-1"]) == 1


def test_many_keys_leave_room_and_end_no_ingestion(server: FakeQdrant, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for first in (0, 60, 120):
        keys = "\n".join(f"key{number}: value{number}" for number in range(first, first + 60))
        (docs / f"many{first:03}.md").write_text(f"---\n{keys}\n---\n# Whales\n\nWhales are mammals.\n")
    with opened_rag(tmp_path / "index", url=server.url) as rag:
        report = rag.ingest(docs)
        assert (report.added, report.failed, len(server.indexes["crossrag-1"])) == (
            3,
            (),
            80 + len(SERVED_INDEXES),
        )
        (notice,) = [one for one in report.notices if "no index over" in one]
        assert "as many as there may be" in notice
        assert rag.search("whales", where={"key3": "value3"})
        with pytest.raises(StoreError, match=r"strict mode.*make a payload index.*unindexed_filtering"):
            rag.search("whales", where={"key179": "value179"})


def test_an_index_that_is_refused_is_a_notice(server: FakeQdrant) -> None:
    with closing(opened(server)) as store:
        server.most_indexes = len(SERVED_INDEXES)
        write(store, [chunk("doc", 0, "whales", team="blue")])
        assert store.count() == 1
        assert "metadata.team" in store.notices[0]
        assert "maximum number of payload indices" in store.notices[0]
    with closing(opened(server)) as again:
        write(again, [chunk("doc", 1, "whales", size="big")])
        assert "as many as there may be" in again.notices[0]


def test_a_collection_of_an_earlier_crossrag_gets_what_it_lacks(server: FakeQdrant) -> None:
    with closing(opened(server)) as store:
        del server.indexes["crossrag-1"]["metadata.title"]
        write(store, [chunk("doc", 0, "whales")])
    with closing(opened(server)) as again:
        write(again, [chunk("doc", 1, "whales")])
        assert list(again.scan(where={"title": "x"})) == []


def test_what_strict_mode_refuses_of_an_adopted_collection_is_explained(server: FakeQdrant) -> None:
    with closing(opened(server)) as store:
        write(store, [chunk("doc", 0, "whales", team="blue")])
    with closing(AdoptedStore(server.url, collection="crossrag-1", dimension=256)) as adopted:
        assert len(list(adopted.scan(where={"team": "blue"}))) == 1
        with pytest.raises(StoreError, match=r"strict mode.*make a payload index over this key"):
            list(adopted.scan(where={"colour": "green"}))
