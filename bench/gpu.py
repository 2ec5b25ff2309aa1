"""Pairs per second of the bundled reranker on a GPU, beside sentence-transformers with the same weights.

    python bench/gpu.py                      # the first GPU, bf16
    python bench/gpu.py --device cpu         # a rehearsal: that everything runs, and says nothing of a GPU

Pairs have 64, 128, 256 and 512 tokens, and in one row lengths from 64 to 512. Ours is `torch:` without early
exits, so that both compute the same layers: from texts to logits, and from tokens to logits. Beside it,
sentence-transformers' `CrossEncoder.predict` from texts to logits: the same precision, PyTorch's own
attention, sorted by length as it always does, the best of several batch sizes. Both read the same pairs in
turn, several rounds; figures are medians. Before that, their logits are compared.

The share of the peak is the floating-point operations of the layers (two per weight and token, and those of
attention; no padding, no head) by time, over what the maker says of the card. Without a GPU it ends with 2.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Nobody may go to the network: the models are on this machine.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}

import torch

import crossrag
from common import SEED
from crossrag.evaluation.report import machine
from crossrag.inference import load_tokenizer
from crossrag.rerankers.many import Question, read_all
from crossrag.rerankers.torch import TorchReranker
from weights import plug, read, standard_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PEAKS = {
    "B200": (2250.0, "NVIDIA HGX platform page, 36 PFLOP/s sparse for eight"),
    "H200 NVL": (835.5, "NVIDIA H200 datasheet, 1 671 with sparsity"),
    "H200": (989.5, "NVIDIA H200 datasheet, 1 979 with sparsity"),
    "H100 NVL": (835.5, "NVIDIA H100 datasheet, 1 671 with sparsity"),
    "H100 PCIe": (756.5, "NVIDIA H100 datasheet, 1 513 with sparsity"),
    "H100": (989.5, "NVIDIA H100 datasheet, SXM, 1 979 with sparsity"),
    "A100": (312.0, "NVIDIA A100 datasheet"),
    "L40S": (362.05, "NVIDIA L40S datasheet"),
    "L4": (121.0, "NVIDIA L4 datasheet, 242 with sparsity"),
    "RTX 4090": (165.2, "NVIDIA Ada architecture whitepaper, sums in fp32"),
}
"""Dense bf16 TFLOP/s by words of the device's name, the first that fits, and who says so."""
MIXED = (64, 512)
PER_QUESTION = 100
QUESTIONS = (
    "How do I restore a backup of the index?",
    "Which settings decide how many passages are read?",
    "What happens when a file cannot be parsed?",
    "Where are the answers checked against their sources?",
)


class Work(NamedTuple):
    """Pairs of one length, or of many."""

    name: str
    questions: list[Question]
    lengths: list[int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The same, one by one."""
        return [(asked.query, text) for asked in self.questions for text in asked.texts]


class Contestant(NamedTuple):
    """Something that reads work."""

    name: str
    score: Callable[[Work], list[float]]


def main() -> None:
    """Measure, print a table, and one JSON object on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a rehearsal")
    parser.add_argument("--model", type=Path, default=Path("src/crossrag/models/progressive-reranker"))
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[64, 128, 256, 512], help="tokens of a pair"
    )
    parser.add_argument("--pairs", type=int, default=20_000, help="of each length")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[32, 128, 512, 1_024, 2_048, 4_096])
    parser.add_argument("--batch-tokens", type=int, help="of ours; else its own choice")
    parser.add_argument("--compiled", action="store_true", help="let torch compile ours")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of the card, where the table lacks it")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(f"There is no GPU here that torch {torch.__version__} can use, so nothing was measured.")
        print("A rehearsal on the processor: --device cpu --pairs 64 --rounds 1 --batch-sizes 32")
        sys.exit(2)
    with tempfile.TemporaryDirectory() as scratch:
        _measure(arguments, Path(scratch))


