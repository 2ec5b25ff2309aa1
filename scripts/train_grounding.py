r"""Makes the bundled grounding model: the bundled reranker, labelled claims and made ones -> a model folder.

    pip install 'crossrag[training]'
    python scripts/train_grounding.py train --data DATA --steps 850 --checkpoint grounding.safetensors
    python scripts/train_grounding.py finish --data DATA --checkpoint grounding.safetensors \
        --out src/crossrag/models/grounding
    python scripts/train_grounding.py measure --data DATA --model src/crossrag/models/grounding

`DATA` holds `grounding/train`, `grounding/dev` and `ir/train`. The sets in `UNSEEN` are never trained on:
`finish` fits the calibration on them. `measure` reads `grounding/dev`, which nothing else does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crossrag import calibration
from crossrag.calibration import Calibration
from crossrag.claims import split, states_something
from crossrag.evidence import MOST_WORDS
from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.training import grounding, grounding_export
from grounding_sets import LABELLED, Pair, labelled, made

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNSEEN = ("wice", "faithdial-audit")
SHARES = {"made": 0.38, "begin": 0.18, "summedits": 0.24, "expertqa": 0.20}
READ_IN_TRAINING = 64
"""Words of evidence; more are read in serving."""
MADE = 16_000
DEV = ("mtrag-human", "healthver", "covidfact")


def main() -> None:
    """Train, finish or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "finish", "measure"))
    parser.add_argument("--data", type=Path, required=True, help="folder with grounding/ and ir/")
    parser.add_argument("--start", type=Path, default=BUNDLED_MODELS / "progressive-reranker")
    parser.add_argument("--checkpoint", type=Path, help="weights in full precision")
    parser.add_argument("--resume", type=Path, help="checkpoint of such a run to go on from")
    parser.add_argument("--out", type=Path, help="model folder")
    parser.add_argument("--model", type=Path, help="model folder to measure")
    parser.add_argument("--steps", type=int, default=850)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="finish and measure on every n-th pair only")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    {"train": _train, "finish": _finish, "measure": _measure}[arguments.what](arguments)


def _train(arguments: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(arguments.start / "tokenizer.json")
    pairs = {
        name: labelled(arguments.data / "grounding" / "train", name)
        for name in LABELLED
        if name not in UNSEEN
    }
    pairs["made"] = made(arguments.data / "ir" / "train", MADE, seed=arguments.seed)
    examples = {name: _examples(tokenizer, some, READ_IN_TRAINING) for name, some in pairs.items()}
    network = grounding.from_reranker(arguments.start)
    if arguments.resume:
        grounding.load(network, arguments.resume)
    started = time.monotonic()
    grounding.train(
        network,
        examples,
        grounding.GroundingOptions(
            steps=arguments.steps,
            shares=SHARES,
            seed=arguments.seed,
            encoder_rate=arguments.rate,
            head_rate=7 * arguments.rate,
        ),
        checkpoint=arguments.checkpoint,
        report=lambda step, loss, right: _say(
            f"{step} {time.monotonic() - started:.0f} s loss {loss:.4f} right {right:.3f}"
        ),
    )


def _finish(arguments: argparse.Namespace) -> None:
    """Choose the share of the correction, export, and fit the calibration: all on sets never trained on.

    In the calibration each set and each label counts the same.
    """
    network = grounding.from_reranker(arguments.start)
    grounding.load(network, arguments.checkpoint)
    tokenizer = arguments.start / "tokenizer.json"
    unseen = {
        name: labelled(arguments.data / "grounding" / "train", name)[:: arguments.every] for name in UNSEEN
    }
    read = load_tokenizer(tokenizer)
    share, tried = grounding.largest_share(
        network, [_examples(read, pairs, MOST_WORDS) for pairs in unseen.values()]
    )
    _say(f"area under the curve by share of the correction: {tried}; taken: {share}")
    grounding_export.export(network, tokenizer, arguments.out, share=share)
    grounder = load("grounders", f"onnx:{arguments.out}", threads=arguments.threads)
    said = {
        name: grounder.support([(pair.evidence, pair.claim) for pair in pairs])
        for name, pairs in unseen.items()
    }
    fitted = _calibration(said, unseen)
    grounding_export.export(network, tokenizer, arguments.out, calibration=fitted, share=share)
    _say(f"{fitted}")
    grounder = load("grounders", f"onnx:{arguments.out}", threads=arguments.threads)
    for name, pairs in unseen.items():
        known = [pair.supported for pair in pairs]
        _say(f"{name}: {_told(grounder.support([(p.evidence, p.claim) for p in pairs]), known)}")


def _calibration(said: Mapping[str, Sequence[float]], unseen: Mapping[str, Sequence[Pair]]) -> Calibration:
    logits: list[float] = []
    labels: list[bool] = []
    weights: list[float] = []
    for name, pairs in unseen.items():
        known = [pair.supported for pair in pairs]
        logits += [Calibration().logit(min(max(value, 1e-9), 1 - 1e-9)) for value in said[name]]
        labels += known
        weights += [0.5 / sum(flag == label for flag in known) for label in known]
    whole = len(labels) / sum(weights)
    return calibration.fit(logits, labels, [weight * whole for weight in weights])


def _examples(tokenizer: Tokenizer, pairs: Sequence[Pair], words: int) -> list[grounding.Example]:
    return [
        grounding.example(tokenizer, pair.claim, pair.evidence, supported=pair.supported, most_words=words)
        for pair in pairs
    ]


def _measure(arguments: argparse.Namespace) -> None:
    """An answer of several sentences is supported as far as its weakest one."""
    grounder = load("grounders", f"onnx:{arguments.model}", threads=arguments.threads)
    for name in DEV:
        pairs = labelled(arguments.data / "grounding" / "dev", name)[:: arguments.every]
        said = [min(grounder.support([(pair.evidence, claim) for claim in _claims(pair)])) for pair in pairs]
        _say(f"{name}: {_told(said, [pair.supported for pair in pairs])}")


def _claims(pair: Pair) -> list[str]:
    """The sentences of an answer that state something; the whole text where none does."""
    return [text for text in split(pair.claim) if states_something(text)] or [pair.claim]


def _told(said: Sequence[float], known: Sequence[bool]) -> str:
    values, labels = np.asarray(said), np.asarray(known)
    chance = np.random.default_rng(0)
    draws = [chance.integers(0, len(values), len(values)) for _ in range(1000)]
    spread = [_balanced(values[rows], labels[rows]) for rows in draws]
    low, high = np.quantile(spread, [0.025, 0.975])
    kept, caught = (values[labels] >= 0.5).mean(), (values[~labels] < 0.5).mean()
    return (
        f"{len(values)} claims, balanced accuracy {_balanced(values, labels):.3f} [{low:.3f}, {high:.3f}], "
        f"supported kept {kept:.3f}, unsupported caught {caught:.3f}, "
        f"AUC {grounding.area(values, labels):.3f}"
    )


def _balanced(values: np.ndarray, labels: np.ndarray) -> float:
    return float(((values[labels] >= 0.5).mean() + (values[~labels] < 0.5).mean()) / 2)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
