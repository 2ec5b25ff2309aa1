"""Early exits, windows, deadlines: what the progressive reranker spends and what it says of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossrag.errors import ModelError
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.training.export import Fitted, export
from crossrag.types import Relevance, Scores

from .training.toys import TOKENIZER, tiny

TEXTS = [f"{word} {'and more of it ' * (number % 5)}" for number, word in enumerate("abcdefghijklmnopqrst")]
QUERY = "which letter is it"


def made(path: Path, **fitted: Any) -> ProgressiveReranker:
    export(
        tiny(exits=(1, 2, 3)),
        TOKENIZER,
        path,
        fitted=Fitted(**{"margins": (0.0, 0.0), "wanted": 1, **fitted}),
    )
    return ProgressiveReranker(path)


def scored(reranker: ProgressiveReranker, **options: Any) -> Relevance:
    scores = [Scores(dense=math.sin(number) / 9, sparse=float(number % 3)) for number in range(len(TEXTS))]
    return reranker.score(QUERY, TEXTS, first_stage=scores, **options)


def best(said: Relevance, count: int) -> list[int]:
    return sorted(range(len(said.logit)), key=lambda place: -said.logit[place])[:count]


def test_without_top_k_every_text_is_read_with_all_layers(tmp_path: Path) -> None:
    said = scored(made(tmp_path))
    assert set(said.layers) == {3}
    assert all(
        len(row) == 3 and row[-1] == logit for row, logit in zip(said.by_exit, said.logit, strict=True)
    )


def test_wide_margins_change_nothing_and_narrow_ones_save_layers(tmp_path: Path) -> None:
    whole = scored(made(tmp_path / "wide", margins=(99.0, 99.0)))
    wide = scored(made(tmp_path / "wide", margins=(99.0, 99.0)), top_k=4)
    assert wide.logit == pytest.approx(whole.logit, abs=1e-4)
    narrow = scored(made(tmp_path / "narrow"), top_k=4)
    # At least four stay at every exit, and those that left are all behind four that did not.
    assert [sum(layers >= depth for layers in narrow.layers) for depth in (1, 2, 3)] == [20, 4, 4]
    assert set(best(narrow, 4)) == {p for p, layers in enumerate(narrow.layers) if layers == 3}
    for place in best(narrow, 4):
        assert narrow.logit[place] == pytest.approx(whole.logit[place], abs=1e-4)


def test_what_left_early_carries_a_forecast(tmp_path: Path) -> None:
    said = scored(made(tmp_path, forecasts=((1.0, -70.0), (1.0, -50.0))), top_k=4)
    for layers, exits, logit in zip(said.layers, said.by_exit, said.logit, strict=True):
        if layers < 3:
            assert logit == pytest.approx(exits[-1] - {1: 70.0, 2: 50.0}[layers])


def test_a_top_k_beyond_the_texts_reads_everything(tmp_path: Path) -> None:
    assert set(scored(made(tmp_path), top_k=50).layers) == {3}


def test_a_long_passage_is_read_in_windows_and_the_best_is_named(tmp_path: Path) -> None:
    reranker = made(tmp_path)
    # Words of one token each: a window never begins within one.
    text = " ".join(("cat", "dog", "tree", "house", "sun", "rain")[number**2 % 6] for number in range(130))
    said = reranker.score(QUERY, [text, "short"], first_stage=None)
    assert said.truncated == (False, False)
    window, none = said.windows
    assert none is None
    assert window is not None
    start, end = window
    assert 0 <= start < end <= len(text)
    alone = reranker.score(QUERY, [text[start:end]])
    assert alone.logit[0] == pytest.approx(said.logit[0], abs=1e-4)
    assert said.logit[0] >= reranker.score(QUERY, [text[: end - start]]).logit[0] - 1e-4


def test_of_an_endless_passage_the_beginning_is_read_and_that_is_said(tmp_path: Path) -> None:
    said = made(tmp_path).score(QUERY, ["many words here " * 2000, "short"])
    assert said.truncated == (True, False)


def test_a_long_question_is_cut_and_that_is_said(tmp_path: Path) -> None:
    said = made(tmp_path).score("why " * 100, ["a", "b c d"])
    assert said.query_truncated
    assert said.logit[0] != said.logit[1]


def test_when_time_is_up_the_best_known_ranking_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = made(tmp_path, forecasts=((1.0, -70.0), (1.0, -50.0)))
    whole = scored(reranker)
    ticks = iter(range(1000))
    monkeypatch.setattr("crossrag.rerankers.progressive.time.monotonic", lambda: next(ticks))
    # Two looks at the clock while tokenizing. Twenty texts are two batches per exit: the fifth look is at the
    # second exit.
    said = scored(reranker, deadline=5)
    assert said.hurried
    assert not any(said.unread)
    assert set(said.layers) == {1, 2}
    for place, layers in enumerate(said.layers):
        early = whole.by_exit[place][layers - 1]
        assert said.logit[place] == pytest.approx(early - {1: 70.0, 2: 50.0}[layers], abs=1e-4)
    # What was still in the running keeps its forecast, however good: only what had left is held down.
    hopeful = made(tmp_path / "hopeful", margins=(99.0, 99.0), forecasts=((1.0, 0.0), (1.0, 900.0)))
    ticks = iter(range(1000))
    said = scored(hopeful, deadline=7, top_k=4)
    assert sorted(said.layers) == [2] * 4 + [3] * 16
    assert set(best(said, 4)) == {place for place, layers in enumerate(said.layers) if layers == 2}
    nothing = scored(reranker, deadline=0)
    assert all(nothing.unread)
    assert all(map(math.isnan, nothing.relevance))


def test_one_number_that_is_none_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = made(tmp_path)
    whole = scored(reranker, top_k=4)
    run = reranker._model.run_graph

    def broken(name: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        corrections, *states = run(name, inputs)
        if len(corrections) == 16:
            corrections = corrections.copy()
            corrections[0] = np.nan
        return [corrections, *states]

    monkeypatch.setattr(reranker._model, "run_graph", broken)
    said = scored(reranker, top_k=4)
    assert sum(map(math.isnan, said.logit)) == 1
    assert not any(said.unread)
    finite = [place for place in best(whole, 4) if math.isfinite(said.logit[place])]
    assert len(finite) >= 3
    for place in finite:
        assert said.logit[place] == pytest.approx(whole.logit[place], abs=1e-4)


def test_a_leg_that_was_not_searched_counts_as_is_typical(tmp_path: Path) -> None:
    reranker = made(tmp_path, typical=(0.25, 3.0))
    bare = reranker.score(QUERY, ["a"], first_stage=[Scores()])
    said = reranker.score(QUERY, ["a"], first_stage=[Scores(dense=0.25, sparse=3.0 * 2)])
    assert bare.logit == pytest.approx(said.logit)


def test_first_stage_scores_must_be_one_per_text(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="1 of 2 texts"):
        made(tmp_path).score(QUERY, ["a", "b"], first_stage=[Scores(dense=1.0)])


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"kind": "embedder"}), encoding="utf-8")
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match=r"no progressive reranker.*onnx:"):
        ProgressiveReranker(tmp_path)


def test_who_wants_fewer_than_the_margins_are_for_gets_the_beginning_of_those(tmp_path: Path) -> None:
    reranker = made(tmp_path, wanted=4)
    assert scored(reranker, top_k=1).logit == scored(reranker, top_k=4).logit
    assert scored(reranker, top_k=5).logit != scored(reranker, top_k=4).logit
