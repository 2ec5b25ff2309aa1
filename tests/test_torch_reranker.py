"""The reranker in torch says what the graphs say: packed, in any company, with early exits, of many."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from crossrag.errors import MissingExtraError, ModelError
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.rerankers.many import Question
from crossrag.rerankers.packed import PackedNetwork, lay_out
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.rerankers.torch import TorchReranker
from crossrag.training.export import Fitted, export
from crossrag.types import Relevance, Scores

from .training.toys import TOKENIZER, tiny

if TYPE_CHECKING:
    from crossrag.rerankers.reading import Window

BUNDLED = BUNDLED_MODELS / "progressive-reranker"
QUERY = "which letter is it"
TEXTS = [f"{word} {'and more of it ' * (number % 5)}" for number, word in enumerate("abcdefghijklmnopqrst")]
FIRST = [Scores(dense=math.sin(number) / 9, sparse=float(number % 3)) for number in range(len(TEXTS))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network in floats: both backends compute the same there."""
    path = tmp_path_factory.mktemp("tiny")
    fitted = Fitted(margins=(0.0, 0.0), wanted=1, forecasts=((1.0, -70.0), (1.0, -50.0)))
    export(tiny(exits=(1, 2, 3)), TOKENIZER, path, fitted=fitted, int8=False)
    return path


@pytest.fixture(scope="module")
def reranker(folder: Path) -> TorchReranker:
    return TorchReranker(folder, device="cpu")


def same(one: Relevance, other: Relevance, *, within: float = 2e-4) -> None:
    assert one.layers == other.layers
    assert one.logit == pytest.approx(other.logit, abs=within)
    assert [*map(len, one.by_exit)] == [*map(len, other.by_exit)]
    for mine, yours in zip(one.by_exit, other.by_exit, strict=True):
        assert mine == pytest.approx(yours, abs=within)
    assert (one.truncated, one.unread, one.windows) == (other.truncated, other.unread, other.windows)


@pytest.mark.parametrize("top_k", [None, 4, 1, 50])
def test_it_says_what_the_graphs_say(folder: Path, reranker: TorchReranker, top_k: int | None) -> None:
    graphs = ProgressiveReranker(folder)
    asked: dict[str, Any] = {"first_stage": FIRST, "top_k": top_k}
    wanted = graphs.score(QUERY, TEXTS, **asked)
    same(reranker.score(QUERY, TEXTS, **asked), wanted)
    # So few tokens that survivors of several batches meet in the next one.
    same(TorchReranker(folder, device="cpu", batch_tokens=40).score(QUERY, TEXTS, **asked), wanted)


def test_windows_of_long_passages_are_the_same(folder: Path, reranker: TorchReranker) -> None:
    text = " ".join(("cat", "dog", "tree", "house", "sun", "rain")[number**2 % 6] for number in range(130))
    texts = [text, "short", "many words here " * 2000]
    same(reranker.score(QUERY, texts), ProgressiveReranker(folder).score(QUERY, texts))


def test_weights_out_of_integers_are_those_of_the_network() -> None:
    from crossrag.training.network import from_exported

    network = from_exported(BUNDLED).eval()
    made = TorchReranker(BUNDLED, device="cpu")
    said = made.score("cats", ["Cats sleep. " * 9, "dogs"])
    tokenizer = made._folder.tokenizer
    for text, row in zip(["Cats sleep. " * 9, "dogs"], said.by_exit, strict=True):
        encoding = tokenizer.encode("cats", text)
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        with torch.no_grad():
            wanted = network.corrections(*(torch.tensor([column]) for column in columns))[0] + network.bias
        assert list(row) == pytest.approx(wanted.tolist(), abs=5e-4)


def test_many_questions_at_once_say_what_each_says_alone(folder: Path) -> None:
    made = TorchReranker(folder, device="cpu", batch_tokens=200)
    questions = [
        Question(f"which letter is {number}", TEXTS[number % 7 : number % 7 + count], FIRST[:count])
        for number, count in enumerate([5, 0, 13, 1, 2, 9, 20, 0, 3])
    ]
    questions = [
        asked._replace(first_stage=FIRST[: len(asked.texts)])
        if number % 2
        else asked._replace(first_stage=None)
        for number, asked in enumerate(questions)
    ]
    for top_k in (None, 2):
        told = list(made.score_all(iter(questions), top_k=top_k))
        assert len(told) == len(questions)
        for asked, said in zip(questions, told, strict=True):
            alone = made.score(asked.query, asked.texts, first_stage=asked.first_stage, top_k=top_k)
            same(said, alone)


