"""Searches from another folder than the owner's, as a server beside an ingestion has: every document whole.

What is in transition stands in the owner's manifest, which they have not; the server tells them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crossrag import Rag, StoreError, archive, maintenance
from crossrag.manifest import Manifest
from crossrag.server.tenants import TenantIndex
from crossrag.steady import Elsewhere
from crossrag.stores.adopted import AdoptedStore
from crossrag.stores.qdrant import QdrantStore

from .crashing import around, opened
from .fake_qdrant import FakeQdrant, fake_qdrant
from .test_sync import lines, write

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
STEPS: dict[type, tuple[str, ...]] = {
    QdrantStore: ("tell", "upsert", "delete_document"),
    Manifest: ("begin", "flip", "forget"),
}


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    version(tmp_path / "docs", 1)
    return tmp_path / "docs"


def version(docs: Path, number: int) -> None:
    write(docs, one=lines("one", number, 4), two=lines("two", number, 3), three=lines("three", number, 2))


def seen(rag: Rag) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in rag.search("Line of document", top_k=100):
        found.setdefault(Path(one.chunk.source).stem, set()).add(one.chunk.text)
    return found


class Cut(BaseException):
    """As a kill: nobody catches it."""


def whole(found: dict[str, set[str]], states: list[dict[str, set[str]]]) -> None:
    for name in {name for state in states for name in state}:
        allowed = [state.get(name) for state in states]
        assert found.get(name) in allowed, (name, found.get(name))


def test_between_any_two_steps_of_an_ingestion_elsewhere_sees_whole_documents(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
        pytest.MonkeyPatch.context() as patch,
    ):
        told: list[dict[str, set[str]]] = []

        def look(_: str) -> None:
            told.append(seen(reader))

        around(STEPS, look, put=patch.setattr)
        owner.ingest(docs)
        states: list[dict[str, set[str]]] = [{}, seen(owner)]
        write(docs, one=lines("one", 2, 4))
        (docs / "three.txt").rename(docs / "four.txt")
        (docs / "two.txt").unlink()
        owner.ingest(docs)
        states.append(seen(owner))
        assert seen(reader) == states[-1]
    assert len(told) > 20
    for one in told:
        # A rename is a document that goes and one that comes, at once.
        whole(one, states)
        assert not {"three", "four"} <= one.keys()
    # Each state in its turn, and no way back.
    order = [states.index(one) for one in told if one in states]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}


@pytest.mark.parametrize(
    "kind", [f"{owner.__name__}.{name}" for owner, names in STEPS.items() for name in names]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_cut_short_shows_elsewhere_whole_documents_and_is_made_good(
    server: FakeQdrant, docs: Path, tmp_path: Path, kind: str, when: str
) -> None:
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
    ):
        owner.ingest(docs)
        old = seen(owner)
        for count in range(6):
            version(docs, count + 2)
            left = [count]

            def cut(step: str, left: list[int] = left) -> None:
                if step == f"{when} {kind}":
                    left[0] -= 1
                    if left[0] < 0:
                        raise Cut

            with pytest.MonkeyPatch.context() as patch:
                around(STEPS, cut, put=patch.setattr)
                try:
                    owner.ingest(docs)
                except Cut:
                    pass
                else:
                    break
            found = seen(reader)
            owner.ingest(docs)
            assert seen(reader) == seen(owner)
            whole(found, [old, old := seen(owner)])
        assert count > 0


def test_what_a_kill_left_untold_is_told_by_the_next_run_though_nothing_changed(
    server: FakeQdrant, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Manifest, "tell", _cut_at(4))
            with pytest.raises(Cut):
                owner.ingest(docs)
        assert (len(seen(owner)), seen(reader)) == (3, {})
        assert owner.ingest(docs).unchanged == 3
        assert seen(reader) == seen(owner)


def _cut_at(number: int) -> Callable[[Manifest], None]:
    real, calls = Manifest.tell, [0]

    def tell(self: Manifest) -> None:
        calls[0] += 1
        if calls[0] == number - 1:  # recover, begin, flip
            raise Cut
        real(self)

    return tell


def test_searches_elsewhere_beside_an_ingestion(server: FakeQdrant, docs: Path, tmp_path: Path) -> None:
    found: list[dict[str, set[str]]] = []
    stop = threading.Event()
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
    ):
        owner.ingest(docs)
        states = [seen(owner)]
        errors: list[BaseException] = []

        def search() -> None:
            try:
                while not stop.is_set():
                    found.append(seen(reader))
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        thread = threading.Thread(target=search)
        thread.start()
        for number in range(2, 6):
            version(docs, number)
            owner.ingest(docs)
            states.append(seen(owner))
        stop.set()
        thread.join()
    assert errors == []
    assert len(found) > 3
    for one in found:
        assert one in states, "one batch: all of it changes at once"


def test_a_tenant_elsewhere_and_an_import(server: FakeQdrant, docs: Path, tmp_path: Path) -> None:
    with (
        opened(tmp_path / "source") as source,
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
        pytest.MonkeyPatch.context() as patch,
    ):
        source.ingest(docs)
        archive.export(source.index, tmp_path / "moved.crossrag")
        blue = opened(tmp_path / "index", url=server.url)
        blue.index = TenantIndex(owner.index, "blue")
        elsewhere = opened(tmp_path / "elsewhere", url=server.url)
        elsewhere.index = TenantIndex(reader.index, "blue")
        told: list[dict[str, set[str]]] = []
        around(STEPS, lambda _: told.append(seen(reader) | seen(elsewhere)), put=patch.setattr)
        archive.load(owner.index, tmp_path / "moved.crossrag")
        complete = seen(owner)
        assert told[-1] == seen(reader) == complete
        assert all(one in ({}, complete) for one in told)
        maintenance.delete(owner.index, ["*"])
        told.clear()
        blue.ingest(docs)
        assert (told[-1], seen(reader)) == (complete, {})
        assert all(one in ({}, complete) for one in told)


def test_elsewhere_costs_one_request_more_and_counts_anew(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
    ):
        owner.ingest(docs)
        seen(reader)
        server.asked.clear()
        seen(reader)
        assert [one.path.rpartition("/")[2] for one in server.asked if "batch" not in one.path] == ["points"]
        server.asked.clear()
        seen(owner)
        assert not [one for one in server.asked if "batch" not in one.path and "count" not in one.path]
        assert reader.index.count() == 9
        (docs / "two.txt").unlink()
        owner.ingest(docs)
        seen(reader)
        assert reader.index.count() == 6


def test_documents_that_change_beside_every_search_are_an_error(server: FakeQdrant, tmp_path: Path) -> None:
    with (
        opened(tmp_path / "index", url=server.url) as owner,
        opened(tmp_path / "elsewhere", url=server.url) as reader,
    ):
        write(tmp_path / "docs", one=lines("one", 1, 4))
        owner.ingest(tmp_path / "docs")
        transitions = reader.index._pair.transitions(reader.store)
        assert isinstance(transitions, Elsewhere)
        view = reader.store.view  # type: ignore[attr-defined]

        def busy() -> Any:
            owner.manifest.tell()
            return view()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader.store, "view", busy)
            with pytest.raises(StoreError, match=r"changed beside each of 20 searches.*Ask again"):
                reader.search("Line")
        assert reader.search("Line")


def test_a_ledger_is_no_passage_to_whoever_adopts_the_collection(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "index", url=server.url) as owner:
        owner.ingest(docs)
        dimension = owner.embedder.dimension
    with closing(AdoptedStore(server.url, collection="crossrag-1", dimension=dimension)) as store:
        assert store.count() == len(list(store.scan())) == 9
