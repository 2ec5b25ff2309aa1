"""Order, NaN, depth, fallback and threshold of the reranking stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from crossrag.errors import ModelError
from crossrag.reranking import relevant, rerank
from crossrag.types import Candidate, Chunk, Relevance, Scores


class Scripted:
    """Gives the numbers it was made with."""

    fingerprint = "scripted"

    def __init__(self, *logits: float, unread: Sequence[int] = ()) -> None:
        self.logits, self.unread = logits, unread
        self.seen: Sequence[str] = ()

    def score(self, query: str, texts: Sequence[str], **_: Any) -> Relevance:  # noqa: ARG002
        self.seen = texts
        logits = self.logits[: len(texts)]
        return Relevance(
            relevance=tuple(
                1 / (1 + math.exp(-logit)) if math.isfinite(logit) else math.nan for logit in logits
            ),
            logit=logits,
            truncated=(False,) * len(texts),
            unread=tuple(position in self.unread for position in range(len(texts))),
        )


class Broken:
    fingerprint = "broken"

    def score(self, query: str, texts: Sequence[str], **_: Any) -> Relevance:  # noqa: ARG002
        raise ModelError("the model is gone")


def candidates(count: int) -> list[Candidate]:
    return [
        Candidate(
            chunk=Chunk(
                id=str(number),
                document_id="d",
                source="d.md",
                text=f"text {number}",
                start=0,
                end=6,
                position=number,
            ),
            scores=Scores(dense=0.5, fused=1.0 / number, fused_rank=number),
        )
        for number in range(1, count + 1)
    ]


def ids(found: Sequence[Candidate]) -> list[str]:
    return [candidate.chunk.id for candidate in found]


def test_the_reranker_decides_the_order_and_ranks_are_kept() -> None:
    done = rerank("q", candidates(3), reranker=Scripted(-1.0, 3.0, 0.0))
    assert ids(done.candidates) == ["2", "3", "1"]
    assert [candidate.scores.rerank_rank for candidate in done.candidates] == [1, 2, 3]
    assert [candidate.scores.fused_rank for candidate in done.candidates] == [2, 3, 1]


def test_ties_keep_the_first_stage_order() -> None:
    assert ids(rerank("q", candidates(4), reranker=Scripted(1.0, 2.0, 1.0, 2.0)).candidates) == [
        "2",
        "4",
        "1",
        "3",
    ]


def test_only_the_first_ones_are_read_and_the_others_follow() -> None:
    reranker = Scripted(0.0, 5.0)
    done = rerank("q", candidates(4), reranker=reranker, depth=2)
    assert list(reranker.seen) == ["text 1", "text 2"]
    assert ids(done.candidates) == ["2", "1", "3", "4"]
    assert done.candidates[2].scores.relevance is None


def test_numbers_that_are_none_rank_last_and_are_counted() -> None:
    done = rerank("q", candidates(4), reranker=Scripted(math.nan, -9.0, math.inf, 1.0))
    assert ids(done.candidates) == ["4", "2", "1", "3"]
    assert done.notices == ("2 of 4 passages got no finite score and rank last",)
    assert done.degraded == ()


def test_what_was_not_read_in_time_is_said() -> None:
    done = rerank("q", candidates(3), reranker=Scripted(math.nan, 1.0, math.nan, unread=(0, 2)))
    assert ids(done.candidates) == ["2", "1", "3"]
    assert done.degraded == ("rerank",)
    assert done.notices == ("Time was up: 2 of 3 passages were not read and keep their first-stage order",)


def test_without_a_working_reranker_the_first_stage_order_stands() -> None:
    done = rerank("q", candidates(2), reranker=Broken())
    assert ids(done.candidates) == ["1", "2"]
    assert done.degraded == ("rerank",)
    assert "the model is gone" in done.notices[0]
    assert ids(relevant(done.candidates, threshold=0.9, top_k=1)) == ["1"]


def test_the_threshold_is_inclusive_and_drops_what_was_not_scored() -> None:
    done = rerank("q", candidates(4), reranker=Scripted(0.0, 4.0, -4.0), depth=3)
    assert ids(relevant(done.candidates, threshold=0.5, top_k=10)) == ["2", "1"]
    assert ids(relevant(done.candidates, threshold=0.5, top_k=1)) == ["2"]
    assert relevant(done.candidates, threshold=0.999, top_k=10) == ()