def test_batches_are_filled_across_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TorchReranker(folder, device="cpu", batch_tokens=100_000)
    sizes = []
    read = made._read

    def noted(windows: Sequence[Window]) -> Any:
        sizes.append(len(windows))
        return read(windows)

    monkeypatch.setattr(made, "_read", noted)
    list(made.score_all([Question(QUERY, TEXTS, FIRST)] * 3))
    assert sizes == [60, 60, 60]


def test_questions_are_begun_no_further_ahead_than_needed(folder: Path) -> None:
    made = TorchReranker(folder, device="cpu", batch_tokens=100)
    drawn: list[None] = []

    def endless() -> Any:
        while True:
            drawn.append(None)
            yield Question(QUERY, TEXTS, FIRST)

    told = made.score_all(endless())
    next(told)
    told.close()  # type: ignore[attr-defined]
    assert len(drawn) < 4_096 // len(TEXTS) + 20


def test_a_wrong_question_among_many_is_an_error(reranker: TorchReranker) -> None:
    with pytest.raises(ModelError, match="1 of 2 texts"):
        list(reranker.score_all([Question(QUERY, ["a", "b"], FIRST[:1])]))


def test_batches_are_of_like_length_and_hold_so_many_tokens(folder: Path) -> None:
    made = TorchReranker(folder, device="cpu", batch_tokens=100)
    lengths = [90, 10, 300, 40, 40, 10, 99, 5]
    batches = list(made._batches(lengths))
    assert sorted(position for batch in batches for position in batch) == [*range(8)]
    assert [2] in batches
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[position] for position in batch) <= 100
    assert len(batches) == 5
    # What comes first is not left for the end because it is long.
    many = [*made._batches([50] * 20 + [10] * 20)]
    assert set(many[0]) < set(range(20))


def test_no_number_comes_from_another_pair(reranker: TorchReranker) -> None:
    network = reranker._network
    lengths, questions = [5, 9, 6], [3, 4, 2]
    starts = torch.tensor([0, 5, 14, 20], dtype=torch.int32)
    pack = lay_out(starts, torch.tensor(questions, dtype=torch.int32), lengths, questions, rows=True)
    torch.manual_seed(0)
    states = torch.randn(20, network.width)
    whole, _ = network.read(0, states, pack)
    states[5:14] = math.nan
    broken, after = network.read(0, states, pack)
    assert whole.isfinite().all()
    assert broken[1].isnan()
    assert broken[[0, 2]].tolist() == pytest.approx(whole[[0, 2]].tolist(), abs=1e-5)
    assert after[[*range(5), *range(14, 20)]].isfinite().all()


