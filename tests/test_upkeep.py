"""The commands that keep an index; indexes of earlier versions; full disks; locks."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossrag import (
    FingerprintError,
    Rag,
    StoreError,
    StoreLockedError,
    maintenance,
    places,
)
from crossrag.manifest import writer_lock
from crossrag.testing import HashedEmbedder

from .test_cli import crossrag
from .test_sync import digest, lines, opened, write

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def indexed(in_memory: Path) -> Path:
    folder = in_memory / "cli"
    folder.mkdir()
    write(
        folder / "docs", backup="To restore a backup, run the restore command.", whales="Whales are mammals."
    )
    assert crossrag("ingest", "docs", folder=folder).returncode == 0
    return folder


# --- commands


def test_a_dry_run_says_what_would_be_done(indexed: Path) -> None:
    write(indexed / "docs", new="New.")
    done = crossrag("ingest", "docs", "--dry-run", folder=indexed)
    assert done.stdout.splitlines() == ["new      docs/new.txt", "1 to do, 2 unchanged; nothing was written"]
    plan = json.loads(
        crossrag("ingest", "docs", "--dry-run", "--glob", "w*", "--json", folder=indexed).stdout
    )
    assert plan["changes"] == [{"kind": "deleted", "source": "docs/backup.txt"}]
    (indexed / "docs" / "new.txt").unlink()


def test_a_dry_run_is_refused_where_the_run_would_be(indexed: Path) -> None:
    other = ("ingest", "docs", "--set", "chunking.size=500")
    for more in ((), ("--dry-run",)):
        refused = crossrag(*other, *more, folder=indexed)
        assert (refused.returncode, refused.stdout) == (7, "")
        assert "built with other settings" in refused.stderr
    write(indexed / "elsewhere", kelp="Kelp is no plant.")
    rebuilt = crossrag("ingest", "elsewhere", *other[2:], "--rebuild", "--dry-run", folder=indexed)
    assert rebuilt.stdout.splitlines()[:3] == [
        "new      elsewhere/kelp.txt",
        "deleted  docs/backup.txt",
        "deleted  docs/whales.txt",
    ]
    both = crossrag("ingest", "docs", "--dry-run", "--watch", folder=indexed)
    assert (both.returncode, "do not go together" in both.stderr) == (2, True)


def test_verify_tells_by_its_exit_code_and_repair_mends(indexed: Path) -> None:
    whole = crossrag("verify", "--vectors", folder=indexed)
    assert whole.returncode == 0
    assert "manifest and store agree" in whole.stdout
    with Rag.open(indexed / ".crossrag") as rag:
        rag.store.delete_document(str(indexed / "docs" / "whales.txt"))
    differs = crossrag("verify", folder=indexed)
    assert (differs.returncode, differs.stdout.splitlines()[0]) == (
        9,
        "missing    docs/whales.txt: 0 chunks in place of 1",
    )
    assert crossrag("repair", folder=indexed).returncode == 0
    assert crossrag("verify", "--vectors", folder=indexed).stdout == whole.stdout


def test_a_lost_manifest_is_brought_back_by_an_ingestion(indexed: Path) -> None:
    lost = ("--index", "lost")
    assert crossrag("ingest", "docs", *lost, folder=indexed).returncode == 0
    for file in (indexed / "lost").glob("manifest.sqlite*"):
        file.unlink()
    differs = crossrag("verify", *lost, folder=indexed)
    assert differs.returncode == 9
    assert "orphaned   docs/whales.txt" in differs.stdout
    assert "differ: the manifest knows no document: `crossrag ingest PATH` brings back" in differs.stdout
    assert "crossrag repair" not in differs.stdout
    repaired = crossrag("repair", *lost, folder=indexed)
    assert "chunks of 2 orphaned documents removed" in repaired.stdout
    assert "`crossrag ingest PATH` brings back" in repaired.stderr
    assert crossrag("ingest", "docs", *lost, folder=indexed).returncode == 0
    assert crossrag("verify", *lost, folder=indexed).returncode == 0
    shutil.rmtree(indexed / "lost")


def test_a_damaged_store_names_what_builds_it_anew(indexed: Path) -> None:
    damaged = ("--index", "damaged")
    assert crossrag("ingest", "docs", *damaged, folder=indexed).returncode == 0
    for file in (indexed / "damaged").rglob("segments/*/segment.json"):
        file.write_bytes(b"{")
    refused = crossrag("search", "whale", *damaged, folder=indexed)
    assert refused.returncode == 3
    assert "a file of the index is damaged: `crossrag ingest --rebuild PATH` builds it anew" in refused.stderr
    assert crossrag("ingest", "--rebuild", "docs", *damaged, folder=indexed).returncode == 0
    assert "docs/whales.txt" in crossrag("search", "whale", *damaged, folder=indexed).stdout
    shutil.rmtree(indexed / "damaged")


def test_export_import_reindex_delete(indexed: Path) -> None:
    assert crossrag("export", "out.crossrag", folder=indexed).stdout.startswith(
        "2 documents, 2 chunks exported"
    )
    assert crossrag("import", "out.crossrag", "--index", "other", folder=indexed).returncode == 0
    again = crossrag("import", "out.crossrag", "--index", "other", folder=indexed)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    reindexed = crossrag(
        "reindex", "--index", "other", "--set", "chunking.size=300", "--json", folder=indexed
    )
    assert json.loads(reindexed.stdout)["added"] == 2
    refused = crossrag("search", "whale", "--index", "other", folder=indexed)
    assert refused.returncode == 7
    assert "from the same files with `crossrag reindex`" in refused.stderr
    assert "Put this into crossrag.toml:\n\n[chunking]\nsize = 300\n" in reindexed.stderr
    (indexed / "said.toml").write_text(reindexed.stderr.partition("toml:\n")[2], encoding="utf-8")
    kept = crossrag("search", "whale", "-k1", "--index", "other", "--config", "said.toml", folder=indexed)
    assert "docs/whales.txt" in kept.stdout
    found = crossrag(
        "search", "whale", "-k1", "--index", "other", "--set", "chunking.size=300", folder=indexed
    )
    assert "docs/whales.txt" in found.stdout
    deleted = crossrag(
        "delete", "--source", "docs/w*", "--index", "other", "--set", "chunking.size=300", folder=indexed
    )
    assert deleted.stdout == "deleted  docs/whales.txt\n"


# --- promise 8: the lock


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(indexed: Path) -> None:
    script = (
        "import sys, time; from crossrag import Rag\n"
        "with Rag.open(sys.argv[1]) as rag: rag.store; print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(indexed / ".crossrag")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        refused = crossrag("ingest", "docs", folder=indexed)
        assert refused.returncode == 3
        assert f"process {holder.pid}" in refused.stderr
        assert holder.poll() is None
        holder.kill()
    assert crossrag("verify", folder=indexed).returncode == 0


def test_one_writer_at_a_time_where_the_store_has_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from crossrag.manifest import writer_lock\n"
        "with writer_lock(Path(sys.argv[1]), seconds=0): print('in', flush=True); time.sleep(60)"
    )
    lock = tmp_path / "index" / "writer.lock"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "in\n"
        with (
            pytest.raises(StoreLockedError, match="Another process is writing"),
            writer_lock(lock, seconds=0.1),
        ):
            pass
        one.kill()
    with writer_lock(lock, seconds=0.1):
        pass


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(in_memory: Path) -> None:
    folder = in_memory / "interrupted"
    folder.mkdir()
    write(folder / "docs", **{f"doc{number}": lines(f"doc{number}", 1, 60) for number in range(120)})
    command = [sys.executable, "-m", "crossrag", "ingest", "docs"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not (folder / ".crossrag" / "fingerprint.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130, said
    assert "going on" in said or "goes on" in said
    write(folder / "docs", **{f"doc{number}": "Short." for number in range(120)})
    done = crossrag("ingest", "docs", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert crossrag("verify", "--vectors", folder=folder).returncode == 0


# --- promise 9: what an index was made with


@pytest.mark.parametrize("changed", ["embedder", "dimension", "size", "overlap", "unit", "sparse"])
def test_whatever_the_vectors_depend_on_is_compared(tmp_path: Path, changed: str) -> None:
    write(tmp_path / "docs", one=lines("one", 1, 5))
    with opened(tmp_path / "index") as rag:
        rag.ingest(tmp_path / "docs")
        before = digest(rag)
    with opened(tmp_path / "index") as other:
        cut = other.settings.chunking
        if changed == "embedder":
            other.embedder.__dict__["fingerprint"] = "another of the same width"
        elif changed == "dimension":
            other.__dict__["embedder"] = HashedEmbedder(dimension=128)
        elif changed == "sparse":
            other.sparse_encoder.__dict__["fingerprint"] = "other-terms"
        else:
            value = {"size": 90, "overlap": 7, "unit": "tokens"}[changed]
            settings = other.settings.model_copy(update={"chunking": cut.model_copy(update={changed: value})})
            other.settings = other.index.settings = other.index._pair.settings = settings
        for act in (lambda: other.search("x"), lambda: other.ingest(tmp_path / "docs")):
            with pytest.raises(FingerprintError, match=r"->.*crossrag ingest --rebuild"):
                act()
    with opened(tmp_path / "index") as rag:
        assert digest(rag) == before


# --- promise 11: a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: no file system can be mounted here, so no disk can be full")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(small_disk: Path, tmp_path: Path) -> None:
    write(tmp_path / "docs", **{f"doc{number}": lines(f"doc{number}", 1, 400) for number in range(12)})
    write(tmp_path / "first", one=lines("one", 1, 5))
    with opened(small_disk / "index") as rag:
        rag.ingest(tmp_path / "first")
        (small_disk / "ballast").write_bytes(bytes(100 << 20))
        with pytest.raises(StoreError, match=r"MiB free.*Make room"):
            rag.ingest(tmp_path / "docs")
        assert rag.search("Line 1 of one", top_k=1)[0].chunk.source == "first/one.txt"
    (small_disk / "ballast").unlink()
    write(tmp_path / "docs", **{f"doc{number}": lines(f"doc{number}", 1, 4) for number in range(12)})
    with opened(small_disk / "index") as rag:
        assert rag.ingest(tmp_path / "docs").failed == ()
        assert maintenance.verify(rag.index).agrees


def test_there_must_be_room_for_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "docs", one=lines("one", 1, 5))
    monkeypatch.setattr(places, "_SPARE_BYTES", 1 << 60)
    with opened(tmp_path / "index") as rag, pytest.raises(StoreError, match=r"MiB free .* are needed"):
        rag.ingest(tmp_path / "docs")


# --- promise 13: indexes of earlier versions


def test_an_index_of_version_0_1_is_refused_and_made_anew(tmp_path: Path) -> None:
    with tarfile.open(DATA / "index-0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    write(
        tmp_path / "docs",
        backup="To restore a backup, run the restore command.",
        whales="Whales are mammals.",
    )
    connection = sqlite3.connect(tmp_path / "index" / "manifest.sqlite")
    connection.execute(
        "UPDATE documents SET id = ? || substr(id, length('/tmp/old/') + 1)", (f"{tmp_path}/",)
    )
    connection.commit()
    connection.close()
    with opened(tmp_path / "index") as rag:
        for act in (lambda: rag.search("x"), lambda: rag.ingest(tmp_path / "docs"), rag.documents):
            with pytest.raises(FingerprintError, match=r"crossrag (reindex|ingest --rebuild)"):
                act()
        assert maintenance.reindex(rag.index).added == 2
        assert rag.search("whales", top_k=1)[0].chunk.source == "docs/whales.txt"
        assert rag.ingest(tmp_path / "docs").unchanged == 2
