"""Reading judged folders, mining, batches, the network and its export, and the verdict on a new model."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import BertConfig

from crossrag.errors import UsageError
from crossrag.inference import feeds, load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.residual import comparable
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.training.batches import Batches, BatchOptions
from crossrag.training.export import Fitted, export, export_single, read_weights
from crossrag.training.fitting import Reading, fitted, ndcg, quality
from crossrag.training.judged import Collection, Passage, read_collections
from crossrag.training.loop import TrainingOptions, fit_first_stage, train
from crossrag.training.losses import Known, LossWeights, loss
from crossrag.training.mining import Mined, Question, Searcher, candidates, mine
from crossrag.training.network import Output, ProgressiveCrossEncoder, from_exported
from crossrag.training.packing import read_pack, write_pack
from crossrag.training.trainer import Material, check_places, improve, split
from crossrag.types import Scores

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = BUNDLED_MODELS / "progressive-reranker" / "tokenizer.json"


def tiny(seed: int = 0, exits: tuple[int, ...] = (1, 2)) -> ProgressiveCrossEncoder:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=32,
        num_hidden_layers=exits[-1],
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    network = ProgressiveCrossEncoder(config, exits)
    with torch.no_grad():
        for head in network.heads:
            torch.nn.init.normal_(head.outer.weight, std=0.5)
            torch.nn.init.normal_(head.importance.weight, std=0.5)
    return network.eval()


def folder_of_judgements(path: Path) -> Path:
    (path / "qrels").mkdir(parents=True)
    with gzip.open(path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        for number in range(30):
            row = {"_id": f"s:{number}", "title": "", "text": f"word{number} word{number + 1} common"}
            file.write(json.dumps(row) + "\n")
    (path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"s:q{n}", "text": f"word{n}"}) + "\n" for n in range(30)),
        encoding="utf-8",
    )
    (path / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"s:q{n}\ts:{n}\t1\n" for n in range(30)), encoding="utf-8"
    )
    return path


# --- reading and mining


def test_a_folder_is_read_plain_or_gzipped(tmp_path: Path) -> None:
    (collection,) = read_collections(folder_of_judgements(tmp_path), by_prefix=True)
    assert collection.name == "s"
    assert len(collection.passages) == len(collection.queries) == 30
    assert collection.judgements["train"]["s:q3"] == {"s:3": 1}


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("queries.jsonl", "not json\n", "queries.jsonl, line 31"),
        ("queries.jsonl", '{"_id": "s:q99"}\n', "needs _id and text"),
        ("qrels/train.tsv", "s:q1\ts:1\tgood\n", "train.tsv, line 32"),
        ("qrels/train.tsv", "s:q77\ts:7\t1\n", "'s:q77' is no question"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: str, line: str, says: str) -> None:
    folder = folder_of_judgements(tmp_path)
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(line)
    with pytest.raises(UsageError, match=says):
        read_collections(folder, by_prefix=True)


def test_mining_scores_as_the_store_does() -> None:
    """The scores that a reranker learns from are those that it will meet."""
    from crossrag.testing import MemoryStore
    from crossrag.types import Chunk

    passages = [Passage(str(n), "", f"cat{n % 3} dog{n % 2} tree {'house ' * n}") for n in range(9)]
    embedder, terms, store = HashedEmbedder(), HashedTerms(), MemoryStore()
    chunks = [
        Chunk(id=p.id, document_id=p.id, source=p.id, text=p.text, start=0, end=len(p.text), position=0)
        for p in passages
    ]
    texts = [passage.text for passage in passages]
    store.upsert(chunks, embedder.embed_documents(texts), terms.encode_documents(texts))
    searcher = Searcher(passages, embedder=embedder, sparse_encoder=terms)
    query = "dog1 house cat2"
    ((dense, sparse),) = searcher.scores([query])
    found = store.search(embedder.embed_query(query), terms.encode_query(query), limit=9)
    for hit in (*found.dense, *found.sparse):
        assert dense[int(hit.chunk.id)] == pytest.approx(hit.dense, abs=1e-5)
        assert sparse[int(hit.chunk.id)] == pytest.approx(hit.sparse, abs=1e-4)


def test_relevant_passages_are_mined_even_if_the_search_misses_them() -> None:
    passages = tuple(Passage(str(n), "", f"apple number{n}") for n in range(20))
    collection = Collection(
        "c", (*passages, Passage("far", "", "zebra")), {"q": "apple"}, {"t": {"q": {"far": 2}}}
    )
    searcher = Searcher(collection.passages, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    (question,) = mine(collection, "t", searcher=searcher, depth=5)
    assert question.passages[-1] == 20
    assert question.grades.tolist() == [-1] * (len(question.grades) - 1) + [2]


def test_a_scope_keeps_candidates_inside_one_document() -> None:
    passages = tuple(Passage(str(n), "ab"[n % 2], f"apple number{n}") for n in range(20))
    collection = Collection("c", passages, {"q": "apple"}, {"t": {"q": {"3": 1}}})
    searcher = Searcher(passages, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    (question,) = mine(collection, "t", searcher=searcher, scope=lambda passage: passage.title)
    assert {passages[number].title for number in question.passages} == {"b"}


def test_candidates_are_fused_by_rank() -> None:
    dense = np.asarray([0.9, 0.8, 0.1, 0.0], np.float32)
    sparse = np.asarray([0.0, 3.0, 2.0, 0.0], np.float32)
    assert candidates(dense, sparse, depth=2) == [1, 0, 2]


# --- batches


def toy(count: int = 60, *, seed: int = 0, shuffled: bool = False) -> Mined:
    """Relevant passages say `yes`; the first stage knows nothing."""
    chance = np.random.default_rng(seed)
    passages: list[Passage] = []
    questions: list[Question] = []
    for number in range(count):
        right = int(chance.integers(8)) if shuffled else 0
        start = len(passages)
        for place in range(8):
            word = "yes" if place == (int(chance.integers(8)) if shuffled else 0) else "no"
            passages.append(Passage(f"{number}-{place}", "", f"{word} item {chance.integers(100)}"))
        order = chance.permutation(8)
        questions.append(
            Question(
                str(number),
                f"which item {number}",
                (start + order).astype(np.int32),
                np.where(order == right, 1, -1).astype(np.int8),
                chance.random((8, 2)).astype(np.float32) * 0.01,
            )
        )
    return Mined("toy", tuple(passages), tuple(questions))


def plain_tokenizer() -> Tokenizer:
    return load_tokenizer(TOKENIZER)


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
    assert comparable("four words stand here", scores).tolist() == [[0.5, 4.0]]


# --- losses


def known(*, labelled: bool, judged: bool | None = None) -> Known:
    return Known(torch.tensor([labelled]), torch.tensor([labelled if judged is None else judged]))


def output(logits: list[list[float]]) -> Output:
    values = torch.tensor(logits).unsqueeze(2)
    return Output(values.reshape(-1, 1), torch.zeros(values.numel(), 1))


def test_the_loss_falls_when_the_relevant_passage_rises() -> None:
    weights = LossWeights(exits=(1.0,))
    args = (known(labelled=True), torch.zeros(3), 3, weights)
    values = [float(loss(output([[x, 0.0, -1.0]]), *args, trust=False)) for x in (-2.0, 0.0, 2.0)]
    assert values == sorted(values, reverse=True)


def test_a_likely_false_negative_is_left_out() -> None:
    weights = LossWeights(exits=(1.0,), pointwise=0.0)
    args = (known(labelled=True), torch.zeros(3), 3, weights)
    said = output([[0.0, 9.0, -50.0]])
    assert float(loss(said, *args, trust=True)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(said, *args, trust=False)) > 8


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


# --- export

PAIRS = [
    ("what is it", "A cat."),
    ("why", "Because of the rain " * 9),
    ("who was he at all", ""),
    ("it", "x " * 30),
]


@pytest.mark.parametrize("int8", [False, True])
def test_the_exported_model_says_what_the_network_says(tmp_path: Path, *, int8: bool) -> None:
    network = tiny()
    export(network, TOKENIZER, tmp_path / "m", int8=int8)
    reranker = load("rerankers", f"progressive:{tmp_path / 'm'}")
    tokenizer = plain_tokenizer()
    tokenizer.enable_truncation(64, strategy="only_second")
    inputs = {key: torch.from_numpy(a) for key, a in feeds(tokenizer.encode_batch(PAIRS)).items()}
    with torch.no_grad():
        wanted = network(**inputs, first_stage=torch.tensor([[0.5, 1.0]] * len(PAIRS))).logits.numpy()
    for row, (query, text) in enumerate(PAIRS):
        root = len(query.split()) ** 0.5
        said = reranker.score(query, [text], first_stage=[Scores(dense=0.5, sparse=root)])
        assert said.by_exit[0] == pytest.approx(wanted[row].tolist(), abs=0.15 if int8 else 2e-4)


def test_a_model_folder_becomes_a_network_again(tmp_path: Path) -> None:
    network = tiny()
    export(network, TOKENIZER, tmp_path / "m")
    again = from_exported(tmp_path / "m")
    assert again.exits == network.exits
    for (name, one), (_, other) in zip(network.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.allclose(one, other, atol=float(one.abs().max()) / 50 + 1e-6), name
    export(again, TOKENIZER, tmp_path / "n")
    first, second = read_weights(tmp_path / "m")[0], read_weights(tmp_path / "n")[0]
    # What was rounded once stays where it is.
    assert all(np.allclose(first[name], second[name], rtol=0, atol=1e-6) for name in first)


def test_other_programs_get_one_graph_with_logits(tmp_path: Path) -> None:
    import onnxruntime

    network = tiny()
    export_single(network, tmp_path / "model.onnx", int8=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = feeds(plain_tokenizer().encode_batch(PAIRS[:2]))
    (logits,) = session.run(["logits"], inputs)
    with torch.no_grad():
        wanted = network.corrections(**{key: torch.from_numpy(a) for key, a in inputs.items()})[:, -1:]
    assert logits == pytest.approx(wanted.numpy(), abs=2e-4)


# --- fitting and the verdict


def test_ndcg_on_a_case_done_by_hand() -> None:
    grades = np.asarray([0, 2, -1, 1], np.int8)
    assert ndcg(np.asarray([3.0, 2.0, 1.0, 0.0]), grades) == pytest.approx(
        (2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3))
    )
    assert ndcg(np.asarray([1.0, 1.0]), np.asarray([0, -1], np.int8)) == 0.0


def readings(noise: float) -> list[Reading]:
    chance = np.random.default_rng(3)
    found = []
    for _ in range(60):
        last = chance.normal(size=40) * 2 - 4
        relevant = chance.random(40) < 1 / (1 + np.exp(-last))
        early = 0.5 * last + 1.0 + chance.normal(size=40) * noise
        grades = np.where(relevant, 1, -1).astype(np.int8)
        found.append(Reading("r", relevant, grades, np.stack([early, last], 1), np.zeros((40, 2))))
    return found


def test_margins_forecasts_and_calibration_are_read_from_held_out_questions() -> None:
    measured = fitted(readings(noise=0.1), (10.0, 1.0))
    assert measured.forecasts[0] == pytest.approx((2.0, -2.0), abs=0.2)
    assert measured.calibration.slope == pytest.approx(1.0, abs=0.15)
    assert measured.calibration.intercept == pytest.approx(0.0, abs=0.3)
    assert 0 < measured.margins[0] < fitted(readings(noise=1.0), (10.0, 1.0)).margins[0]
    assert quality(readings(noise=0.1), measured.calibration).calibration_error < 0.03


def exported(path: Path) -> Path:
    export(tiny(), TOKENIZER, path, fitted=Fitted(margins=(5.0,), forecasts=((1.0, 0.0),)))
    return path


OPTIONS = TrainingOptions(steps=60, encoder_rate=1e-3, head_rate=5e-3, evaluate_every=30)


def test_a_better_model_is_put_in_place(tmp_path: Path) -> None:
    learned, held = split([toy()])
    out = tmp_path / "new"
    done = improve(
        Material(train=learned, held_out=held, general=[toy(20, seed=5)]),
        exported(tmp_path / "start"),
        out,
        options=OPTIONS,
        batches=BatchOptions(negatives=3, batch_tokens=1024),
    )
    assert done.accepted, done.reason
    assert done.after.reranked > done.before.reranked + 0.1
    assert done.folder == out
    said = load("rerankers", f"progressive:{out}").score(
        "which item 3", ["no item 4", "yes item 9"], first_stage=[Scores(dense=0.0, sparse=0.0)] * 2
    )
    assert said.logit[1] > said.logit[0]


def test_a_model_that_learned_nothing_is_refused_and_kept_aside(tmp_path: Path) -> None:
    learned, held = split([toy(shuffled=True)])
    general = toy(40, seed=5)
    start = exported(tmp_path / "start")
    done = improve(
        Material(train=learned, held_out=held, general=[general]),
        start,
        tmp_path / "new",
        options=TrainingOptions(steps=2, encoder_rate=0.0, head_rate=0.0, scalar_rate=0.0, evaluate_every=1),
        batches=BatchOptions(negatives=3, batch_tokens=1024),
    )
    assert not done.accepted
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "new.rejected" / "config.json").is_file()


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    learned, held = split([toy(10)])
    with pytest.raises(UsageError, match="too few"):
        improve(
            Material(train=learned, held_out=held), exported(tmp_path / "s"), tmp_path / "n", options=OPTIONS
        )


@pytest.mark.parametrize("place", ["start", "other", "new.rejected"])
def test_no_folder_but_an_old_model_is_ever_replaced(tmp_path: Path, place: str) -> None:
    start = exported(tmp_path / "start")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"kind": "something else"}', encoding="utf-8")
    (tmp_path / "new.rejected").write_text("a file", encoding="utf-8")
    out = {"start": start, "other": tmp_path / "other", "new.rejected": tmp_path / "new"}[place]
    with pytest.raises(UsageError, match=r"Name another folder"):
        check_places(start, out)
    check_places(start, tmp_path / "fresh")


def test_a_question_longer_than_the_model_is_cut() -> None:
    mined = toy(4)
    long = [replace(question, text="why " * 400) for question in mined.questions]
    options = BatchOptions(negatives=3, batch_tokens=4096, max_tokens=64, long_tokens=64)
    batches = Batches([replace(mined, questions=tuple(long))], plain_tokenizer(), options).epoch(0)
    for batch in batches:
        assert batch.tokens["input_ids"].shape[1] <= 64
        assert batch.tokens["token_type_ids"].sum(1).min() >= 4  # some of the passage is there


def test_a_pack_is_the_questions_again_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    mined = toy(5)
    write_pack(tmp_path / "pack", [("train", mined), ("dev", toy(3, seed=2))])
    again = read_pack(tmp_path / "pack")
    assert list(again) == ["train", "dev"]
    (part,) = again["train"]
    assert part.passages == mined.passages
    for one, other in zip(part.questions, mined.questions, strict=True):
        assert (one.id, one.text) == (other.id, other.text)
        assert one.grades.tolist() == other.grades.tolist()
        assert one.first_stage == pytest.approx(other.first_stage, abs=1e-4)
    data = (tmp_path / "pack").read_bytes()
    write_pack(tmp_path / "pack", [("train", mined), ("dev", toy(3, seed=2))])
    assert (tmp_path / "pack").read_bytes() == data
    (tmp_path / "pack").write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="no packed training data"):
        read_pack(tmp_path / "pack")
