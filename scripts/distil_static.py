r"""Makes the static embedder: what the bundled bi-encoder says of texts and of pairs -> one vector per token.

    python scripts/distil_static.py --pack train.jsonl.gz --unseen unseen.jsonl.gz --vectors vectors.npz \
        --out models/static

Recipe after Model2Vec and its follow-up Tokenlearn (Tulkens and van Dongen, 2024): each row starts as the
bi-encoder's vector of the token alone, weighted down the commoner it is, turned into its main directions;
then all rows are fitted so that the mean of a text's rows points where the bi-encoder's vector points, and
that the cosines of questions with what both legs of a search found for them are the bi-encoder's. Texts and
pairs are those that the reranker was trained on, from the files that `train_reranker.py` packs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import static_table
from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.training.export import write_checksums, write_tokenizer
from crossrag.training.packing import read_pack
from static_table import Asked, Effort, Pairs, Table, Texts, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from crossrag.training.mining import Mined

TEACHER = "minilm-l6-embedder"
MAX_TOKENS = 512
LEARNED_TOKENS = 128
"""Of a passage while the table is fitted: the bi-encoder sees 256."""
LEARNED_CHARACTERS = 800
HELD_OUT = 1_000
QUESTIONS = 100
"""Of each held-out set."""
SEED = 20261124


def main() -> None:
    """Embed, fit, measure, write."""
    arguments = _arguments()
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(BUNDLED_MODELS / TEACHER / "tokenizer.json")
    packed = read_pack(arguments.pack)
    learned = [part for split, some in sorted(packed.items()) if split != "dev" for part in some]
    texts, vectors, alone = _embedded(learned, tokenizer, arguments)
    tokens = _tokens(tokenizer, texts)
    pairs = _pairs(tokenizer, learned)
    directions = np.linalg.svd(vectors[:20_000], full_matrices=False)[2]
    turn = np.ascontiguousarray(directions[: arguments.dimension].T)
    # What single tokens have in common says nothing.
    words = (alone - alone.mean(0)) @ turn
    table = Table(words, _frequencies(pairs.passages, len(words)))
    held, known = _parts(tokens, vectors @ turn)
    checks = {f"{part.name}, dev": part for part in packed["dev"]}
    checks |= {f"{part.name}, unseen": part for part in read_pack(arguments.unseen).get("unseen", ())}
    measured = {name: _pairs(tokenizer, [part], QUESTIONS) for name, part in checks.items()}

    def tell(step: int, steps: int) -> None:
        _say(f"step {step} of {steps}: held-out texts, cosine {static_table.likeness(table, held):.4f}")

    started = time.process_time()
    static_table.fit_texts(table, known, arguments.epochs, SEED)
    tell(0, arguments.steps)
    _measure(table, measured)
    effort = Effort(steps=arguments.steps, judged=arguments.judged, seed=SEED)
    static_table.fit_pairs(table, known, pairs, effort, tell)
    _say(f"fitted in {time.process_time() - started:.0f} s of processor time")
    scale, shift = _measure(table, measured)
    _write(table.rows().numpy(), arguments.out, scale=scale, shift=shift)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True, help="what train_reranker.py pack wrote")
    parser.add_argument("--unseen", type=Path, required=True, help="what train_reranker.py pack-more wrote")
    parser.add_argument("--vectors", type=Path, help="keep the bi-encoder's vectors here, or take them")
    parser.add_argument("--out", type=Path, required=True, help="model folder")
    parser.add_argument("--passages", type=int, default=8_192)
    parser.add_argument("--questions", type=int, default=40_000)
    parser.add_argument("--dimension", type=int, default=254)
    parser.add_argument("--epochs", type=float, default=8, help="passes over texts")
    parser.add_argument("--steps", type=int, default=500, help="over pairs, of 64 questions each")
    parser.add_argument("--judged", type=float, default=0.0, help="weight of people's judgements")
    return parser.parse_args()


def _embedded(
    parts: Sequence[Mined], tokenizer: Tokenizer, arguments: argparse.Namespace
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Texts, their vectors, and the vectors of all tokens alone."""
    texts = _texts(parts, arguments.passages, arguments.questions)
    if arguments.vectors and arguments.vectors.is_file():
        kept = np.load(arguments.vectors, allow_pickle=False)
        assert len(kept["texts"]) == len(texts), "the vectors are of other texts"
        return texts, kept["texts"].astype(np.float32), kept["alone"].astype(np.float32)
    names = [tokenizer.decode([number]) or " " for number in range(tokenizer.get_vocab_size())]
    vectors, alone = _vectors(texts), _vectors(names)
    if arguments.vectors:
        np.savez(arguments.vectors, texts=vectors.astype(np.float16), alone=alone.astype(np.float16))
    return texts, vectors, alone


