"""Batches -> a trained network: schedule, precision, checkpoints, progress.

Weights are written as safetensors; nothing is pickled. The same seed, batches and machine give the same
weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from crossrag.errors import ModelError, UsageError
from crossrag.residual import comparable

from .losses import Known, LossWeights, loss

if TYPE_CHECKING:
    from .batches import Batch, Batches
    from .mining import Mined
    from .network import ProgressiveCrossEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How long and how fast."""

    steps: int
    encoder_rate: float = 1.5e-4
    head_rate: float = 1e-3
    scalar_rate: float = 5e-3
    """Of the few single numbers: the weights of the first stage and of the views in each head."""
    warmup: float = 0.03
    """Share of the steps in which the rates rise."""
    decay: float = 0.5
    """Share of the steps, at the end, in which they fall to zero."""
    trust_after: float = 0.3
    """Share of the steps after which the network's own opinion tells false negatives."""
    weight_decay: float = 0.01
    frozen_layers: int = 0
    """So many of the lowest layers keep what they know; the embeddings of words always do."""
    first_stage: bool = True
    """Whether the weights of cosine and BM25 are learned, too."""
    losses: LossWeights = field(default_factory=LossWeights)
    checkpoint_every: int = 200
    evaluate_every: int = 200
    patience: int = 4
    """Evaluations without improvement after which training stops."""
    report_every: int = 20
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands; means since the last report."""

    step: int
    steps: int
    loss: float
    first: float
    """Share of labelled groups whose relevant passage the first stage puts first."""
    exits: tuple[float, ...]
    """The same after each exit."""
    seconds: float


def fit_first_stage(network: ProgressiveCrossEncoder, mined: Sequence[Mined], *, most: int = 400) -> None:
    """Start the weights of cosine and BM25, and the bias, where they rank best without the network.

    Listwise over each question's candidates, every collection counting the same, then the bias pointwise.
    """
    chosen = [
        (question, part.indexed, 1 / len(some))
        for part in mined
        if (known := [question for question in part.questions if (question.grades > 0).any()])
        if (some := known[:: -(-len(known) // most)])
        for question in some
    ]
    longest = max(len(question.grades) for question, *_ in chosen)
    features = torch.zeros(len(chosen), longest, 2)
    there = torch.zeros(len(chosen), longest, dtype=torch.bool)
    relevant = torch.zeros(len(chosen), longest, dtype=torch.bool)
    for row, (question, indexed, _) in enumerate(chosen):
        count = len(question.grades)
        features[row, :count] = torch.from_numpy(comparable(question.text, question.first_stage, indexed))
        there[row, :count] = True
        relevant[row, :count] = torch.from_numpy(question.grades > 0)
    share = torch.tensor([weight for *_, weight in chosen])
    weights = torch.tensor([10.0, 1.0], requires_grad=True)
    bias = torch.tensor(-10.0, requires_grad=True)

    def listwise() -> Tensor:
        said = torch.log_softmax((features @ weights).masked_fill(~there, -1e4), dim=1)
        return -(share * torch.logsumexp(said.masked_fill(~relevant, -1e4), dim=1)).sum()

    def pointwise() -> Tensor:
        logits = (features @ weights.detach()) + bias
        each = F.binary_cross_entropy_with_logits(
            logits, relevant.float(), weight=there.float(), reduction="none"
        )
        return (share * each.sum(1)).sum()

    _minimise(listwise, weights)
    _minimise(pointwise, bias)
    with torch.no_grad():
        network.first_stage.copy_(weights)
        # The heads start as the sum of two similarities, which are about one half each.
        network.bias.fill_(float(bias) - 3.0)


def _minimise(objective: Callable[[], Tensor], parameter: Tensor) -> None:
    optimiser = torch.optim.LBFGS([parameter], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective()
        value.backward()
        return value

    optimiser.step(closure)


def train(
    network: ProgressiveCrossEncoder,
    batches: Batches,
    options: TrainingOptions,
    *,
    checkpoint: Path | None = None,
    evaluate: Callable[[ProgressiveCrossEncoder], float] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    interrupted: Callable[[], None] = lambda: None,
) -> ProgressiveCrossEncoder:
    """Train in place and return the network; with `evaluate`, as it was when that was highest.

    Ctrl-C after the first evaluation ends it early (`interrupted` is told), and what was best counts.

    Raises:
        UsageError: There are too few candidates to learn from.
        ModelError: The loss is no longer finite.
    """
    torch.manual_seed(options.seed)
    device = next(network.parameters()).device
    network.train()
    _freeze(network, options)
    best = _Best(network) if evaluate else None
    try:
        for step in _steps(network, batches, options, device, report):
            if checkpoint and step % options.checkpoint_every == 0:
                save(network, checkpoint)
            if best and evaluate and (step % options.evaluate_every == 0 or step == options.steps):
                network.eval()
                best.note(evaluate(network))
                network.train()
                if best.idle >= options.patience:
                    break
    except KeyboardInterrupt:
        if not (best and best.known):
            raise
        interrupted()
    if best:
        best.restore()
    if checkpoint:
        save(network, checkpoint)
    return network.eval()


def _steps(
    network: ProgressiveCrossEncoder,
    batches: Batches,
    options: TrainingOptions,
    device: torch.device,
    report: Callable[[Progress], None],
) -> Iterator[int]:
    """Train, and yield the number of steps done after each."""
    optimiser, rates = _optimiser(network, options)
    started, seen = time.monotonic(), _Seen(len(network.exits))
    stream = _endless(batches)
    for step in range(options.steps):
        batch = next(stream)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * _schedule(step, options)
        value = _step(
            network, batch, options, device, trust=step >= options.trust_after * options.steps, seen=seen
        )
        if not math.isfinite(value.item()):
            raise ModelError(f"The loss is {value.item()} at step {step}", hint="Lower the rates")
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % options.report_every == 0 or step + 1 == options.steps:
            report(seen.progress(step + 1, options.steps, time.monotonic() - started))
        yield step + 1


def _freeze(network: ProgressiveCrossEncoder, options: TrainingOptions) -> None:
    embeddings, layers = network.bert.embeddings, network.bert.encoder.layer[: options.frozen_layers]
    for frozen in [embeddings.word_embeddings, *([embeddings, *layers] if len(layers) else [])]:
        frozen.requires_grad_(requires_grad=False)
    network.first_stage.requires_grad_(requires_grad=options.first_stage)


def _step(
    network: ProgressiveCrossEncoder,
    batch: Batch,
    options: TrainingOptions,
    device: torch.device,
    *,
    trust: bool,
    seen: _Seen,
) -> Tensor:
    tokens = {name: torch.from_numpy(array).to(device) for name, array in batch.tokens.items()}
    first_stage = torch.from_numpy(batch.first_stage).to(device)
    known = Known(*(torch.from_numpy(said).to(device) for said in (batch.labelled, batch.judged)))
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        output = network(**tokens, first_stage=first_stage)
    alone = (first_stage * network.first_stage.detach()).sum(1)
    value = loss(output, known, alone, batch.size, options.losses, trust=trust)
    seen.add(value.item(), alone, output.logits.detach(), known.labelled, batch.size)
    return value


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def save(network: ProgressiveCrossEncoder, path: Path) -> None:
    """All weights as safetensors, written whole or not at all."""
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    partial.replace(path)


def load(network: ProgressiveCrossEncoder, path: Path) -> None:
    """The inverse of `save`."""
    from safetensors.torch import load_file

    network.load_state_dict(load_file(path))


def _schedule(step: int, options: TrainingOptions) -> float:
    done = (step + 1) / options.steps
    rise = min(1.0, done / options.warmup) if options.warmup else 1.0
    fall = min(1.0, (1.0 - done) / options.decay + 1e-3) if options.decay else 1.0
    return min(rise, fall)


def _optimiser(
    network: ProgressiveCrossEncoder, options: TrainingOptions
) -> tuple[torch.optim.Optimizer, list[float]]:
    rates = [options.encoder_rate, options.head_rate, options.scalar_rate]
    groups = (
        [parameter for parameter in network.bert.parameters() if parameter.requires_grad],
        [parameter for parameter in network.heads.parameters() if parameter.dim() > 0],
        [
            *([network.first_stage] if options.first_stage else []),
            network.bias,
            *(p for p in network.heads.parameters() if p.dim() == 0),
        ],
    )
    decays = (options.weight_decay, options.weight_decay, 0.0)
    optimiser = torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for parameters, rate, decay in zip(groups, rates, decays, strict=True)
        ]
    )
    return optimiser, rates


def _endless(batches: Batches) -> Iterator[Batch]:
    number = 0
    while True:
        empty = True
        for batch in batches.epoch(number):
            empty = False
            yield batch
        if empty:
            raise UsageError(
                "No question has enough irrelevant candidates to learn from",
                hint="Name the passages that answer by quotes, or index more documents",
            )
        number += 1


class _Best:
    """The weights that were best so far, and for how many evaluations nothing was better."""

    def __init__(self, network: ProgressiveCrossEncoder) -> None:
        self._network = network
        self._value = -math.inf
        self._weights: dict[str, Tensor] = {}
        self.idle = 0

    @property
    def known(self) -> bool:
        """Whether anything was evaluated."""
        return bool(self._weights)

    def note(self, value: float) -> None:
        if value > self._value:
            self._value, self.idle = value, 0
            self._weights = {key: tensor.clone() for key, tensor in self._network.state_dict().items()}
        else:
            self.idle += 1

    def restore(self) -> None:
        self._network.load_state_dict(self._weights)


class _Seen:
    """Running means between two reports."""

    def __init__(self, exits: int) -> None:
        self._exits = exits
        self._reset()

    def _reset(self) -> None:
        self._losses: list[float] = []
        self._first: list[float] = []
        self._right: list[list[float]] = []

    def add(self, value: float, alone: Tensor, logits: Tensor, labelled: Tensor, size: int) -> None:
        self._losses.append(value)
        if labelled.any():
            first = alone.view(-1, size)[labelled].argmax(1) == 0
            right = logits.view(-1, size, self._exits)[labelled].argmax(1) == 0
            self._first.append(float(first.float().mean()))
            self._right.append(right.float().mean(0).tolist())

    def progress(self, step: int, steps: int, seconds: float) -> Progress:
        right = np.mean(self._right, axis=0) if self._right else np.full(self._exits, np.nan)
        first = float(np.mean(self._first)) if self._first else math.nan
        said = Progress(step, steps, float(np.mean(self._losses)), first, tuple(map(float, right)), seconds)
        self._reset()
        return said
