"""What a document of LangChain's holds after it was read."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document

from crossrag.integrations.langchain.scoring import Scored, with_score


def test_whoever_changes_what_comes_out_changes_nothing_that_came_in() -> None:
    given = Document("text", metadata={"deep": {"n": 1}})
    out = with_score(Scored(given, 0.5))
    out.metadata["deep"]["n"] = 2
    assert given.metadata == {"deep": {"n": 1}}
    assert out.metadata["relevance_score"] == 0.5
    assert "rerank_truncated" not in out.metadata


def test_an_end_that_was_not_read_is_said() -> None:
    assert with_score(Scored(Document("text"), 0.5, truncated=True)).metadata["rerank_truncated"] is True
