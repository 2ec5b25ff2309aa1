"""Batches, losses and the loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from crossrag.residual import comparable
from crossrag.training.batches import Batches, BatchOptions
from crossrag.training.loop import TrainingOptions, fit_first_stage, train
from crossrag.training.losses import Known, LossWeights, loss
from crossrag.training.mining import Mined, Question
from crossrag.training.network import Output

from .toys import plain_tokenizer, tiny, toy


def test_groups_hold_one_relevant_passage_first_and_are_the_same_for_the_same_seed() -> None:
    mined = toy()
    options = BatchOptions(negatives=3, batch_tokens=256, seed=7)
    first = list(Batches([mined], plain_tokenizer(), options).epoch(0))
    again = list(Batches([mined], plain_tokenizer(), options).epoch(0))
    other = list(Batches([mined], plain_tokenizer(), options).epoch(1))
    assert sum(len(batch.labelled) for batch in first) == 60
    yes = plain_tokenizer().token_to_id("yes")
    for batch, twin in zip(first, again, strict=True):
        has_yes = (batch.tokens["input_ids"] == yes).any(1).reshape(-1, 4)
        assert has_yes.tolist() == [[True, False, False, False]] * len(batch.labelled)
        assert batch.tokens["input_ids"].size <= 256
        assert (batch.tokens["input_ids"] == twin.tokens["input_ids"]).all()
        assert (batch.first_stage == twin.first_stage).all()
    assert [b.tokens["input_ids"].tolist() for b in first] != [b.tokens["input_ids"].tolist() for b in other]


def test_bm25_is_divided_by_the_root_of_the_number_of_words() -> None:
    scores = np.asarray([[0.5, 8.0]], np.float32)
    assert comparable("four words stand here", scores, None).tolist() == [[0.5, 4.0]]
    assert comparable("four words stand here", scores, 10_000).tolist() == [[0.5, 4.0]]


@pytest.mark.parametrize("passages", [100, 1_000, 100_000, 10_000_000])
def test_a_rare_word_counts_the_same_in_an_index_of_any_size(passages: int) -> None:
    rarity = np.log1p((passages - 1 + 0.5) / 1.5)  # of a word in one passage, as Qdrant has it
    usual = np.log1p((10_000 - 1 + 0.5) / 1.5)
    scores = np.asarray([[0.5, rarity]], np.float32)
    assert comparable("word", scores, passages)[0, 1] == pytest.approx(usual, rel=0.05)


def known(*, labelled: bool, judged: bool | None = None) -> Known:
    return Known(torch.tensor([labelled]), torch.tensor([labelled if judged is None else judged]))


def output(logits: list[list[float]]) -> Output:
    values = torch.tensor(logits).unsqueeze(2)
    return Output(values.reshape(-1, 1), torch.zeros(values.numel(), 1))


@pytest.mark.parametrize("ranking", ["softmax", "lambda"])
def test_the_loss_falls_when_the_relevant_passage_rises(ranking: Literal["softmax", "lambda"]) -> None:
    weights = LossWeights(exits=(1.0,), ranking=ranking)
    args = (known(labelled=True), torch.zeros(3), 3, weights)
    values = [float(loss(output([[x, 0.0, -1.0]]), *args, trust=False)) for x in (-2.0, 0.0, 2.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("ranking", ["softmax", "lambda"])
def test_a_likely_false_negative_is_left_out(ranking: Literal["softmax", "lambda"]) -> None:
    weights = LossWeights(exits=(1.0,), pointwise=0.0, ranking=ranking)
    args = (known(labelled=True), torch.zeros(3), 3, weights)
    said = output([[0.0, 9.0, -50.0]])
    assert float(loss(said, *args, trust=True)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(said, *args, trust=False)) > 3


def test_lambda_loss_pushes_hardest_what_stands_first() -> None:
    logits = torch.tensor([[0.0, 0.03, 0.02, 0.01]])  # the relevant passage is last, all but equal

    def push(ranking: Literal["softmax", "lambda"]) -> list[float]:
        weights = LossWeights(exits=(1.0,), pointwise=0.0, restraint=0.0, ranking=ranking)
        values = logits.clone().requires_grad_()
        said = Output(values.reshape(-1, 1), torch.zeros(4, 1))
        loss(said, known(labelled=True), torch.zeros(4), 4, weights, trust=False).backward()
        assert values.grad is not None
        return [float(value) for value in values.grad[0, 1:]]

    first, _, third = push("lambda")
    assert first > 1.5 * third > 0
    first, _, third = push("softmax")
    assert first == pytest.approx(third, rel=0.05)


def test_without_labels_the_first_stage_order_is_taught() -> None:
    weights = LossWeights(exits=(1.0,))
    first_stage = torch.tensor([2.0, 1.0, 0.0])
    kept = loss(output([[2.0, 1.0, 0.0]]), known(labelled=False), first_stage, 3, weights, trust=False)
    turned = loss(output([[0.0, 1.0, 2.0]]), known(labelled=False), first_stage, 3, weights, trust=False)
    assert float(kept) == pytest.approx(0.0, abs=1e-6)
    assert float(turned) > 0.1


def test_where_nothing_answers_all_scores_are_taught_to_be_low() -> None:
    weights = LossWeights(exits=(1.0,))
    args = (known(labelled=False, judged=True), torch.tensor([2.0, 1.0, 0.0]), 3, weights)
    values = [float(loss(output([[x, x, x]]), *args, trust=True)) for x in (2.0, -2.0, -6.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_questions_without_answer_become_groups_of_irrelevant_passages() -> None:
    mined = toy()
    nothing = replace(
        mined, questions=tuple(replace(q, grades=np.zeros_like(q.grades)) for q in mined.questions)
    )
    unknown = replace(
        mined, questions=tuple(replace(q, grades=np.full_like(q.grades, -1)) for q in mined.questions)
    )
    options = BatchOptions(negatives=3, batch_tokens=256)
    for part, judged in ((nothing, True), (unknown, False)):
        for batch in Batches([part], plain_tokenizer(), options).epoch(0):
            assert not batch.labelled.any()
            assert (batch.judged == judged).all()


@pytest.mark.parametrize("frozen", [0, 2])
def test_frozen_layers_and_the_first_stage_keep_what_they_know(frozen: int) -> None:
    network = tiny()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    options = TrainingOptions(steps=3, frozen_layers=frozen, first_stage=not frozen)
    train(network, Batches([toy()], plain_tokenizer(), BatchOptions(negatives=3)), options)
    after = network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert ("bert.encoder.layer.0.output.dense.weight" in same) == bool(frozen)
    assert ("first_stage" in same) == bool(frozen)
    assert "bert.encoder.layer.3.output.dense.weight" not in same


def test_the_first_stage_starts_where_it_ranks_best() -> None:
    chance = np.random.default_rng(1)
    questions = []
    for number in range(400):
        scores = chance.normal(size=(10, 2)).astype(np.float32)
        scores[0, 0] += 2.0  # only the cosine tells
        grades = np.asarray([1] + [-1] * 9, np.int8)
        questions.append(Question(str(number), "one", np.arange(10, dtype=np.int32), grades, scores))
    network = tiny()
    fit_first_stage(network, [Mined("m", (), tuple(questions))])
    dense, sparse = network.first_stage.tolist()
    assert dense > 1.0
    assert abs(sparse) < 0.3


def test_a_question_longer_than_the_model_is_cut() -> None:
    mined = toy(4)
    long = [replace(question, text="why " * 400) for question in mined.questions]
    options = BatchOptions(negatives=3, batch_tokens=4096, max_tokens=64, long_tokens=64)
    batches = Batches([replace(mined, questions=tuple(long))], plain_tokenizer(), options).epoch(0)
    for batch in batches:
        assert batch.tokens["input_ids"].shape[1] <= 64
        assert batch.tokens["token_type_ids"].sum(1).min() >= 4  # some of the passage is there
