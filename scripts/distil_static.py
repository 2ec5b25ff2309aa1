r"""Makes the static embedder: the bundled bi-encoder's vectors of many texts -> one vector per token.

    python scripts/distil_static.py --pack train.jsonl.gz --out models/static

Recipe after Model2Vec and its follow-up Tokenlearn (Tulkens and van Dongen, 2024): each row starts as the
bi-encoder's vector of the token alone, weighted down the commoner it is, turned into its main directions;
then all rows are fitted so that the mean of a text's rows points where the bi-encoder's vector points. Texts
are passages and questions of the sets that the reranker was trained on, from the file that
`train_reranker.py pack` writes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS, load
from crossrag.training.export import write_checksums, write_tokenizer
from crossrag.training.packing import read_pack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TEACHER = "minilm-l6-embedder"
MAX_TOKENS = 512
HELD_OUT = 1_000
SEED = 20261124


def main() -> None:
    """Embed, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True, help="what train_reranker.py pack wrote")
    parser.add_argument("--out", type=Path, required=True, help="model folder")
    parser.add_argument("--passages", type=int, default=40_000)
    parser.add_argument("--questions", type=int, default=40_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(BUNDLED_MODELS / TEACHER / "tokenizer.json")
    texts = _texts(arguments.pack, arguments.passages, arguments.questions)
    tokens = _tokens(tokenizer, texts)
    wanted = _embedded(texts)
    words, turn = _start(tokenizer, wanted, arguments.dimension)
    table = _Table(words, _frequencies(tokens, len(words)))
    _fit(table, tokens, torch.from_numpy(wanted @ turn), arguments.epochs)
    _write(table.rows().numpy(), arguments.out)


class _Table(nn.Module):
    """A row per token and its weight."""

    def __init__(self, words: NDArray[np.float32], frequencies: NDArray[np.float32]) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.from_numpy(words))
        # Smooth inverse frequency (Arora et al., 2017).
        self.weights = nn.Parameter(torch.from_numpy(np.log(1e-3 / (1e-3 + frequencies))))

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Token ids of several texts end to end, and where each begins, to float32[n, d] of unit length."""
        weights = self.weights.exp()[ids]
        sums = functional.embedding_bag(ids, self.words, starts, mode="sum", per_sample_weights=weights)
        return functional.normalize(sums, dim=1)

    @torch.no_grad()
    def rows(self) -> Tensor:
        return self.words * self.weights.exp().unsqueeze(1)


def _texts(pack: Path, passages: int, questions: int) -> list[str]:
    chance = random.Random(SEED)  # noqa: S311 - a draw, no secret
    parts = [part for split, some in sorted(read_pack(pack).items()) if split != "dev" for part in some]
    read = sorted({passage.described for part in parts for passage in part.passages})
    asked = sorted({question.text for part in parts for question in part.questions})
    texts = chance.sample(read, min(passages, len(read))) + chance.sample(asked, min(questions, len(asked)))
    chance.shuffle(texts)
    return texts


def _embedded(texts: Sequence[str]) -> NDArray[np.float32]:
    embedder = load("embedders", "onnx:bundled")
    started = time.monotonic()
    rows = [embedder.embed_documents(texts[start : start + 512]) for start in range(0, len(texts), 512)]
    _say(f"{len(texts)} texts embedded in {time.monotonic() - started:.0f} s")
    return np.concatenate(rows)


def _start(
    tokenizer: Tokenizer, wanted: NDArray[np.float32], dimension: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The bi-encoder's vectors of single tokens, and the directions in which texts differ most."""
    embedder = load("embedders", "onnx:bundled")
    names = [tokenizer.decode([number]) or " " for number in range(tokenizer.get_vocab_size())]
    alone = np.concatenate(
        [embedder.embed_documents(names[start : start + 2048]) for start in range(0, len(names), 2048)]
    )
    _, _, directions = np.linalg.svd(wanted[:20_000], full_matrices=False)
    turn = np.ascontiguousarray(directions[:dimension].T.astype(np.float32))
    kept = np.linalg.norm(wanted @ turn, axis=1).mean()
    _say(f"{dimension} directions keep {kept:.4f} of the length of a vector")
    # What single tokens have in common says nothing.
    return (alone - alone.mean(0)) @ turn, turn


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    return [
        np.asarray(encoding.ids[:MAX_TOKENS], np.int64) for encoding in tokenizer.encode_batch(list(texts))
    ]


def _frequencies(tokens: Sequence[NDArray[np.int64]], words: int) -> NDArray[np.float32]:
    counts = np.bincount(np.concatenate(tokens), minlength=words)
    return ((counts + 1) / (counts.sum() + len(counts))).astype(np.float32)


def _fit(table: _Table, tokens: Sequence[NDArray[np.int64]], wanted: Tensor, epochs: int) -> None:
    wanted = functional.normalize(wanted, dim=1)
    optimiser = torch.optim.Adam(
        [{"params": [table.words], "lr": 2e-3}, {"params": [table.weights], "lr": 2e-2}]
    )
    learned = np.arange(HELD_OUT, len(tokens))
    chance = np.random.default_rng(SEED)
    size = 512
    steps = epochs * (len(learned) // size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    _say(f"held out, before: {_agreement(table, tokens, wanted)}")
    for epoch in range(epochs):
        order = chance.permutation(learned)
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            said, target = table(*_bags(tokens, chosen)), wanted[torch.from_numpy(chosen)]
            direction = 1 - (said * target).sum(1).mean()
            # And as near to each other as the bi-encoder has them: what search needs.
            nearness = (said @ said.T - target @ target.T).square().mean()
            optimiser.zero_grad()
            (direction + 5 * nearness).backward()
            optimiser.step()
            schedule.step()
        _say(f"held out, after epoch {epoch + 1}: {_agreement(table, tokens, wanted)}")


@torch.no_grad()
def _agreement(table: _Table, tokens: Sequence[NDArray[np.int64]], wanted: Tensor) -> str:
    chosen = np.arange(HELD_OUT)
    said, target = table(*_bags(tokens, chosen)), wanted[:HELD_OUT]
    upper = torch.triu_indices(HELD_OUT, HELD_OUT, 1)
    pairs = torch.stack([(said @ said.T)[upper[0], upper[1]], (target @ target.T)[upper[0], upper[1]]])
    return (
        f"cosine {(said * target).sum(1).mean():.4f}, correlation of pairs {torch.corrcoef(pairs)[0, 1]:.4f}"
    )


def _bags(tokens: Sequence[NDArray[np.int64]], chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    some = [tokens[number] for number in chosen]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in some])[:-1]])
    return torch.from_numpy(np.concatenate(some)), torch.from_numpy(starts)


def _write(rows: NDArray[np.float32], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    scales = np.maximum(np.abs(rows).max(1), 1e-8) / 127
    np.save(out / "table.npy", np.round(rows / scales[:, np.newaxis]).astype(np.int8), allow_pickle=False)
    np.save(out / "scales.npy", scales.astype(np.float32), allow_pickle=False)
    config = {"kind": "static", "graphs": ["table.npy", "scales.npy"], "max_tokens": MAX_TOKENS}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(BUNDLED_MODELS / TEACHER / "tokenizer.json", out)
    write_checksums(out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