def _measure(arguments: argparse.Namespace, scratch: Path) -> None:
    device = torch.device(arguments.device)
    name, peak, source = _card(device, arguments.peak)
    print(f"{date.today().isoformat()}, {name}, {machine()}, torch {torch.__version__}")  # noqa: DTZ011
    if device.type == "cpu":
        print("REHEARSAL on the processor, fp32: these figures say nothing of a GPU.")
    print(f"Peak: {f'{peak} TFLOP/s ({source})' if peak else 'unknown, give --peak'}")
    config = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))["bert"]
    ours = TorchReranker(
        arguments.model,
        device=arguments.device,
        compiled=arguments.compiled,
        batch_tokens=arguments.batch_tokens,
    )
    theirs = _sentence_transformers(arguments.model, scratch, device)
    works = list(
        _works(load_tokenizer(arguments.model / "tokenizer.json"), arguments.lengths, arguments.pairs)
    )
    rows = {}
    for work in works:
        rows[work.name] = row = _row(ours, theirs, work, arguments)
        if peak:
            operations = sum(flops(length, config) for length in work.lengths) / len(work.lengths)
            row["share_of_peak"] = {
                kind: round(rate * operations / (peak * 1e12), 4)
                for kind, rate in row["pairs_per_second"].items()
            }
        print(_line(work.name, row), flush=True)
    kind = "rehearsal" if device.type == "cpu" else "measurement"
    print(json.dumps({"kind": kind, "device": name, "peak_tflops": peak, "lengths": rows}))