def test_one_number_that_is_none_spoils_no_other(
    reranker: TorchReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reranker.score(QUERY, TEXTS, first_stage=FIRST, top_k=4)
    embed = reranker._network.embed

    def broken(ids: Any, pack: Any) -> Any:
        states = embed(ids, pack).clone()
        states[0] = math.nan
        return states

    monkeypatch.setattr(reranker._network, "embed", broken)
    said = reranker.score(QUERY, TEXTS, first_stage=FIRST, top_k=4)
    assert sum(map(math.isnan, said.logit)) == 1
    both = [p for p in range(len(TEXTS)) if said.layers[p] == whole.layers[p] == 3]
    assert len(both) >= 3
    for place in both:
        assert said.logit[place] == pytest.approx(whole.logit[place], abs=1e-4)


def test_when_time_is_up_the_best_known_ranking_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 200 tokens: two batches at the first exit, two at the second.
    made = TorchReranker(folder, device="cpu", batch_tokens=200)
    whole = made.score(QUERY, TEXTS, first_stage=FIRST)
    assert len(list(made._batches([window.length for window in made.begin(QUERY, TEXTS)._windows]))) == 2
    ticks = iter(range(1000))
    monkeypatch.setattr("crossrag.rerankers.torch.time.monotonic", lambda: next(ticks))
    # Two looks at the clock while tokenizing.
    said = made.score(QUERY, TEXTS, first_stage=FIRST, deadline=5)
    assert said.hurried
    assert set(said.layers) == {1, 2}
    for place, layers in enumerate(said.layers):
        early = whole.by_exit[place][layers - 1] - {1: 70.0, 2: 50.0}[layers]
        assert said.logit[place] == pytest.approx(early, abs=1e-4)
    nothing = made.score(QUERY, TEXTS, first_stage=FIRST, deadline=0)
    assert all(nothing.unread)


def test_nobody_asks_for_logits_before_they_are_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, each question would stop what runs there."""
    from crossrag.rerankers import torch as module

    made = TorchReranker(folder, device="cpu", batch_tokens=200)
    events = []
    fetch, read = module._Said.fetch, made._read

    def fetched(said: Any) -> None:
        events.append("fetch")
        fetch(said)

    def noted(windows: Sequence[Window]) -> Any:
        events.append("read")
        return read(windows)

    monkeypatch.setattr(module._Said, "fetch", fetched)
    monkeypatch.setattr(made, "_read", noted)
    made.score(QUERY, TEXTS, first_stage=FIRST)
    assert events.index("fetch") == events.count("read") == 6
    events.clear()
    made.score(QUERY, TEXTS, first_stage=FIRST, top_k=4)
    assert events.index("fetch") == 2


def test_the_server_shares_it_among_requests(reranker: TorchReranker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from crossrag.server.batching import SharedReranker, shared

    made = shared(reranker, batch_tokens=4096)
    assert isinstance(made, SharedReranker)
    alone = [reranker.score(f"{QUERY} {n}", TEXTS, first_stage=FIRST, top_k=4) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        told = pool.map(lambda n: made.score(f"{QUERY} {n}", TEXTS, first_stage=FIRST, top_k=4), range(6))
        for said, wanted in zip(told, alone, strict=True):
            same(said, wanted)
    made.close()


def test_bfloat16_ranks_nearly_the_same_and_has_another_fingerprint(
    reranker: TorchReranker, folder: Path
) -> None:
    half = TorchReranker(folder, device="cpu", precision="bf16")
    one, other = (made.score(QUERY, TEXTS, first_stage=FIRST) for made in (reranker, half))
    assert one.logit == pytest.approx(other.logit, abs=0.2)
    assert one.logit != other.logit
    assert half.fingerprint != reranker.fingerprint


def test_compiled_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one graph for all lengths; what makes kernels of it is left out, which takes minutes."""
    graphs = []

    def counted(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    export(tiny(exits=(1,)), TOKENIZER, tmp_path, fitted=Fitted(margins=(), forecasts=()), int8=False)
    plain = TorchReranker(tmp_path, device="cpu")
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled(f, backend=counted, **options))
    made = TorchReranker(tmp_path, device="cpu", compiled=True)
    for texts in (TEXTS[:5], TEXTS[:7], TEXTS, [text * 2 for text in TEXTS[3:]]):
        same(made.score(QUERY, texts), plain.score(QUERY, texts))
    assert len(graphs) == 1


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"cuda is wanted, and torch sees no GPU here.*device to cpu"):
        load("rerankers", "torch:bundled", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match=r"cuda:1 is wanted, and torch sees 1 GPU here"):
        load("rerankers", "torch:bundled", device="cuda:1")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrag.rerankers.torch import _device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (_device(None).type, _device("cuda:1").index, _device("cpu").type) == ("cuda", 1, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device(None).type == "cpu"


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"needs the package onnx.*crossrag\[training\]"):
        load("rerankers", "torch:bundled", device="cpu")


@pytest.mark.parametrize("name", ["layers-3-4.onnx", "config.json"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    copied = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ModelError):
        TorchReranker(copied, device="cpu")
    (copied / "SHA256SUMS").unlink()
    (copied / "layers-1-2.onnx").write_bytes(b"\x08\x07 cut")
    with pytest.raises(ModelError):
        TorchReranker(copied, device="cpu")


def test_a_network_without_a_weight_is_refused() -> None:
    config = {"bert": {"num_attention_heads": 1, "layer_norm_eps": 1e-12, "hidden_size": 8}, "exits": [1]}
    with pytest.raises(ModelError, match="lacks"):
        PackedNetwork({}, config, device=torch.device("cpu"), dtype=torch.float32)


def test_settings_reach_it() -> None:
    from crossrag import assembly
    from crossrag.config import RerankingSettings, RerankTorchSettings, Settings

    settings = Settings(
        reranking=RerankingSettings(model="torch:bundled", device="cpu"),
        rerank_torch=RerankTorchSettings(precision="bf16", batch_tokens=1_000),
    )
    made = assembly.reranker(settings)
    assert isinstance(made, TorchReranker)
    assert made.fingerprint.startswith("torch-bf16:")
    assert made.batch_tokens == 1_000
