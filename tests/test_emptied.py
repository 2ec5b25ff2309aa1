"""Documents whose files have no text any more go together, whatever else the run comes upon."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag import LoadError

from .test_sync import digest, fresh, lines, opened, write


def test_documents_that_became_empty_go_at_once(in_own_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = in_own_memory / "files"
    write(docs, always="Always.", **{f"n{number}": lines(f"n{number}", 1, 2) for number in range(8)})
    with opened(in_own_memory / "index") as rag:
        rag.ingest(docs)
        write(docs, **{f"n{number}": "" for number in range(8)})
        flushes: list[int] = []
        flush = rag.store.flush

        def counted() -> None:
            flushes.append(1)
            flush()

        monkeypatch.setattr(rag.store, "flush", counted)
        report = rag.ingest(docs)
        assert (len(report.skipped), report.unchanged, len(rag.documents())) == (8, 1, 1)
        assert len(flushes) == 1
        assert digest(rag) == fresh(docs, in_own_memory / "fresh")


def test_they_go_also_where_a_later_file_stops_the_run(in_own_memory: Path) -> None:
    docs = in_own_memory / "files"
    write(docs, a="Text.", b="More.")
    with opened(in_own_memory / "index") as rag:
        rag.ingest(docs)
        write(docs, a="")
        (docs / "c.pdf").write_bytes(b"no pdf")
        with pytest.raises(LoadError, match="--fail-fast"):
            rag.ingest(docs, fail_fast=True)
        assert [entry.source for entry in rag.documents()] == ["files/b.txt"]
