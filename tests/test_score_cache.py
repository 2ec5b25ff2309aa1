"""What is remembered is not asked again, and is the same; what was not final is asked again."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag import assembly
from crossrag.config import IndexSettings, RerankHttpSettings, RerankingSettings, Settings
from crossrag.errors import ConfigError, StoreError
from crossrag.score_cache import CachedReranker, is_memorable
from crossrag.server.batching import shared
from crossrag.server.service import Service
from crossrag.testing import OverlapReranker, RerankerContract
from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    from crossrag.protocols import Reranker

QUERY = "restore a backup"
TEXTS = ("Restore the backup.", "A backup", "Whales", "Restore")


class Counting:
    """An OverlapReranker that notes what it is asked and may say more, or worse, of it."""

    def __init__(
        self, change: Callable[[Relevance], Relevance] = lambda said: said, *, fingerprint: str = "overlap"
    ) -> None:
        self.asked: list[str] = []
        self.change, self.fingerprint = change, fingerprint

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        assert first_stage is None or len(first_stage) == len(texts)
        self.asked += texts
        said = OverlapReranker().score(query, texts, top_k=top_k, deadline=deadline)
        return self.change(said) if texts else said

    def taken(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def cache(inner: Counting, tmp_path: Path) -> Iterator[CachedReranker]:
    with closing(CachedReranker(inner, tmp_path / "new" / "scores.sqlite")) as made:
        yield made


class TestContract(RerankerContract):
    @pytest.fixture
    def reranker(self, cache: CachedReranker) -> Reranker:
        return cache


def test_the_second_time_nothing_is_asked_and_the_numbers_are_the_same(
    cache: CachedReranker, inner: Counting
) -> None:
    first = cache.score(QUERY, TEXTS)
    assert inner.taken() == list(TEXTS)
    assert first == OverlapReranker().score(QUERY, TEXTS)
    assert cache.score(QUERY, TEXTS) == first
    assert inner.taken() == []


def test_only_what_is_missing_is_asked_and_every_score_finds_its_place(
    cache: CachedReranker, inner: Counting
) -> None:
    cache.score(QUERY, [TEXTS[1], TEXTS[3]])
    inner.taken()
    mixed = (TEXTS[2], TEXTS[3], TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[3])
    said = cache.score(QUERY, mixed, first_stage=None)
    assert set(inner.taken()) == {TEXTS[0], TEXTS[2]}
    assert said == OverlapReranker().score(QUERY, mixed)


def test_another_question_reranker_or_first_stage_is_another_score(tmp_path: Path) -> None:
    def asked(query: str, scores: Scores | None, fingerprint: str = "overlap") -> bool:
        inner = Counting(fingerprint=fingerprint)
        with closing(CachedReranker(inner, tmp_path / "scores.sqlite")) as cache:
            cache.score(query, [TEXTS[0]], first_stage=None if scores is None else [scores])
        return bool(inner.asked)

    known = Scores(dense=0.5, sparse=1.0, fused_rank=1)
    assert asked(QUERY, known)
    assert not asked(QUERY, known)
    assert not asked(QUERY, Scores(dense=0.5, sparse=1.0, fused_rank=7))  # no reranker sees ranks
    assert asked(QUERY, Scores(dense=0.5, sparse=1.5))
    assert asked(QUERY, Scores(dense=0.25, sparse=1.0))
    assert asked(QUERY, None)
    assert asked("another question", known)
    assert asked(QUERY, known, "another reranker")


def test_first_stage_scores_go_with_their_texts(tmp_path: Path) -> None:
    class Dense(Counting):
        def score(
            self,
            query: str,
            texts: Sequence[str],
            *,
            first_stage: Sequence[Scores] | None = None,
            **_: object,
        ) -> Relevance:
            said = super().score(query, texts, first_stage=first_stage)
            return replace(said, logit=tuple(scores.dense or 0.0 for scores in first_stage or ()))

    stages = [Scores(dense=0.1 * place) for place in range(4)]
    with closing(CachedReranker(Dense(), tmp_path / "scores.sqlite")) as cache:
        cache.score(QUERY, TEXTS[1:2], first_stage=stages[1:2])
        assert cache.score(QUERY, TEXTS, first_stage=stages).logit == tuple(scores.dense for scores in stages)


def nan_first(said: Relevance) -> Relevance:
    return replace(said, relevance=(math.nan, *said.relevance[1:]), logit=(math.nan, *said.logit[1:]))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        pytest.param(lambda said: replace(said, unread=(True, False)), TEXTS[:1], id="unread"),
        pytest.param(lambda said: replace(said, hurried=True), TEXTS[:2], id="hurried"),
        pytest.param(nan_first, TEXTS[:1], id="NaN"),
        pytest.param(lambda said: replace(said, relevance=(math.nan, 0.5)), TEXTS[:1], id="NaN relevance"),
        pytest.param(lambda said: replace(said, logit=(math.inf, 0.5)), TEXTS[:1], id="infinite"),
    ],
)
def test_what_was_not_final_is_given_but_not_kept(
    change: Callable[[Relevance], Relevance], again: tuple[str, ...], cache: CachedReranker, inner: Counting
) -> None:
    inner.change = change
    said = cache.score(QUERY, TEXTS[:2])
    # As text: NaN is not equal to itself.
    assert str(said) == str(change(OverlapReranker().score(QUERY, TEXTS[:2])))
    inner.change = lambda said: said
    inner.taken()
    final = cache.score(QUERY, TEXTS[:2])
    assert inner.taken() == list(again)
    assert (final.hurried, final.unread) == (False, (False, False))
    assert final.logit[0] == OverlapReranker().score(QUERY, TEXTS[:1]).logit[0]


def test_everything_that_was_said_survives_closing(tmp_path: Path) -> None:
    def rich(said: Relevance) -> Relevance:
        return replace(
            said,
            truncated=(True, False),
            layers=(6, 6),
            windows=((0, 9), None),
            query_truncated=True,
        )

    path = tmp_path / "scores.sqlite"
    with closing(CachedReranker(Counting(rich), path)) as cache:
        first = cache.score(QUERY, TEXTS[:2])
    again = Counting()
    with closing(CachedReranker(again, path)) as cache:
        assert cache.score(QUERY, TEXTS[:2]) == first == rich(OverlapReranker().score(QUERY, TEXTS[:2]))
    assert again.asked == []


def test_texts_are_not_in_the_file(cache: CachedReranker, tmp_path: Path) -> None:
    cache.score("secretquestion", ["secretpassage"])
    cache.close()
    files = [path for path in (tmp_path / "new").iterdir() if path.is_file()]
    assert files
    assert not any(b"secret" in path.read_bytes() for path in files)


def test_of_too_many_the_oldest_go(inner: Counting, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(21)]
    with closing(CachedReranker(inner, tmp_path / "scores.sqlite", most=20)) as cache:
        for text in texts[:20]:
            cache.score(QUERY, [text])
        inner.taken()
        cache.score(QUERY, texts[:20])
        assert inner.taken() == []
        cache.score(QUERY, texts[20:])  # one too many: a tenth goes with it
        inner.taken()
        cache.score(QUERY, texts)
        assert inner.taken() == texts[:3]


def test_a_file_that_is_something_else_is_refused(inner: Counting, tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"These are no scores at all. " * 200)
    with pytest.raises(StoreError, match=r"scores\.sqlite cannot be used: .*Delete the file"):
        CachedReranker(inner, path)
    with pytest.raises(StoreError, match="cannot be used"):
        CachedReranker(inner, path / "below" / "scores.sqlite")


def test_damage_within_the_file_costs_no_score(
    inner: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scores.sqlite"
    texts = [f"text {number}" for number in range(500)]
    with closing(CachedReranker(inner, path)) as cache:
        cache.score(QUERY, texts)
    data = path.read_bytes()
    assert len(data) > 3 * 4096
    path.write_bytes(data[:4096] + b"\x5a" * (len(data) - 4096))
    with closing(CachedReranker(inner, path)) as cache:
        assert cache.score(QUERY, texts) == OverlapReranker().score(QUERY, texts)
    assert "scores.sqlite cannot be used: database disk image is malformed. Delete the file" in caplog.text


def test_what_cannot_be_written_is_said_once_and_tried_again_later(
    cache: CachedReranker,
    inner: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(sqlite3.connect(tmp_path / "new" / "scores.sqlite", isolation_level=None)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON score BEGIN SELECT RAISE(ABORT, 'full'); END")
        monkeypatch.setattr("crossrag.score_cache._REST", 0.0)
        for _ in range(3):
            assert cache.score(QUERY, TEXTS) == OverlapReranker().score(QUERY, TEXTS)
        assert caplog.text.count("cannot be used: full") == len(caplog.records) == 1
        other.execute("DROP TRIGGER full")
    cache.score(QUERY, TEXTS)
    inner.taken()
    cache.score(QUERY, TEXTS)
    assert inner.taken() == []


def test_a_file_that_another_program_holds_stalls_nobody(
    cache: CachedReranker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(tmp_path / "new" / "scores.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            questions = [f"{QUERY} {number}" for number in range(40)]
            said = list(threads.map(lambda question: cache.score(question, TEXTS), questions))
        assert time.monotonic() - begun < 3
        assert said == [OverlapReranker().score(question, TEXTS) for question in questions]
        other.execute("ROLLBACK")
    assert len(caplog.records) == 1
    assert "database is locked. Another program holds it" in caplog.text
    assert "Delete" not in caplog.text


def test_rows_are_not_counted_to_write_a_few(cache: CachedReranker) -> None:
    seen: list[str] = []
    cache._database.set_trace_callback(seen.append)
    cache.score(QUERY, TEXTS)
    assert any("INSERT" in statement for statement in seen)
    assert not any("COUNT" in statement for statement in seen)


def test_what_left_early_is_remembered_for_the_same_texts(tmp_path: Path) -> None:
    """A repeated question costs nothing; another set of texts is judged anew, all of it together."""
    inner = Counting(
        lambda said: replace(said, layers=tuple(6 if place < 2 else 2 for place in range(len(said.logit))))
    )
    counts = []
    with closing(CachedReranker(inner, tmp_path / "scores")) as cache:
        first = cache.score(QUERY, TEXTS, top_k=2)
        for texts, top_k in ((TEXTS, 2), (TEXTS[:3], 2), (TEXTS, 3)):
            before = len(inner.asked)
            assert cache.score(QUERY, texts, top_k=top_k).logit == first.logit[: len(texts)]
            counts.append(len(inner.asked) - before)
    assert counts == [0, 3, 4]


class Leaving(OverlapReranker):
    """Reads the first `top_k` of its texts to the end; the others get a forecast from their company."""

    fingerprint = "leaving"

    def score(self, query: str, texts: Sequence[str], *, top_k: int | None = None, **_: object) -> Relevance:
        said = super().score(query, texts)
        staying = len(texts) if top_k is None else top_k
        return replace(
            said,
            layers=tuple(6 if place < staying else 2 for place in range(len(texts))),
            logit=tuple(
                value if place < staying else -len(texts) - place for place, value in enumerate(said.logit)
            ),
        )


@given(
    st.lists(
        st.tuples(
            st.permutations([*TEXTS, "A restored backup"]),
            st.integers(0, 5),
            st.sampled_from([None, 1, 2, 4]),
        ),
        max_size=8,
    ),
    st.sampled_from([Leaving(), OverlapReranker()]),
)
def test_what_is_said_does_not_depend_on_what_was_asked_before(
    asked: list[tuple[list[str], int, int | None]], inner: Reranker
) -> None:
    with TemporaryDirectory() as folder, closing(CachedReranker(inner, Path(folder) / "scores")) as cache:
        for order, count, top_k in asked:
            texts = order[:count]
            assert cache.score(QUERY, texts, top_k=top_k) == inner.score(QUERY, texts, top_k=top_k)


def test_what_a_server_may_exchange_is_remembered_with_a_revision_only(tmp_path: Path) -> None:
    """A server of the same address and name may serve another model tomorrow."""

    def made(revision: str | None, cache: Path | None) -> Reranker:
        reranker = assembly.reranker(
            Settings(
                reranking=RerankingSettings(model="http:tei", cache=cache),
                rerank_http=RerankHttpSettings(base_url="http://127.0.0.1:9", revision=revision),
            )
        )
        assert reranker is not None
        return reranker

    path = tmp_path / "scores.sqlite"
    with pytest.raises(ConfigError, match=r"http:tei:http://127.0.0.1:9: .*Set rerank_http\.revision"):
        made(None, path)
    for wrapped in (made(None, None), shared(made(None, None), batch_tokens=1_024)):
        assert not is_memorable(wrapped)
    assert is_memorable(shared(made("a", None), batch_tokens=1_024))
    for revision, remembers in ((None, False), ("a", True)):
        served = Service(
            Settings(
                index=IndexSettings(path=tmp_path / f"{remembers}"),
                reranking=RerankingSettings(model="http:tei"),
                rerank_http=RerankHttpSettings(base_url="http://127.0.0.1:9", revision=revision),
            )
        )
        one = served._made_reranker()
        assert isinstance(one, CachedReranker) is remembers
        one.close()  # type: ignore[union-attr]
        served.close()
    first, other = made("a", path), made("b", path)
    assert isinstance(first, CachedReranker)
    assert isinstance(other, CachedReranker)
    assert len({first.fingerprint, other.fingerprint, made(None, None).fingerprint}) == 3
    first.close()
    other.close()
