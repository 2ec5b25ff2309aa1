"""What the network is taught, per batch of groups.

- listwise softmax cross-entropy: the relevant passage above the others of its group (Cao et al., 2007);
  or LambdaLoss: pairs weighted by what swapping them would change in nDCG (Wang et al., 2018)
- pointwise cross-entropy: the logit as log-odds of being relevant
- self-distillation: earlier exits follow the last one (Phuong and Lampert, 2019)
- on questions that nothing in the group answers: the pointwise part alone, so that all scores are low
- on groups without labels: keep the first stage's order
- restraint: what the heads add within a group stays small, where it does not pay
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

if TYPE_CHECKING:
    from .network import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the parts, for each exit where there are several."""

    exits: tuple[float, ...] = (0.4, 0.6, 1.0)
    ranking: Literal["softmax", "lambda"] = "softmax"
    pointwise: float = 0.3
    distillation: float = 0.3
    order: float = 0.5
    restraint: float = 0.005
    temperature: float = 1.0
    """Logits are divided by it: 1 / slope of a trained model's calibration, so that it starts as log-odds."""
    shift: float = 0.0
    """Added after that, to the pointwise part alone."""
    false_negative_margin: float = 3.0
    """A negative that is scored above the relevant passage by more than this is taken for relevant, too."""


class Known(NamedTuple):
    """What is known of each group."""

    labelled: Tensor
    """bool[groups]: whether its first passage is relevant."""
    judged: Tensor
    """bool[groups]: whether the others are known not to be; True of labelled groups, too."""


def loss(
    output: Output,
    known: Known,
    first_stage_logits: Tensor,
    size: int,
    weights: LossWeights,
    *,
    trust: bool,
) -> Tensor:
    """Mean loss of a batch.

    Args:
        output: Logits float32[n, k] of `groups * size` pairs, the relevant one first in each group.
        known: Of each group.
        first_stage_logits: float32[n]: the first stage's share alone.
        size: Passages per group.
        weights: Of the parts.
        trust: Whether the network knows enough to tell false negatives.
    """
    labelled, judged = known
    exits = output.logits.shape[1]
    logits = output.logits.view(-1, size, exits) / weights.temperature
    order = torch.log_softmax(first_stage_logits.view(-1, size) / weights.temperature, dim=1)
    hidden = (
        _false_negatives(logits[:, :, -1].detach(), labelled, weights.false_negative_margin)
        if trust
        else None
    )
    teacher = torch.softmax(logits[:, :, -1].detach(), dim=1)
    corrections = output.corrections.view(-1, size, exits) / weights.temperature
    total = logits.new_zeros(())
    for number in range(exits):
        part = logits.new_zeros(())
        of_exit = logits[:, :, number]
        if labelled.any():
            ranked = _lambda if weights.ranking == "lambda" else _listwise
            part = part + ranked(of_exit[labelled], None if hidden is None else hidden[labelled])
        if judged.any():
            part = part + weights.pointwise * _pointwise(of_exit + weights.shift, known, hidden)
        if not judged.all():
            said = torch.log_softmax(of_exit[~judged], dim=1)
            kept = F.kl_div(said, order[~judged], reduction="batchmean", log_target=True)
            part = part + weights.order * kept
        if number < exits - 1:
            said = torch.log_softmax(of_exit, dim=1)
            part = part + weights.distillation * F.kl_div(said, teacher, reduction="batchmean")
        spread = corrections[:, :, number] - corrections[:, :, number].mean(1, keepdim=True)
        part = part + weights.restraint * spread.square().mean()
        total = total + weights.exits[number] * part
    return total


def _listwise(logits: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is not None:
        logits = logits.masked_fill(hidden, -1e4)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def _lambda(logits: Tensor, hidden: Tensor | None) -> Tensor:
    """NDCG-Loss2++ where only the first of a group is relevant; its parts as 1 to 10, like the paper's.

    Float32[groups, n] to a scalar. A pair counts by how far apart its discounts are at the present ranks.
    """
    count = logits.shape[1]
    places = torch.arange(1, count + 2, device=logits.device, dtype=logits.dtype)
    discount = 1.0 / torch.log2(places + 1.0)
    ranks = (logits.unsqueeze(2) < logits.unsqueeze(1)).sum(2)
    swapped = (discount[ranks[:, :1]] - discount[ranks[:, 1:]]).abs()
    # Ranks differ by at least one; ties share a rank and count as one apart.
    apart = (ranks[:, :1] - ranks[:, 1:]).abs().clamp(min=1)
    bound = (discount[apart - 1] - discount[apart]).abs()
    weight = (bound + 10.0 * swapped) / 11.0
    each = weight * F.softplus(-(logits[:, :1] - logits[:, 1:])) / math.log(2.0)
    if hidden is not None:
        each = each.masked_fill(hidden[:, 1:], 0.0)
    return each.sum(1).mean()


def _pointwise(logits: Tensor, known: Known, hidden: Tensor | None) -> Tensor:
    target = torch.zeros_like(logits)
    target[known.labelled, 0] = 1.0
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    counts = known.judged.unsqueeze(1).expand_as(each).clone()
    if hidden is not None:
        counts &= ~hidden
    return each[counts].mean()


def _false_negatives(logits: Tensor, labelled: Tensor, margin: float) -> Tensor:
    hidden = (logits > logits[:, :1] + margin) & labelled.unsqueeze(1)
    hidden[:, 0] = False
    return hidden
