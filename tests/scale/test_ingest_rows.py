"""What travels between driver and workers comes back as it was; needs no Ray."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossrag import files
from crossrag.config import Settings, load_settings
from crossrag.errors import ConfigError, LoadError, ModelError
from crossrag.files import File, Look
from crossrag.manifest import Entry
from crossrag.planning import Change
from crossrag.preparing import Prepared
from crossrag.registry import BUNDLED_MODELS
from crossrag.scale import ingest_rows, ingest_work
from crossrag.scale.ingest_work import Embedding, Order
from crossrag.types import Chunk, SparseVector


def change(name: str, size: int = 100, *, previous: bool = False) -> Change:
    entry = Entry(id=name, source=name, content_hash="0", generation="g", chunks=2, metadata={"a": [1.5]})
    return Change(
        kind="changed" if previous else "new",
        file=File(path=Path("/docs") / name, document_id=name, source=name, metadata={"year": 2021}),
        content_hash="abc",
        look=Look(f"{size}:2:3:4", settled=True),
        previous=entry if previous else None,
    )


def chunk(text: str, position: int = 0) -> Chunk:
    return Chunk(
        id=f"id-{position}",
        document_id="a",
        source="a",
        text=text,
        start=0,
        end=len(text),
        position=position,
        title="Title",
        title_path=("One", "Two"),
        page=3,
        page_name="sheet Q3",
        generation="g",
        metadata={"page": 7, "share": 0.1, "tags": ["x"]},
        minhash="mark",
    )


@pytest.mark.parametrize("sizes", [[], [10] * 5, [10] * 200, [300_000, 10, 300_000], [100_000] * 9])
def test_shelves_hold_everything_once_and_in_order(sizes: list[int]) -> None:
    changes = [change(f"{number}.md", size) for number, size in enumerate(sizes)]
    shelves = list(ingest_rows.shelves(changes))
    assert [shelf.number for shelf in shelves] == list(range(len(shelves)))
    assert [one for shelf in shelves for one in shelf.changes] == changes
    for shelf in shelves:
        assert len(shelf.changes) == 1 or sum(one.look.size for one in shelf.changes) <= 262_144
        assert len(shelf.changes) <= 64


def test_changes_arrive_as_they_were_sent() -> None:
    sent = [change("a.md", previous=True), change("no-utf8-\udcff.md")]
    row = ingest_rows.asked(ingest_rows.Shelf(3, sent), [["m1"], []])
    assert row["told"].isascii()
    assert ingest_rows.changes_of(row) == [(sent[0], ["m1"]), (sent[1], [])]


def test_documents_come_back_with_chunks_and_vectors_to_the_bit() -> None:
    old, new = chunk("old words"), chunk("new words", 1)
    documents = [
        Prepared(change=change("a.md"), chunks=(old, new, new), notices=("a: said",)),
        Prepared(change=change("b.md"), failure="is no PDF"),
        Prepared(change=change("c.md"), unchanged=True),
    ]
    known = [[ingest_rows.mark(old.described)], [], []]
    row = ingest_rows.read(0, list(zip(documents, known, strict=True)))
    assert ingest_rows.texts_of(row) == [new.described]
    dense, sparse = np.array([[0.1, -0.0, 3e-39]], np.float32), [SparseVector((7, 2**32 - 1), (0.1, 1 / 3))]
    first, second, third = ingest_rows.prepared(
        ingest_rows.embedded(row, dense, sparse), [one.change for one in documents]
    )
    ((text, (vector, terms)),) = first.vectors.items()
    assert (text, vector.tobytes(), terms) == (new.described, dense[0].tobytes(), sparse[0])
    assert first.chunks == documents[0].chunks
    assert (first.notices, second.failure, third.unchanged) == (("a: said",), "is no PDF", True)


def test_an_error_of_a_worker_is_raised_by_the_driver() -> None:
    row = ingest_rows.failed({"number": 1}, LoadError("a.md is odd", hint="Mend it"))
    with pytest.raises(LoadError, match=r"a\.md is odd\. Mend it"):
        list(ingest_rows.prepared(row, []))


def made(tmp_path: Path, **order: str) -> tuple[dict[str, Any], Order]:
    (tmp_path / "a.md").write_text("# A\n\nA backup is written every night.\n", encoding="utf-8")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7 nothing")
    sent = [
        Change(
            kind="new",
            file=File(path=path, document_id=path.name, source=path.name),
            content_hash="",
            look=files.look(path),
        )
        for path in (tmp_path / "a.md", tmp_path / "b.pdf")
    ]
    own = Order.of(Settings())
    given = replace(own, **order)
    return ingest_rows.asked(ingest_rows.Shelf(0, sent), [[], []]), given


def test_a_worker_reads_and_embeds_and_a_bad_file_fails_alone(tmp_path: Path) -> None:
    row, order = made(tmp_path)
    done = Embedding(order)(ingest_work.read(row, order))
    good, bad = ingest_rows.prepared(done, [one for one, _ in ingest_rows.changes_of(row)])
    assert [chunk.text for chunk in good.chunks] == ["# A\n\nA backup is written every night."]
    assert len(good.vectors) == 1
    assert bad.failure
    assert not bad.chunks


def test_a_worker_with_another_crossrag_or_model_ends_the_run(tmp_path: Path) -> None:
    row, order = made(tmp_path, recipe="another")
    with pytest.raises(ConfigError, match="same version"):
        list(ingest_rows.prepared(ingest_work.read(row, order), []))
    row, order = made(tmp_path, embedder="another")
    with pytest.raises(ModelError, match="same model"):
        list(ingest_rows.prepared(Embedding(order)(ingest_work.read(row, order)), []))


def test_workers_find_the_model_from_anywhere_and_use_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(BUNDLED_MODELS / "minilm-l6-embedder", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {
        "embedder": {"model": "onnx:model"},
        "ray": {"ingest_cpus": 2, "ingest_gpus": 0.5},
    }
    order = Order.of(load_settings(given).settings)
    monkeypatch.chdir("/")
    there = order.read().embedder
    assert (there.model, there.threads, there.device) == (f"onnx:{tmp_path / 'model'}", 2, "cuda")
    del given["ray"]
    monkeypatch.chdir(tmp_path)
    here = Order.of(load_settings(given).settings).read().embedder
    assert (here.threads, here.device) == (1, None)


def test_a_share_of_a_gpu_is_a_device_where_the_backend_takes_one() -> None:
    from crossrag.scale.cluster import device

    assert device("embedders", "onnx:bundled", None, gpus=0.5) == "cuda"
    assert device("embedders", "onnx:bundled", "cuda:1", gpus=0.5) == "cuda:1"
    assert device("rerankers", "progressive:bundled", None, gpus=0) is None
    # Neither an endpoint nor somebody else's plug-in has to know the word.
    assert device("rerankers", "http:tei", None, gpus=1) is None
    assert device("embedders", "slowly:folder", None, gpus=1) is None


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (
            "ray::MapWorker()\nValueError: it is broken\n\nray.exceptions.UserCodeException: UDF failed",
            "ValueError: it is broken",
        ),
        ("The node was lost\nand more", "The node was lost"),
        ("", "RuntimeError"),
    ],
)
def test_what_ray_reports_is_told_by_what_happened(report: str, says: str) -> None:
    from crossrag.scale.ingest import _reason

    assert _reason(RuntimeError(report)) == says


def test_workers_see_no_keys() -> None:
    keys = {"openai": {"api_key": "secret"}, "qdrant": {"url": "http://x:1", "api_key": "secret"}}
    settings = load_settings(keys)
    assert "secret" not in Order.of(settings.settings).settings


@pytest.mark.parametrize("own", [{"num_cpus": 4}, {"object_store_memory": 100_000_000}, {"spill": "x"}])
def test_a_cluster_by_address_has_its_own_size(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="address names another one"):
        load_settings({"ray": {"address": "auto"} | own})


def test_embedders_leave_a_processor_to_a_reader() -> None:
    from crossrag.scale.ingest import _need

    need = _need(load_settings({"ray": {"ingest_embedders": 2, "ingest_gpus": 0.5}}).settings.ray)
    assert (need.cpus, need.gpus) == (3, 1)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrag.errors import MissingExtraError
    from crossrag.scale import ingest

    monkeypatch.setattr(ingest, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"crossrag\[ray\]"):
        ingest.RayEngine(Settings())
