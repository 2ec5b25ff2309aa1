"""Any sequence of changes to files and of runs, whole and failing, ends as a new index of the files would."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crossrag import Rag, indexing, maintenance, verifying

from .conftest import memory
from .test_sync import Faulty, opened

NAMES = st.sampled_from(["a.txt", "b.txt", "c.md", "sub/d.txt", "sub/e.md"])
TEXTS = st.sampled_from(
    [
        "",
        "Short.",
        "# Title\n\nOne two three.",
        *(f"Word {number} in a line.\n\n" * (number + 1) for number in range(6)),
    ]
)


class Sync(RuleBasedStateMachine):
    """Files in a folder and an index of it; `expected` is what a new index of the folder holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory()))
        self.docs = self.folder / "docs"
        (self.docs / "sub").mkdir(parents=True)
        (self.docs / "always.txt").write_text("This file is always there.", encoding="utf-8")
        self.rag = opened(self.folder / "index")
        self.equal = False

    def teardown(self) -> None:
        self.rag.close()
        shutil.rmtree(self.folder)

    @rule(name=NAMES, text=TEXTS)
    def write(self, name: str, text: str) -> None:
        (self.docs / name).write_text(text, encoding="utf-8")
        self.equal = False

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.docs / name).unlink(missing_ok=True)
        self.equal = False

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if (self.docs / old).exists():
            (self.docs / old).replace(self.docs / new)
            self.equal = False

    @rule(name=NAMES)
    def touch(self, name: str) -> None:
        if (self.docs / name).exists():
            os.utime(self.docs / name)

    @rule()
    def ingest(self) -> None:
        report = self.rag.ingest(self.docs)
        assert report.failed == ()
        self.equal = True

    @rule(number=st.integers(1, 12))
    def ingest_and_fail(self, number: int) -> None:
        countdown = [number]
        pair = self.rag.index._pair
        store, manifest = pair.store(create=True), pair.manifest
        calls = {"upsert", "flush", "delete_document", "scan", "begin", "flip", "forget"}
        pair.__dict__["_store"] = Faulty(store, calls, countdown)
        pair.__dict__["_manifest"] = Faulty(manifest, calls, countdown)
        try:
            with suppress(OSError):
                self.rag.ingest(self.docs)
                self.equal = True
        finally:
            pair._store, pair._manifest = store, manifest

    @rule()
    def open_again(self) -> None:
        self.rag.close()

    @precondition(lambda self: self.rag.documents())
    @rule()
    def reindex(self) -> None:
        known = {entry.id for entry in self.rag.documents()}
        maintenance.reindex(self.rag.index, drop_missing=True)
        assert {entry.id for entry in self.rag.documents()} <= known

    @invariant()
    def equals_a_new_index(self) -> None:
        if not self.equal:
            return
        shutil.rmtree(self.folder / "fresh", ignore_errors=True)
        with opened(self.folder / "fresh") as fresh:
            fresh.ingest(self.docs)
            expected = verifying.digest(fresh.store)
        verdict = maintenance.verify(self.rag.index, vectors=True)
        assert verdict.differences == ()
        assert verdict.digest == expected
        self.equal = False

    @invariant()
    def searches_find_whole_documents(self) -> None:
        if (self.folder / "index").exists() and self.rag.documents():
            counts = _visible(self.rag)
            assert counts == {entry.id: entry.chunks for entry in self.rag.documents()}


def _visible(rag: Rag) -> dict[str, int]:
    found = rag.search("word title short file", top_k=1_000)
    counts: dict[str, int] = {}
    for one in found:
        counts[one.chunk.document_id] = counts.get(one.chunk.document_id, 0) + 1
    return counts


def run(monkeypatch: pytest.MonkeyPatch, *, examples: int, steps: int) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 2)
    run_state_machine_as_test(
        Sync,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            derandomize="STRESS_SEED" not in os.environ,
        ),
    )


def test_any_sequence_of_changes_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, examples=20, steps=15)


@pytest.mark.stress
def test_long_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, examples=int(os.environ.get("STRESS_EXAMPLES", "300")), steps=40)
