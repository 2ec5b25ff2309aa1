"""From a folder to a cited answer, with fakes; what ingestion keeps equal; what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crossrag import (
    ConfigError,
    Done,
    FingerprintError,
    IndexMissingError,
    Rag,
    Settings,
    StoreError,
    StoreLockedError,
    UsageError,
)
from crossrag.config import IndexSettings, RerankingSettings
from crossrag.testing import CannedGenerator, HashedEmbedder, HashedTerms, OverlapReranker

if TYPE_CHECKING:
    from crossrag.indexing import Progress


def sources(rag: Rag) -> list[str]:
    return [document.source for document in rag.documents()]


def test_a_folder_becomes_a_cited_answer(rag: Rag, corpus: Path) -> None:
    report = rag.ingest(corpus)
    assert (report.added, report.failed, report.skipped) == (3, (), ())
    answer = rag.ask("How to restore a backup?")
    assert answer.status == "answered"
    assert "To restore a backup, stop the service and run the restore command. [1]" in answer.text
    assert answer.citations[0].source == "docs/backup.md, Backup"
    text = (corpus / "backup.md").read_text(encoding="utf-8")
    first = answer.citations[0]
    assert "restore command" in text[first.passage_start : first.passage_end]
    assert set(answer.timings) == {"prepare", "retrieve", "rerank", "context", "answer"}


def test_nothing_relevant_is_said_so(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    answer = rag.ask("boiling point of liquid helium")
    assert (answer.status, answer.citations, answer.context.sources) == ("no_answer", (), ())
    assert len(answer.ranking) > 0


def test_search_shows_what_every_stage_said(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    found = rag.search("blue whale", top_k=2)
    assert len(found) == 2
    assert found[0].chunk.source == "docs/whales.txt"
    scores = found[0].scores
    assert (scores.dense_rank, scores.sparse_rank, scores.fused_rank, scores.rerank_rank) == (1, 1, 1, 1)
    assert scores.relevance == 1.0


def test_filters_reach_the_answer(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    found = rag.search("restore a backup", where={"source": ["docs/whales.txt", "docs/office.html"]})
    assert {candidate.chunk.source for candidate in found} == {"docs/whales.txt", "docs/office.html"}
    with pytest.raises(UsageError, match="filter key"):
        rag.search("x", where={"a; DROP": "b"})


def test_a_second_run_embeds_nothing(rag: Rag, corpus: Path, embedder: HashedEmbedder) -> None:
    rag.ingest(corpus)
    calls, chunks = embedder.calls, rag.store.count()
    report = rag.ingest(corpus)
    assert (report.added, report.updated, report.unchanged, report.chunks) == (0, 0, 3, 0)
    assert (embedder.calls, rag.store.count()) == (calls, chunks)


def test_the_index_equals_the_folder_after_edits(rag: Rag, corpus: Path) -> None:
    (corpus / "long.txt").write_text("A sentence about nothing much. " * 200, encoding="utf-8")
    rag.ingest(corpus)
    before = rag.store.count()
    (corpus / "long.txt").write_text("Short now.", encoding="utf-8")
    (corpus / "whales.txt").unlink()
    (corpus / "new.md").write_text("# New\n\nQuite new.", encoding="utf-8")
    report = rag.ingest(corpus)
    assert (report.added, report.updated, report.unchanged, report.deleted) == (1, 1, 2, 1)
    assert sources(rag) == ["docs/backup.md", "docs/long.txt", "docs/new.md", "docs/office.html"]
    assert rag.store.count() == sum(document.chunks for document in rag.documents()) < before
    assert rag.store.count(str(corpus / "long.txt")) == 1
    assert all(candidate.chunk.source != "docs/whales.txt" for candidate in rag.search("blue whale"))


def test_documents_from_elsewhere_stay(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    rag.ingest(corpus)
    other = tmp_path / "other.txt"
    other.write_text("Something else.", encoding="utf-8")
    assert rag.ingest(other).deleted == 0
    assert len(sources(rag)) == 4


def test_a_bad_file_is_reported_and_the_others_are_indexed(rag: Rag, corpus: Path) -> None:
    (corpus / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (corpus / "film.mp4").write_bytes(b"\xff\xd8")
    (corpus / "empty.txt").write_text(" \n", encoding="utf-8")
    report = rag.ingest(corpus)
    assert report.added == 3
    assert [failure.source for failure in report.failed] == ["docs/broken.pdf"]
    assert {failure.source for failure in report.skipped} == {"docs/film.mp4", "docs/empty.txt"}


def test_what_was_cut_short_is_made_good(rag: Rag, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rag.ingest(corpus)
    (corpus / "backup.md").write_text("# Backup\n\nAll new text about whales.", encoding="utf-8")

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rag.manifest, "flip", cut)
        with pytest.raises(KeyboardInterrupt):
            rag.ingest(corpus)
    assert rag.ingest(corpus).updated == 1
    assert rag.store.count() == sum(document.chunks for document in rag.documents())


def test_progress_counts_the_files(rag: Rag, corpus: Path) -> None:
    seen: list[Progress] = []
    rag.ingest(corpus, progress=seen.append)
    assert [now.done for now in seen if now.stage == "comparing"] == [0, 1, 2]
    seen = [now for now in seen if now.stage == "indexing"]
    assert [now.done for now in seen] == [0, 1, 2, 3]
    assert {now.total for now in seen} == {3}


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_question_is_refused(rag: Rag, corpus: Path, query: str) -> None:
    rag.ingest(corpus)
    with pytest.raises(UsageError, match="empty"):
        rag.ask(query)


def test_missing_things_are_named(rag: Rag, tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="crossrag ingest"):
        rag.search("x")
    with pytest.raises(UsageError, match="does not exist"):
        rag.ingest(tmp_path / "nowhere")
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match="no files"):
        rag.ingest(tmp_path / "void")
    with pytest.raises(UsageError, match="Nothing to ingest"):
        rag.ingest()


def test_another_embedder_of_the_same_width_is_refused(rag: Rag, corpus: Path) -> None:
    class OtherEmbedder(HashedEmbedder):
        def __init__(self) -> None:
            super().__init__()
            self.fingerprint = "other:256"

    rag.ingest(corpus)
    rag.close()
    with Rag(rag.settings, embedder=OtherEmbedder(), sparse_encoder=HashedTerms()) as other:
        with pytest.raises(FingerprintError, match=r"hashed:256 -> other:256.*--rebuild"):
            other.search("x")
        assert other.ingest(corpus, rebuild=True).added == 3


def test_other_chunking_is_refused(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    rag.ingest(corpus)
    rag.close()
    other = Rag.open(tmp_path / "index", chunking={"size": 400})
    other.__dict__.update(embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    with pytest.raises(FingerprintError, match="characters:800:150"):
        other.ingest(corpus)


def test_a_second_process_is_told_who_holds_the_index(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    import os

    rag.ingest(corpus)
    script = (
        "import sys; from pathlib import Path; from crossrag.stores.edge import EdgeStore; import json\n"
        "path = Path(sys.argv[1]); stored = json.loads((path / 'fingerprint.json').read_text())\n"
        "EdgeStore(path, dimension=256, fingerprint=stored)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "index")]
    held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"open in another process (process {os.getpid()}" in held.stderr
    assert StoreLockedError.__name__ in held.stderr
    assert rag.search("blue whale")[0].chunk.source == "docs/whales.txt"
    rag.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_killed_ingestion_leaves_an_index_that_opens(corpus: Path, tmp_path: Path) -> None:
    for number in range(30):
        (corpus / f"{number}.txt").write_text(f"Document {number} about backups. " * 50, encoding="utf-8")
    script = (
        "import os, sys; from crossrag import Rag, Settings; from crossrag.config import IndexSettings\n"
        "from crossrag.testing import HashedEmbedder, HashedTerms\n"
        "rag = Rag(Settings(index=IndexSettings(path=sys.argv[1])), embedder=HashedEmbedder(),"
        " sparse_encoder=HashedTerms())\n"
        "from crossrag import indexing; indexing._BATCH = indexing._UNSETTLED_BATCHES = 1\n"
        "kill = lambda now: os.kill(os.getpid(), 9) if (now.stage, now.done) == ('indexing', 20) else None\n"
        "rag.ingest(sys.argv[2], progress=kill)"
    )
    index = tmp_path / "killed"
    killed = subprocess.run([sys.executable, "-c", script, str(index), str(corpus)], check=False)
    assert killed.returncode == -9
    settings = Settings(index=IndexSettings(path=index), reranking=RerankingSettings(model="none"))
    with Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms()) as rag:
        assert rag.ingest(corpus).unchanged == 20
        assert rag.store.count() == sum(document.chunks for document in rag.documents())
        assert len(sources(rag)) == 33


def test_same_input_same_output(corpus: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        settings = Settings(index=IndexSettings(path=tmp_path / name))
        with Rag(
            settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), reranker=OverlapReranker()
        ) as rag:
            rag.ingest(corpus)
            found.append((rag.search("service backup").candidates, rag.ask("restore a backup").text))
    assert found[0] == found[1]


def test_without_a_reranker_the_fused_order_stands(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    rag.ingest(corpus)
    rag.close()
    settings = Settings(
        index=IndexSettings(path=tmp_path / "index"), reranking=RerankingSettings(model="none")
    )
    generator = CannedGenerator(["Restore it [1]."])
    with Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), generator=generator) as plain:
        assert plain.search("restore a backup")[0].chunk.source == "docs/backup.md"
        *_, last = plain.stream("restore a backup")
        assert isinstance(last, Done)
        assert last.answer.citations[0].source.startswith("docs/backup.md")


def test_what_a_killed_run_wrote_goes_when_its_file_goes(
    rag: Rag, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(corpus)
    (corpus / "secret.txt").write_text("The secret plan of the whales.", encoding="utf-8")
    _cut_before_the_flip(rag, corpus, monkeypatch)
    (corpus / "secret.txt").unlink()
    assert rag.ingest(corpus).added == 0
    assert all(candidate.chunk.source != "docs/secret.txt" for candidate in rag.search("secret plan"))


def test_a_killed_update_is_undone_when_the_old_text_comes_back(
    rag: Rag, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(corpus)
    old = (corpus / "whales.txt").read_text(encoding="utf-8")
    (corpus / "whales.txt").write_text("Whales are fish.", encoding="utf-8")
    _cut_before_the_flip(rag, corpus, monkeypatch)
    (corpus / "whales.txt").write_text(old, encoding="utf-8")
    rag.ingest(corpus)
    assert rag.search("Whales are")[0].chunk.text == old.strip()


def _cut_before_the_flip(rag: Rag, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rag.manifest, "flip", cut)
        with pytest.raises(KeyboardInterrupt):
            rag.ingest(corpus)


def test_a_rebuild_that_cannot_be_done_leaves_the_index(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    rag.ingest(corpus)
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match="no files"):
        rag.ingest(tmp_path / "void", rebuild=True)
    assert rag.store.count() > 0


def test_a_rebuild_with_other_settings_spares_an_index_in_use(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    script = (
        "import sys; from crossrag import Rag, Settings\n"
        "from crossrag.config import ChunkingSettings, IndexSettings\n"
        "from crossrag.testing import HashedEmbedder, HashedTerms\n"
        "settings = Settings(index=IndexSettings(path=sys.argv[1]), chunking=ChunkingSettings(size=300))\n"
        "rag = Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())\n"
        "rag.ingest(sys.argv[2], rebuild=True)"
    )
    command = [sys.executable, "-c", script, str(rag.settings.index.path), str(corpus)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert StoreLockedError.__name__ in refused.stderr
    rag.close()
    assert rag.search("blue whale")[0].chunk.source == "docs/whales.txt"
    rag.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("damaged", ["fingerprint.json", "shard/edge_config.json"])
def test_a_rebuild_mends_a_damaged_index(rag: Rag, corpus: Path, damaged: str) -> None:
    rag.ingest(corpus)
    rag.close()
    (rag.settings.index.path / damaged).write_text("", encoding="utf-8")
    with pytest.raises(StoreError):
        rag.search("whale")
    assert rag.ingest(corpus, rebuild=True).added == 3


def test_names_that_are_no_utf8_are_indexed(rag: Rag, corpus: Path) -> None:
    import os

    odd = os.fsdecode(b"caf\xe9.txt")
    (corpus / odd).write_text("Coffee is served all day long.", encoding="utf-8")
    assert rag.ingest(corpus).added == 4
    assert rag.search("coffee served")[0].chunk.source == "docs/caf\ufffd.txt"
    (corpus / odd).unlink()
    assert rag.ingest(corpus).deleted == 1


def test_tenants_share_an_index_and_nothing_else(rag: Rag, corpus: Path, tmp_path: Path) -> None:
    rag.ingest(corpus)
    rag.close()
    settings = rag.settings.model_copy(
        update={"index": IndexSettings(path=tmp_path / "index", tenant="guests")}
    )
    with Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms()) as guests:
        assert guests.documents() == []
        assert len(guests.search("blue whale")) == 0
        assert guests.ingest(corpus / "whales.txt").added == 1
        assert [found.chunk.source for found in guests.search("restore a backup")] == ["whales.txt"]
        with pytest.raises(UsageError, match="other tenants"):
            guests.ingest(corpus, rebuild=True)
        assert guests.ingest(corpus / "whales.txt").unchanged == 1
    assert len(rag.documents()) == 3
    assert rag.search("restore a backup")[0].chunk.source == "docs/backup.md"
    with pytest.raises(ConfigError, match=r"index\.tenant"):
        Rag.open(index={"tenant": "../x"})
