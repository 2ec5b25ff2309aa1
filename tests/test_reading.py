"""How files come into an index: by parsers with limits, with what else is known of them, and with notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag import Rag, Settings, archive, loading, maintenance
from crossrag.cli import show, upkeep
from crossrag.config import ChunkingSettings, IndexSettings, RerankingSettings
from crossrag.loading_settings import LoadingSettings
from crossrag.planning import Selection
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.verifying import Difference

if TYPE_CHECKING:
    from crossrag.protocols import Store

PDF = Path(loading.__file__).parents[1] / "examples" / "quick-reference.pdf"


@pytest.fixture
def tmp_path(in_own_memory: Path) -> Path:
    """In place of pytest's own: the same, in memory."""
    return in_own_memory


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "leave.md").write_text(
        "---\nyear: 2024\n---\n# Leave\n\nThirty days a year.\n", encoding="utf-8"
    )
    (folder / "sub" / "pay.txt").write_text("Pay comes on the last day of the month.\n", encoding="utf-8")
    describe(folder, {"source": "sub/pay.txt", "team": "people", "year": 2020})
    return folder


def describe(folder: Path, *rows: dict[str, Any]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def opened(index: Path, embedder: HashedEmbedder | None = None, tenant: str = "", **limits: Any) -> Rag:
    settings = Settings(
        index=IndexSettings(path=index, tenant=tenant),
        loading=LoadingSettings(**limits),
        chunking=ChunkingSettings(size=200, overlap=0),
        reranking=RerankingSettings(model="none"),
    )
    return Rag(settings, embedder=embedder or HashedEmbedder(), sparse_encoder=HashedTerms())


@pytest.fixture
def embedder() -> HashedEmbedder:
    return HashedEmbedder()


@pytest.fixture
def rag(tmp_path: Path, embedder: HashedEmbedder) -> Iterator[Rag]:
    with opened(tmp_path / "index", embedder) as made:
        yield made


def sources(rag: Rag, where: dict[str, Any]) -> list[str]:
    return sorted({found.chunk.source for found in rag.search("days of the year", top_k=50, where=where)})


def test_a_file_beyond_a_limit_fails_alone(docs: Path, tmp_path: Path) -> None:
    (docs / "long.txt").write_text("word " * 1000, encoding="utf-8")
    with opened(tmp_path / "index", text_characters=1000) as rag:
        report = rag.ingest(docs)
        assert (report.added, [failure.source for failure in report.failed]) == (2, ["docs/long.txt"])
        assert "more than 1000" in report.failed[0].reason


def test_a_parser_is_a_process_that_ends_with_the_run(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PDF, docs)
    taken = loading.Loader._started
    processes = []

    def noted(loader: loading.Loader) -> Any:
        processes.append(taken(loader))
        return processes[-1]

    monkeypatch.setattr(loading.Loader, "_started", noted)
    with opened(tmp_path / "index") as rag:
        assert rag.ingest(docs).added == 3
        assert len(processes) == 1
        assert not any(process.alive for process in processes)


def test_chosen_fields_are_what_is_indexed_and_part_of_the_recipe(docs: Path, tmp_path: Path) -> None:
    (docs / "people.csv").write_text("name,salary\nAnna,1000\nBen,2000\n", encoding="utf-8")
    with opened(tmp_path / "index") as rag:
        rag.ingest(docs)
        assert any("salary" in found.chunk.text for found in rag.search("Anna"))
    with opened(tmp_path / "index", fields="name, role") as rag:
        assert rag.settings.loading.fields == ("name", "role")
        assert rag.ingest(docs).updated == 3
        assert not any("salary" in found.chunk.text for found in rag.search("Anna"))


def test_metadata_can_be_filtered_by(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    assert sources(rag, {"year": {"gte": 2021}}) == ["docs/leave.md"]
    assert sources(rag, {"team": "people"}) == ["docs/sub/pay.txt"]
    assert sources(rag, {"not": {"team": ["people", "law"]}}) == ["docs/leave.md"]


def test_another_metadata_file_is_another_state_of_what_it_describes(
    rag: Rag, docs: Path, embedder: HashedEmbedder, tmp_path: Path
) -> None:
    rag.ingest(docs)
    calls = embedder.calls
    describe(docs, {"source": "sub/pay.txt", "team": "law", "year": 2020})
    report = rag.ingest(docs)
    assert (report.updated, report.unchanged, report.embedded, embedder.calls) == (1, 1, 0, calls)
    assert (sources(rag, {"team": "law"}), sources(rag, {"team": "people"})) == (["docs/sub/pay.txt"], [])
    assert rag.ingest(docs).unchanged == 2
    # A file given by name, and what is made anew from the file alone, keep what is known of them.
    describe(docs / "sub", {"source": "pay.txt", "grade": 3})
    assert rag.ingest(docs).updated == 1
    before = maintenance.verify(rag.index, vectors=True).digest
    assert maintenance.reindex(rag.index).added == 2
    assert maintenance.verify(rag.index, vectors=True).digest == before
    assert rag.ingest(docs).unchanged == 2
    archive.export(rag.index, tmp_path / "moved.crossrag")
    with opened(tmp_path / "other") as other:
        archive.load(other.index, tmp_path / "moved.crossrag")
        assert other.ingest(docs).unchanged == 2


def test_what_cannot_be_kept_is_told(rag: Rag, docs: Path) -> None:
    describe(docs, {"source": "gone.md", "team": "x"}, {"source": "sub/pay.txt", "team": {"a": 1}})
    (docs / "leave.md").write_text("---\nyear: [1, {a: 2}]\n---\nThirty days.\n", encoding="utf-8")
    notices = rag.ingest(docs).notices
    assert any("metadata.jsonl, line 1" in notice and "gone.md" in notice for notice in notices)
    assert any("metadata.jsonl, line 2" in notice for notice in notices)
    assert any(notice.startswith("docs/leave.md: ") for notice in notices)
    assert rag.plan(docs).notices


def test_ignored_files_are_left_out_unless_wanted(rag: Rag, docs: Path) -> None:
    (docs / ".gitignore").write_text("sub/\n", encoding="utf-8")
    assert rag.ingest(docs).added == 1
    assert rag.ingest(docs, selection=Selection(gitignore=False)).added == 1


def test_tenants_over_the_same_files_never_touch_each_other(docs: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "index", tenant="red") as red:
        red.ingest(docs)
        digest = maintenance.verify(red.index, vectors=True).digest
    with opened(tmp_path / "index", tenant="blue") as blue:
        assert (blue.documents(), blue.store.count(), list(blue.search("days"))) == ([], 0, [])
        assert blue.ingest(docs).added == 2
        assert blue.index.count() == blue.store.count() == 2
        assert maintenance.verify(blue.index).agrees
        (docs / "leave.md").unlink()
        assert blue.ingest(docs).deleted == 1
        assert maintenance.delete(blue.index, ["docs/sub/*"]) == ["docs/sub/pay.txt"]
        assert maintenance.repair(blue.index).found == ()
        assert blue.store.count() == 0
    with opened(tmp_path / "index", tenant="red") as red:
        verdict = maintenance.verify(red.index, vectors=True)
        assert (verdict.digest, verdict.differences, verdict.documents) == (digest, (), 2)
        assert sources(red, {"year": 2024}) == ["docs/leave.md"]


def test_passages_are_counted_once_for_each_state_of_the_index(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(docs)
    asked = []
    count = type(rag.store).count

    def counted(store: Store, document_id: str | None = None) -> int:
        asked.append(document_id)
        return count(store, document_id)

    monkeypatch.setattr(type(rag.store), "count", counted)
    assert [found.scores.indexed for found in rag.search("days")] == [2, 2]
    rag.search("pay")
    assert len(asked) == 1
    (docs / "leave.md").unlink()
    rag.ingest(docs)
    assert [found.scores.indexed for found in rag.search("days")] == [1]


def test_explain_names_what_was_collapsed(rag: Rag, docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "The walrus rests on the ice and dives for clams at the bottom of the shallow sea all day long."
    (docs / "one.txt").write_text(text, encoding="utf-8")
    (docs / "two.txt").write_text(text + "\n\n", encoding="utf-8")
    rag.ingest(docs)
    show.ranking(rag.search("walrus on the ice"), explain=True, as_json=False)
    assert "nearly the same: docs/two.txt" in capsys.readouterr().out


def test_a_thousand_differences_of_a_kind_are_not_printed_one_by_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Difference(kind="unfinished", document_id="/a", source="a", text="cut short")
    upkeep._differences((one,) * 1000)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 21
    assert "980 more" in printed[-1]
