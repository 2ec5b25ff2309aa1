"""Labelled pairs of claim and evidence -> a network that says whether the one supports the other.

Its logit is `weights * features + bias + correction`: the features of `crossrag.evidence` are plain counts
that hold on any subject, the correction is what reading both together adds. It starts close to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from crossrag.errors import ModelError, UsageError
from crossrag.evidence import FEATURES, read
from crossrag.inference import cut_question, feeds

from .network import Head, from_exported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer
    from transformers import BertModel

MAX_TOKENS, MAX_CLAIM_TOKENS = 320, 96
PRIOR = (1.0, 0.6, -0.9, 0.0, 0.8, -0.4, 0.0)
"""Weights of the features to start with: near those of a logistic regression, on any of the labelled sets."""


@dataclass(frozen=True, slots=True)
class Example:
    """A claim beside the sentences that bear on it, as tokens."""

    encoding: Encoding
    features: tuple[float, ...]
    supported: bool


class GroundingNetwork(nn.Module):
    """BERT, a head after its last layer, and weights of the plain features."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert
        self.heads = nn.ModuleList([Head(bert.config.hidden_size)])
        self.weights = nn.Parameter(torch.zeros(len(FEATURES)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, features: Tensor
    ) -> Tensor:
        """Token ids int64[n, l], their masks and float32[n, k] features to logits float32[n]."""
        states = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        evidence = (attention_mask * token_type_ids).float()
        correction = self.heads[0](states, attention_mask.float() - evidence, evidence)
        logits: Tensor = features @ self.weights + self.bias + correction
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingOptions:
    """How long and how fast, and how often each collection is drawn."""

    steps: int
    shares: Mapping[str, float] = field(default_factory=dict)
    """By name of the collection, or by the part before its first `-`; 1 where neither is named."""
    batch: int = 32
    encoder_rate: float = 1.2e-4
    head_rate: float = 8e-4
    scalar_rate: float = 3e-3
    warmup: float = 0.05
    decay: float = 0.6
    frozen_layers: int = 2
    smoothing: float = 0.05
    """Labels are this far from certain: people disagree about a part of them."""
    seed: int = 0
    checkpoint_every: int = 50


def from_reranker(folder: Path) -> GroundingNetwork:
    """Start from the body of an exported reranker, and from the head after its last layer."""
    reranker = from_exported(folder)
    network = GroundingNetwork(reranker.bert)
    network.heads[0].load_state_dict(reranker.heads[-1].state_dict())
    with torch.no_grad():
        network.weights.copy_(torch.tensor(PRIOR))
        # The head starts as the sum of two similarities, the features as about one.
        network.bias.fill_(-5.0)
    return network


def example(tokenizer: Tokenizer, claim: str, evidence: str, *, supported: bool, most_words: int) -> Example:
    """Tokens of one pair."""
    reading = read(claim, evidence, most_words=most_words)
    cut, _ = cut_question(tokenizer, claim, MAX_CLAIM_TOKENS)
    encoding = tokenizer.encode(cut, reading.text)
    encoding.truncate(MAX_TOKENS)
    return Example(encoding, reading.features, supported)


def train(
    network: GroundingNetwork,
    collections: Mapping[str, Sequence[Example]],
    options: GroundingOptions,
    *,
    checkpoint: Path,
    report: Callable[[int, float, float], None] = lambda *_: None,
) -> GroundingNetwork:
    """Train in place; `report` gets step, mean loss and share that was right since the last report.

    Raises:
        UsageError: A collection has pairs of one label only.
        ModelError: The loss is no longer finite.
    """
    torch.manual_seed(options.seed)
    _freeze(network, options.frozen_layers)
    optimiser = _optimiser(network, options)
    rates = [group["lr"] for group in optimiser.param_groups]
    network.train()
    losses, right = [], []
    for step, batch in zip(range(options.steps), _batches(collections, options), strict=False):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * _schedule(step / options.steps, options)
        labels = torch.tensor([float(one.supported) for one in batch])
        logits = network(**_tensors(batch))
        smoothed = labels * (1 - 2 * options.smoothing) + options.smoothing
        loss = F.binary_cross_entropy_with_logits(logits, smoothed)
        if not math.isfinite(loss.item()):
            raise ModelError(f"The loss is {loss.item()} at step {step}", hint="Lower the rates")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        right.append(float(((logits > 0) == (labels > 0.5)).float().mean()))
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == options.steps:
            save(network, checkpoint)
            report(step + 1, float(np.mean(losses)), float(np.mean(right)))
            losses, right = [], []
    return network.eval()


@torch.inference_mode()
def logits(network: GroundingNetwork, examples: Sequence[Example], batch: int = 64) -> NDArray[np.float32]:
    """In the order of the examples: float32[n]."""
    network.eval()
    order = sorted(range(len(examples)), key=lambda n: len(examples[n].encoding.ids))
    said = np.zeros(len(examples), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        said[rows] = network(**_tensors([examples[n] for n in rows])).numpy()
    return said


def largest_share(
    network: GroundingNetwork,
    unseen: Sequence[Sequence[Example]],
    shares: Sequence[float] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0),
    *,
    price: float = 0.01,
) -> tuple[float, dict[float, float]]:
    """How much of the correction to trust on subjects that training never saw.

    Returns the largest share whose mean area under the curve over the unseen collections is at most `price`
    below the best, and the area of each.
    """
    plain = [np.array([one.features for one in some]) @ _numbers(network.weights) for some in unseen]
    corrections = [logits(network, some) - base for some, base in zip(unseen, plain, strict=True)]
    labels = [np.array([one.supported for one in some]) for some in unseen]
    tried = {
        share: float(
            np.mean([area(b + share * c, y) for b, c, y in zip(plain, corrections, labels, strict=True)])
        )
        for share in shares
    }
    best = max(tried.values())
    return max(share for share, value in tried.items() if value >= best - price), tried


def area(values: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Probability that a supported pair scores above an unsupported one, ties counting half."""
    order = np.sort(values[~labels])
    below = np.searchsorted(order, values[labels], "left") + np.searchsorted(order, values[labels], "right")
    return float(below.mean() / 2 / max(1, len(order)))


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float32)


def save(network: GroundingNetwork, path: Path) -> None:
    """All weights as safetensors, written whole or not at all."""
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    partial.replace(path)


def load(network: GroundingNetwork, path: Path) -> None:
    """The inverse of `save`."""
    from safetensors.torch import load_file

    network.load_state_dict(load_file(path))


def _batches(
    collections: Mapping[str, Sequence[Example]], options: GroundingOptions
) -> Iterator[list[Example]]:
    """Collections by their shares, both labels alike, pairs of like length together."""
    chance = np.random.default_rng(options.seed)
    names = sorted(collections)
    shares = np.array(
        [options.shares.get(name, options.shares.get(name.split("-")[0], 1.0)) for name in names]
    )
    drawn = {}
    for name in names:
        for label in (True, False):
            some = [one for one in collections[name] if one.supported is label]
            if not some:
                raise UsageError(f"{name} has pairs of one label only", hint="Leave it out")
            drawn[name, label] = _drawn(some, chance)
    while True:
        picked = chance.choice(len(names), size=8 * options.batch, p=shares / shares.sum())
        pool = [next(drawn[names[n], bool(k % 2)]) for k, n in enumerate(picked)]
        pool.sort(key=lambda one: len(one.encoding.ids))
        for number in chance.permutation(8):
            yield pool[number * options.batch : (number + 1) * options.batch]


def _drawn(some: Sequence[Example], chance: np.random.Generator) -> Iterator[Example]:
    """Every one once before any comes again."""
    while True:
        for number in chance.permutation(len(some)):
            yield some[number]


def _tensors(batch: Sequence[Example]) -> dict[str, Tensor]:
    tokens = {name: torch.from_numpy(array) for name, array in feeds([one.encoding for one in batch]).items()}
    return tokens | {"features": torch.tensor([one.features for one in batch], dtype=torch.float32)}


def _freeze(network: GroundingNetwork, layers: int) -> None:
    network.bert.embeddings.requires_grad_(requires_grad=False)
    for layer in network.bert.encoder.layer[:layers]:
        layer.requires_grad_(requires_grad=False)


def _schedule(done: float, options: GroundingOptions) -> float:
    rise = min(1.0, (done + 1e-3) / options.warmup)
    return min(rise, (1.0 - done) / options.decay, 1.0)


def _optimiser(network: GroundingNetwork, options: GroundingOptions) -> torch.optim.Optimizer:
    body = [parameter for parameter in network.bert.parameters() if parameter.requires_grad]
    head = [parameter for parameter in network.heads.parameters() if parameter.dim() > 0]
    scalars = [network.weights, network.bias, *(p for p in network.heads.parameters() if p.dim() == 0)]
    groups: list[dict[str, Any]] = [
        {"params": body, "lr": options.encoder_rate, "weight_decay": 0.01},
        {"params": head, "lr": options.head_rate, "weight_decay": 0.01},
        {"params": scalars, "lr": options.scalar_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)