def _texts(parts: Sequence[Mined], passages: int, questions: int) -> list[str]:
    """In an order of chance, the first ones being held out; fewer of them are among more of them."""
    read = sorted({passage.described[:LEARNED_CHARACTERS] for part in parts for passage in part.passages})
    asked = sorted({question.text for part in parts for question in part.questions})
    for some in (read, asked):
        random.Random(SEED).shuffle(some)  # noqa: S311 - no secret
    texts = read[:passages] + asked[:questions]
    random.Random(SEED).shuffle(texts)  # noqa: S311 - no secret
    return texts


def _vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    embedder = load("embedders", "onnx:bundled")
    started = time.monotonic()
    rows = [embedder.embed_documents(texts[start : start + 1024]) for start in range(0, len(texts), 1024)]
    _say(f"{len(texts)} texts embedded in {time.monotonic() - started:.0f} s")
    return np.concatenate(rows)


def _parts(tokens: Tokens, wanted: NDArray[np.float32]) -> tuple[Texts, Texts]:
    """Held out, and learned from."""
    start = tokens.starts[HELD_OUT]
    held = Tokens(tokens.ids[:start], tokens.starts[: HELD_OUT + 1])
    known = Tokens(tokens.ids[start:], tokens.starts[HELD_OUT:] - start)
    return Texts(held, wanted[:HELD_OUT]), Texts(known, wanted[HELD_OUT:])


def _pairs(tokenizer: Tokenizer, parts: Iterable[Mined], limit: int | None = None) -> Pairs:
    """Questions with candidates; with a limit, that many of them, evenly spread."""
    asked: list[Asked] = []
    questions: list[str] = []
    passages: dict[str, int] = {}
    for part in parts:
        step = 1 if limit is None else max(1, len(part.questions) // limit)
        for question in part.questions[::step][:limit]:
            described = [part.passages[number].described for number in question.passages]
            numbers = [passages.setdefault(text, len(passages)) for text in described]
            asked.append(
                Asked(
                    len(questions),
                    np.asarray(numbers, np.int32),
                    np.ascontiguousarray(question.first_stage[:, 0]),
                    question.grades > 0,
                )
            )
            questions.append(question.text)
    limit_tokens = LEARNED_TOKENS if limit is None else MAX_TOKENS
    return Pairs(_tokens(tokenizer, questions), _tokens(tokenizer, list(passages), limit_tokens), asked)


def _tokens(tokenizer: Tokenizer, texts: Sequence[str], most: int = MAX_TOKENS) -> Tokens:
    kept: list[list[int]] = []
    for start in range(0, len(texts), 4096):
        block = list(texts[start : start + 4096])
        kept += [encoding.ids[:most] for encoding in tokenizer.encode_batch_fast(block)]
    return Tokens.of(kept)


def _frequencies(tokens: Tokens, words: int) -> NDArray[np.float32]:
    counts = np.bincount(tokens.ids, minlength=words)
    shares: NDArray[np.float32] = ((counts + 1) / (counts.sum() + len(counts))).astype(np.float32)
    return shares


def _measure(table: Table, sets: dict[str, Pairs]) -> tuple[float, float]:
    """Say how good it is on each set; scale and shift of its cosines, in the middle of the sets."""
    lines = []
    for name, pairs in sets.items():
        said = static_table.cosines(table, pairs)
        ours, theirs = static_table.ranked_well(pairs, said)
        scale, shift, correlation = static_table.translation(pairs, said)
        lines.append((ours, theirs, scale, shift))
        _say(
            f"{name}: nDCG@10 over candidates {ours:.3f}, bi-encoder {theirs:.3f}; its cosine is "
            f"{scale:.3f} x ours {shift:+.3f}, correlation {correlation:.3f}"
        )
    ours, theirs, _, _ = np.mean(lines, 0)
    _, _, scale, shift = np.median(lines, 0)
    _say(f"mean {ours:.4f}, bi-encoder {theirs:.4f}; median {scale:.3f} x ours {shift:+.3f}")
    return float(scale), float(shift)


def _write(rows: NDArray[np.float32], out: Path, *, scale: float, shift: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    steps = np.maximum(np.abs(rows).max(1), 1e-8) / 127
    np.save(out / "table.npy", np.round(rows / steps[:, np.newaxis]).astype(np.int8), allow_pickle=False)
    np.save(out / "scales.npy", steps.astype(np.float32), allow_pickle=False)
    config = {
        "kind": "static",
        "graphs": ["table.npy", "scales.npy"],
        "max_tokens": MAX_TOKENS,
        "cosine": {"scale": round(min(scale, 1.0), 4), "shift": round(shift, 4)},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(BUNDLED_MODELS / TEACHER / "tokenizer.json", out)
    write_checksums(out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
