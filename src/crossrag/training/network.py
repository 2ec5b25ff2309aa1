"""The progressive cross-encoder as a torch module: BERT with a head after some of its layers.

A pair is read as `[CLS] question [SEP] passage [SEP]`. The logit after exit k is

    dense * cosine + sparse * bm25 + bias_k + head_k(states after layer k)

with the first two from the first stage (a vector and a term weight that are stored anyway). The head adds
what only reading the pair together can tell. It starts close to zero and is pulled towards zero while it
learns, so on subjects that it has never seen the ranking falls back to that of the first stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from crossrag.errors import ModelError
from crossrag.exported import read_weights

EXITS = (2, 4, 6)


class Output(NamedTuple):
    """What the network says of n pairs after each of k exits."""

    logits: Tensor
    """float32[n, k]: with the first stage's share."""
    corrections: Tensor
    """float32[n, k]: the heads alone."""


class Head(nn.Module):
    """States of a pair -> one number, from how question and passage meet in them.

    Three views: the cosine of the mean states (as the bi-encoder sees it, but after both have read each
    other), the best match of each word of the question among those of the passage (Khattab and Zaharia, 2020,
    "ColBERT"), and a small network over the means and `[CLS]`.
    """

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.mean_weight = nn.Parameter(torch.tensor(3.0))
        self.match_weight = nn.Parameter(torch.tensor(3.0))
        self.importance = nn.Linear(width, 1)
        self.inner = nn.Linear(3 * width, hidden)
        self.outer = nn.Linear(hidden, 1)
        nn.init.zeros_(self.importance.weight)
        nn.init.zeros_(self.importance.bias)
        nn.init.normal_(self.outer.weight, std=0.01)
        nn.init.zeros_(self.outer.bias)

    def forward(self, states: Tensor, question: Tensor, passage: Tensor) -> Tensor:
        """States float[n, l, d] and masks float[n, l] to float[n]."""
        of_question = F.normalize(_mean(states, question), dim=1)
        of_passage = F.normalize(_mean(states, passage), dim=1)
        unit = F.normalize(states, dim=2)
        # -1e4 and not -inf: it also holds in half precision.
        similarity = unit @ unit.transpose(1, 2) + (passage.unsqueeze(1) - 1.0) * 1e4
        best = similarity.amax(2)
        weight = torch.softmax(self.importance(states).squeeze(2) + (question - 1.0) * 1e4, dim=1)
        # Elements of about one, whatever the layer and the width.
        root = states.shape[2] ** 0.5
        meeting, apart = of_question * of_passage * root * root, (of_question - of_passage).abs() * root
        views = torch.cat([meeting, apart, unit[:, 0] * root], dim=1)
        learned = self.outer(F.gelu(self.inner(views))).squeeze(1)
        cosine = (of_question * of_passage).sum(1)
        return self.mean_weight * cosine + self.match_weight * (weight * best).sum(1) + learned


class ProgressiveCrossEncoder(nn.Module):
    """BERT, a head per exit, and the weights of the first stage.

    Args:
        config: Of the BERT inside.
        exits: After how many layers a head reads the states, ascending; the last one is the last layer.
    """

    def __init__(self, config: BertConfig, exits: Sequence[int] = EXITS) -> None:
        super().__init__()
        self.exits = tuple(exits)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.heads = nn.ModuleList(Head(config.hidden_size) for _ in self.exits)
        self.first_stage = nn.Parameter(torch.tensor([10.0, 1.0]))
        """Weights of cosine and of BM25, as `residual.comparable` gives them."""
        self.bias = nn.Parameter(torch.full((len(self.exits),), -10.0))

    def corrections(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Token ids int64[n, l] and their masks to float32[n, k]: the heads alone."""
        read = self.bert(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            output_hidden_states=True,
        ).hidden_states
        passage = (attention_mask * token_type_ids).float()
        question = attention_mask.float() - passage
        with torch.autocast(input_ids.device.type, enabled=False):
            said = [
                head(read[exit_].float(), question, passage)
                for head, exit_ in zip(self.heads, self.exits, strict=True)
            ]
        return torch.stack(said, dim=1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, first_stage: Tensor
    ) -> Output:
        """As `corrections`; `first_stage` is float32[n, 2]: cosine and BM25."""
        corrections = self.corrections(input_ids, attention_mask, token_type_ids)
        share = (first_stage * self.first_stage).sum(1, keepdim=True)
        return Output(share + self.bias + corrections, corrections)

    def weigh(self, share: float) -> None:
        """Take the weights of the first stage times a share."""
        with torch.no_grad():
            self.first_stage.mul_(share)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1.0)


def from_sentence_encoder(directory: str, *, exits: Sequence[int] = EXITS) -> ProgressiveCrossEncoder:
    """Start from a BERT bi-encoder in a folder with `config.json` and `model.safetensors`."""
    from safetensors.torch import load_file

    config = BertConfig.from_pretrained(directory, local_files_only=True)
    config._attn_implementation = "sdpa"  # noqa: SLF001 - transformers has no public way to set it on a config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    network = ProgressiveCrossEncoder(config, exits)
    weights = load_file(f"{directory}/model.safetensors")
    network.bert.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith("pooler.")}, strict=False
    )
    with torch.no_grad():
        # A bi-encoder saw one segment only: the passage's starts as that one.
        types = network.bert.embeddings.token_type_embeddings.weight
        types[1] = types[0]
    return network


def from_exported(folder: Path) -> ProgressiveCrossEncoder:
    """Go on from an exported model folder, such as the bundled one."""
    state, config = read_weights(folder)
    bert = BertConfig(**config["bert"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    bert._attn_implementation = "sdpa"  # noqa: SLF001 - transformers has no public way to set it on a config
    network = ProgressiveCrossEncoder(bert, config["exits"])
    tensors = {key: torch.from_numpy(np.array(values)) for key, values in state.items()}
    missing, unknown = network.load_state_dict(tensors, strict=False)
    # Buffers such as position ids are made anew.
    if unknown or [key for key in missing if not key.endswith("_ids")]:
        raise ModelError(f"{folder} lacks {missing} and has {unknown}", hint="Export it again")
    return network
