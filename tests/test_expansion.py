"""Further searches: what they add, what of a model's reply is believed, and whose scores passages have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossrag.errors import GeneratorError
from crossrag.expansion import Expanded, expand, feedback, read_questions, variants
from crossrag.retrieval import first_pass, pool, search_expansions
from crossrag.spellings import other_spellings
from crossrag.testing import HashedEmbedder, HashedTerms, MemoryStore, StoreContract
from crossrag.types import Expansion

from .query_path import QUESTION, fake_rag, sources


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What does getUserName do?", ["get user name"]),
        ("set fetch_k", ["fetch k", "fetchk"]),
        ("HTTPServer port", ["HTTP server"]),
        ("an e-mail", ["e mail", "email"]),
        ("new in v2.10.3", ["2.10.3", "2.10"]),
        ("How is PE treated?", ["pulmonary embolism"]),
        ("treatment of pulmonary embolism", ["PE"]),
        ("How is the peak treated?", []),
        ("see https://example.org/a-b for more", []),
        ("plain words, 24 of them", []),
    ],
)
def test_other_spellings(question: str, expected: list[str]) -> None:
    passages = ["Acute pulmonary embolism (PE) is treated at once.", "See the list (IV) of kings."]
    assert other_spellings(question, passages) == expected


def test_variants_weigh_less_than_the_question_and_nothing_new_is_no_search() -> None:
    encoder = HashedTerms()
    (found,) = variants("read fetch_k", [], sparse_encoder=encoder)
    assert found.terms is not None
    own = set(encoder.encode_query("read fetch_k").indices)
    weights = dict(zip(found.terms.indices, found.terms.values, strict=True))
    assert all((weight == 1.0) == (term in own) for term, weight in weights.items())
    assert len(weights) > len(own)
    assert variants("read all", [], sparse_encoder=encoder) == []


def test_feedback_adds_what_the_first_passages_share_and_others_lack() -> None:
    first = ["whales eat krill in cold water"] * 2 + ["krill and whales"]
    others = ["cold water for the house", "the water of the house"] * 5
    (found,) = feedback(
        "what do whales eat", first + others, sparse_encoder=HashedTerms(), believed=3, words=3
    )
    added = found.text.split()
    assert added[0] == "krill"
    assert "the" not in added
    assert "whales" not in added
    assert found.terms is not None
    assert len(found.terms.indices) == len(set(found.terms.indices))
    assert list(found.terms.indices) == sorted(found.terms.indices)
    assert feedback("?!", first, sparse_encoder=HashedTerms()) == []
    assert feedback("whales", first[:1], sparse_encoder=HashedTerms()) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1. How is it?\n2) Why?\n- \u201cWhere?\u201d\n", ["How is it?", "Why?", "Where?"]),
        ("Here are three:\nHow?\nhow?\n\n", ["How?"]),
        ("x" * 400, []),
        ("", []),
        ("a\nb\nc\nd\ne", ["a", "b", "c", "d"]),
    ],
)
def test_replies_are_read_strictly(said: str, expected: list[str]) -> None:
    assert read_questions(said, most=4) == expected


def asked(method: str, complete: Callable[[str], str] | None, question: str = QUESTION) -> Expanded:
    return expand(question, [method], passages=[], sparse_encoder=HashedTerms(), complete=complete)


def test_what_each_method_of_a_model_becomes() -> None:
    assert asked("hyde", lambda _: "A passage.\nTwo lines.").expansions == (
        Expansion(method="hyde", text="A passage. Two lines.", passage=True),
    )
    assert [one.text for one in asked("step-back", lambda _: "What is a backup?\nMore?").expansions] == [
        "What is a backup?"
    ]
    assert len(asked("multi-query", lambda _: "a\nb\nc").expansions) == 3
    # A simple question comes back as it is: nothing to do, and nothing wrong.
    assert asked("decompose", lambda _: QUESTION.upper()) == Expanded()


@pytest.mark.parametrize("method", ["multi-query", "hyde", "step-back", "decompose"])
def test_a_model_that_fails_or_says_nothing_is_a_notice(method: str) -> None:
    def fails(_: str) -> str:
        raise GeneratorError("no connection")

    for complete, why in (
        (fails, "no connection"),
        (lambda _: " \n ", "wrote no"),
        (None, "needs a language"),
    ):
        said = asked(method, complete)
        assert said.expansions == ()
        assert why in said.notices[0]


def test_the_prompt_holds_the_question_and_braces_do_not_matter() -> None:
    prompts: list[str] = []

    def complete(prompt: str) -> str:
        prompts.append(prompt)
        return "x"

    asked("hyde", complete, "What is {this} {0}?")
    assert "<question>\nWhat is {this} {0}?\n</question>" in prompts[0]


def test_what_only_an_expansion_found_has_the_scores_of_the_question() -> None:
    store, embedder, encoder = MemoryStore(), HashedEmbedder(), HashedTerms()
    StoreContract().fill(store)
    first = first_pass("restore a backup", embedder=embedder, sparse_encoder=encoder, store=store, fetch_k=1)
    wide = first_pass("restore a backup", embedder=embedder, sparse_encoder=encoder, store=store, fetch_k=50)
    expected = {hit.chunk.id: hit for leg in (wide.rankings.dense, wide.rankings.sparse) for hit in leg}
    further = search_expansions(
        [Expansion(method="multi-query", text="whales")],
        embedder=embedder,
        sparse_encoder=encoder,
        store=store,
        fetch_k=2,
    )
    pooled = pool(first, [(0.5, one) for one in further.rankings], store=store)
    assert len(pooled.candidates) > 1
    for candidate in pooled.candidates:
        hit = expected[candidate.chunk.id]
        assert candidate.scores.dense == pytest.approx(hit.dense, abs=1e-6)
        assert candidate.scores.sparse == pytest.approx(hit.sparse, abs=1e-6)
    # Half the weight: a further search alone never comes before the question's own first passage.
    assert pooled.candidates[0].scores.fused_rank == 1
    assert 1 in {pooled.candidates[0].scores.dense_rank, pooled.candidates[0].scores.sparse_rank}
    # The weight of dense legs is that of every search's; here there are two, of which the second has half.
    heavier = pool(first, [(0.5, one) for one in further.rankings], store=store, dense_weight=2.0)
    more = {c.chunk.id: c.scores.fused or 0.0 for c in heavier.candidates}
    for candidate in pooled.candidates:
        rank = candidate.scores.dense_rank
        own = 1 / (60 + rank) if rank else 0.0
        beside = [hit.chunk.id for one in further.rankings for hit in one.dense]
        foreign = 0.5 / (61 + beside.index(candidate.chunk.id)) if candidate.chunk.id in beside else 0.0
        gained = more[candidate.chunk.id] - (candidate.scores.fused or 0.0)
        assert gained == pytest.approx(own + foreign)


def test_sub_questions_are_pooled_and_read_beside_the_question(tmp_path: Path) -> None:
    question = "Does the office open before the largest animal sleeps?"
    settings: dict[str, dict[str, Any]] = {"expansion": {"methods": "decompose"}, "retrieval": {"fetch_k": 2}}

    def complete(prompt: str) -> str:
        assert question in prompt
        return "When does the office open?\nWhich is the largest animal?"

    with fake_rag(tmp_path, settings=settings, complete=complete) as rag:
        ranking = rag.search(question)
    assert [one.method for one in ranking.expansions] == ["decompose", "decompose"]
    assert ranking.query == question
    assert {"whales.txt", "office.txt"} <= set(sources(ranking))
    assert ranking.degraded == ()
    assert ranking.counts["fused"] >= 2
