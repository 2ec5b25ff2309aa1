"""A tiny network and a small subject that can be learned in seconds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import BertConfig

from crossrag.inference import load_tokenizer
from crossrag.registry import BUNDLED_MODELS
from crossrag.training.judged import Passage
from crossrag.training.mining import Mined, Question
from crossrag.training.network import ProgressiveCrossEncoder

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
