"""Export and import: the same index again, without embedding; nothing else gets in."""

from __future__ import annotations

import hashlib
import json
import random
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossrag import FingerprintError, Rag, UsageError, archive, maintenance
from crossrag.config import ChunkingSettings
from crossrag.testing import HashedEmbedder, HashedTerms

from .test_sync import digest, opened, write

WORDS = [
    f"{first}{second}" for first in ("ka", "lo", "mi", "nu", "pe") for second in ("rat", "sel", "tiv", "dom")
]


def chance(seed: int) -> str:
    """Four passages; no two of all are alike."""
    drawn = random.Random(seed)  # noqa: S311 - reproducible, not secret
    return "\n\n".join(" ".join(drawn.choices(WORDS, k=10)) + f" so many {seed}." for _ in range(4))


@pytest.fixture(scope="module")
def exported(in_memory: Path) -> Path:
    folder = in_memory / "exported"
    folder.mkdir()
    write(folder / "files", **{f"doc{number}": chance(number) for number in range(8)})
    with opened(folder / "index") as rag:
        rag.ingest(folder / "files")
        archive.export(rag.index, folder / "index.crossrag")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Rag]:
    with opened(tmp_path / "imported") as rag:
        yield rag


def test_a_target_that_is_no_file_is_refused(target: Rag, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder.*Name the file to write"):
        archive.export(target.index, tmp_path)
    with pytest.raises(UsageError, match=r"The folder .*nodir does not exist"):
        archive.export(target.index, tmp_path / "nodir" / "b.crossrag")


def test_an_imported_index_is_the_same(exported: Path, target: Rag) -> None:
    contents = archive.load(target.index, exported / "index.crossrag")
    assert (contents.documents, contents.chunks) == (8, 32)
    assert isinstance(target.embedder, HashedEmbedder)
    assert target.embedder.calls == 0
    with opened(exported / "index") as source:
        assert digest(target) == digest(source)
        for number in range(100):
            query = " ".join(random.Random(number).choices(WORDS, k=4))  # noqa: S311
            here, there = target.search(query, top_k=10), source.search(query, top_k=10)
            assert [one.chunk for one in here] == [one.chunk for one in there]
            for one, other in zip(here, there, strict=True):
                # The engine adds up BM25 in an order of its own: the last bit of a sum may differ.
                assert one.scores.dense == pytest.approx(other.scores.dense, abs=1e-6)
                assert one.scores.sparse == pytest.approx(other.scores.sparse, abs=1e-4)
    again = target.ingest(exported / "files")
    assert (again.unchanged, again.embedded) == (8, 0)


def test_the_same_index_makes_the_same_archive(exported: Path, tmp_path: Path) -> None:
    with opened(exported / "index") as rag:
        archive.export(rag.index, tmp_path / "again.crossrag")
    assert (tmp_path / "again.crossrag").read_bytes() == (exported / "index.crossrag").read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.crossrag"]


def test_an_index_with_documents_is_not_imported_into(exported: Path, target: Rag) -> None:
    archive.load(target.index, exported / "index.crossrag")
    with pytest.raises(UsageError, match="not empty"):
        archive.load(target.index, exported / "index.crossrag")


def test_an_import_that_was_cut_short_is_made_again(
    exported: Path, target: Rag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(target.manifest, "flip", cut)
        with pytest.raises(KeyboardInterrupt):
            archive.load(target.index, exported / "index.crossrag")
    assert target.search("Line").candidates == ()
    archive.load(target.index, exported / "index.crossrag")
    assert maintenance.verify(target.index).agrees


def test_other_settings_are_refused(exported: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "other") as rag:
        settings = rag.settings.model_copy(update={"chunking": ChunkingSettings(size=99, overlap=0)})
    with (
        Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms()) as other,
        pytest.raises(FingerprintError, match=r"characters:80:0:v1 -> characters:99:0:v1"),
    ):
        archive.load(other.index, exported / "index.crossrag")
    assert not (tmp_path / "other").exists()


Entries = dict[str, bytes]


def resigned(entries: Entries) -> None:
    """With checksums that fit: what an attacker can do, damage cannot."""
    header = json.loads(entries["index.json"])
    for name in header["entries"]:
        if name in entries:
            data = entries[name]
            header["entries"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entries["index.json"] = json.dumps(header).encode()


def flip_a_bit(entries: Entries) -> None:
    data = bytearray(entries["dense-000000.f32"])
    data[5] ^= 1
    entries["dense-000000.f32"] = bytes(data)


def other_text(entries: Entries) -> None:
    entries["points-000000.jsonl"] = entries["points-000000.jsonl"].replace(b"so many", b"no many", 1)
    resigned(entries)


def not_a_number(entries: Entries) -> None:
    entries["dense-000000.f32"] = b"\xff\xff\xff\x7f" + entries["dense-000000.f32"][4:]
    resigned(entries)


def fewer_documents(entries: Entries) -> None:
    entries["documents.jsonl"] = entries["documents.jsonl"].split(b"\n", 1)[1]
    resigned(entries)


def a_pickle(entries: Entries) -> None:
    entries["dense-000000.f32"] = b"\x80\x04cos\nsystem\n."
    resigned(entries)


def deep_json(entries: Entries) -> None:
    entries["documents.jsonl"] = b"[" * 100_000
    resigned(entries)


def wrong_types(entries: Entries) -> None:
    entries["points-000000.jsonl"] = b'{"point": 7, "payload": {"metadata": []}, "terms": 1, "weights": 2}\n'
    resigned(entries)


TAMPERED: dict[str, tuple[Callable[[Entries], Any], str]] = {
    "a flipped bit": (flip_a_bit, "checksum"),
    "another text": (other_text, "no ingestion made"),
    "not a number": (not_a_number, "does not fit"),
    "fewer documents": (fewer_documents, "not those of its documents"),
    "a pickle": (a_pickle, "does not fit"),
    "deep JSON": (deep_json, "no JSON"),
    "wrong types": (wrong_types, "no ingestion made"),
    "no header": (lambda entries: entries.pop("index.json"), "no index.json"),
    "a header of another kind": (lambda entries: entries.update({"index.json": b"[]"}), "no index"),
    "a missing page": (lambda entries: entries.pop("dense-000000.f32"), "missing"),
    "a parent folder": (lambda entries: entries.update({"../evil.txt": b"x"}), r"\.\./evil"),
    "an absolute path": (lambda entries: entries.update({"/etc/evil": b"x"}), "/etc/evil"),
    "one file more": (lambda entries: entries.update({"extra.txt": b"x"}), "extra.txt"),
    "too many entries": (
        lambda entries: entries.update({f"e{number}": b"" for number in range(200_001)}),
        "entries",
    ),
}


def refused(rag: Rag, path: Path, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        archive.load(rag.index, path)
    assert not rag.settings.index.path.exists()


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_archive_is_refused_before_anything_is_written(
    exported: Path, target: Rag, tmp_path: Path, kind: str
) -> None:
    tamper, reason = TAMPERED[kind]
    with zipfile.ZipFile(exported / "index.crossrag") as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    tamper(entries)
    with zipfile.ZipFile(tmp_path / "bad.crossrag", "w") as bad:
        for name, data in entries.items():
            bad.writestr(name, data)
    refused(target, tmp_path / "bad.crossrag", reason)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_links_and_cut_files_are_refused(exported: Path, target: Rag, tmp_path: Path) -> None:
    whole = (exported / "index.crossrag").read_bytes()
    bad = tmp_path / "bad.crossrag"
    for cut in (b"", whole[: len(whole) // 2], whole[:-10], b"PK\x03\x04" + bytes(100)):
        bad.write_bytes(cut)
        refused(target, bad, "refused")
    bad.write_bytes(whole)
    with zipfile.ZipFile(bad, "a") as archived:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archived.writestr(link, "/etc/passwd")
    refused(target, bad, "no plain file")
    refused(target, tmp_path / "none.crossrag", "no file")


def test_no_flipped_byte_gets_in(exported: Path, tmp_path: Path) -> None:
    """At 60 places all over the file: refused, or the byte says nothing and the index is the same."""
    whole = (exported / "index.crossrag").read_bytes()
    with opened(exported / "index") as source:
        expected = digest(source)
    bad = tmp_path / "bad.crossrag"
    passed = 0
    for number in range(60):
        place = number * len(whole) // 60
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with opened(tmp_path / f"index{number}") as rag:
            try:
                archive.load(rag.index, bad)
            except UsageError:
                continue
            passed += 1
            assert digest(rag) == expected
    assert passed < 20