def _row(
    ours: TorchReranker, theirs: Callable[[int], Contestant], work: Work, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Rates of one work, by contestant; the others at the best of their batch sizes."""
    whole = Contestant("ours", lambda work: _logits(ours, work))
    seconds: dict[int, float] = {}
    for size in arguments.batch_sizes:
        contestant = theirs(size)
        contestant.score(work)  # warm: kernels, memory
        seconds[size] = _timed(contestant, work)[0]
    best = min(seconds, key=seconds.__getitem__)
    contestants = [whole, theirs(best)]
    apart = [abs(a - b) for a, b in zip(*(one.score(work) for one in contestants), strict=True)]
    times: dict[str, list[float]] = {"ours": [], "ours from tokens": [], "sentence-transformers": []}
    for _ in range(arguments.rounds):
        # In turn, so that a slow minute of the machine hits everybody.
        times["ours"].append(_timed(whole, work)[0])
        times["ours from tokens"].append(_from_tokens(ours, work))
        times["sentence-transformers"].append(_timed(contestants[1], work)[0])
    rates = {name: len(work.lengths) / statistics.median(values) for name, values in times.items()}
    return {
        "pairs_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["sentence-transformers"], 2),
        "batch_size": best,
        "logits_apart": {"mean": round(statistics.mean(apart), 4), "most": round(max(apart), 4)},
    }


def _line(name: str, row: dict[str, Any]) -> str:
    rates = ", ".join(f"{kind} {rate:.1f}" for kind, rate in row["pairs_per_second"].items())
    shares = row.get("share_of_peak")
    told = f"; share of the peak {shares['ours']:.1%}, {shares['ours from tokens']:.1%}" if shares else ""
    return (
        f"{name:>8} tokens, pairs/s: {rates}; {row['ratio']:.2f} times; their batch {row['batch_size']}"
        f"; logits apart {row['logits_apart']['mean']}, at most {row['logits_apart']['most']}{told}"
    )


def _timed(contestant: Contestant, work: Work) -> tuple[float, list[float]]:
    begun = time.perf_counter()
    said = contestant.score(work)  # logits on the host: nothing is still running
    return time.perf_counter() - begun, said


def _logits(ours: TorchReranker, work: Work) -> list[float]:
    return [logit for said in ours.score_all(work.questions) for logit in said.logit]


def _from_tokens(ours: TorchReranker, work: Work) -> float:
    """Seconds from readings that were begun before."""
    readings = {id(asked): ours.begin(asked.query, asked.texts) for asked in work.questions}
    begun = time.perf_counter()
    told = read_all(
        work.questions,
        begin=lambda asked: readings[id(asked)],
        read=ours.read_in_batches,
        tokens=2 * ours.batch_tokens,
    )
    assert sum(len(said.logit) for said in told) == len(work.lengths)
    return time.perf_counter() - begun


# --- sentence-transformers


class LastHead:
    """The network as one that has no early exits: only the last head is asked."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def corrections(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        """As the network's, of the last exit."""
        states = self._network.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        passage = (attention_mask * token_type_ids).float()
        question = attention_mask.float() - passage
        return self._network.heads[-1](states.float(), question, passage).unsqueeze(1)


def _sentence_transformers(model: Path, scratch: Path, device: torch.device) -> Callable[[int], Contestant]:
    from sentence_transformers import CrossEncoder

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = CrossEncoder(
        str(standard_folder(model, scratch / "standard")),
        device=str(device),
        local_files_only=True,
        model_kwargs={"torch_dtype": dtype, "attn_implementation": "sdpa"},
    )
    network = read(model).to(device)
    network.bert.to(dtype)
    plug(encoder, LastHead(network))
    bias = json.loads((model / "config.json").read_text(encoding="utf-8"))["biases"][-1]

    def of(size: int) -> Contestant:
        def score(work: Work) -> list[float]:
            said = encoder.predict(
                work.pairs, batch_size=size, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
            return [float(value) + bias for value in said.reshape(-1)]

        return Contestant("sentence-transformers", score)

    return of


# --- pairs and operations


def flops(length: int, bert: dict[str, Any]) -> float:
    """Floating-point operations of all layers for a pair of so many tokens."""
    width, wide = bert["hidden_size"], bert["intermediate_size"]
    products = 2 * length * (4 * width * width + 2 * width * wide)
    attention = 2 * 2 * length * length * width
    return float(bert["num_hidden_layers"] * (products + attention))


def _card(device: torch.device, given: float | None) -> tuple[str, float | None, str]:
    if device.type == "cpu":
        return "no GPU", given, "as given"
    name = torch.cuda.get_device_name(device)
    if given:
        return name, given, "as given"
    for part, (peak, source) in PEAKS.items():
        if re.search(rf"\b{part}\b", name) and not re.search(r"\b(MIG|Laptop|D)\b", name):
            return name, peak, source
    return name, None, ""


def _works(tokenizer: Tokenizer, lengths: Sequence[int], pairs: int) -> Iterator[Work]:
    chance = random.Random(SEED)  # noqa: S311 - a sample, no secret
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((Path(crossrag.__file__).parent / "examples").glob("*.md"))
    )
    for length in lengths:
        yield _work(str(length), tokenizer, text, [length] * pairs, chance)
    mixed = [chance.randint(*MIXED) for _ in range(pairs)]
    yield _work(f"{MIXED[0]}-{MIXED[1]}", tokenizer, text, mixed, chance)


def _work(name: str, tokenizer: Tokenizer, text: str, lengths: list[int], chance: random.Random) -> Work:
    """Passages out of one text, each with its question exactly so long."""
    whole = tokenizer.encode(text, add_special_tokens=False)
    words, offsets = whole.word_ids, whole.offsets
    begins = [at for at in range(1, len(words)) if words[at] != words[at - 1]]
    questions = []
    for number, start in enumerate(range(0, len(lengths), PER_QUESTION)):
        query = QUESTIONS[number % len(QUESTIONS)]
        own = len(tokenizer.encode(query, add_special_tokens=False).ids) + 3
        texts = [
            _passage(text, offsets, begins, length - own, chance)
            for length in lengths[start : start + PER_QUESTION]
        ]
        questions.append(Question(query, texts))
    work = Work(name, questions, lengths)
    found = [len(encoding.ids) for encoding in tokenizer.encode_batch(work.pairs)]
    assert found == lengths, "a pair is not as long as it should be"
    return work


def _passage(
    text: str, offsets: Sequence[tuple[int, int]], begins: Sequence[int], tokens: int, chance: random.Random
) -> str:
    """Whole words from anywhere in the text, filled up with a word of one token."""
    first = chance.randrange(len(begins) - tokens - 1)
    last = first
    while begins[last + 1] - begins[first] <= tokens:
        last += 1
    missing = tokens - (begins[last] - begins[first])
    taken = text[offsets[begins[first]][0] : offsets[begins[last] - 1][1]] if last > first else ""
    return taken + " the" * missing


if __name__ == "__main__":
    main()
