"""One vector per token, fitted so that their sums say what a bi-encoder says of texts and of pairs.

In: token ids, the bi-encoder's vectors of texts, its cosines of pairs. Out: rows of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]

_TEXTS_IN_A_STEP = 512
_SHARPNESS = 20.0
"""What cosines are multiplied by before they become shares among the candidates of a question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and some passages."""

    question: int
    """Position among the questions' token ids."""
    passages: NDArray[np.int32]
    """int32[n]: positions among the passages' token ids."""
    cosines: NDArray[np.float32]
    """float32[n]: what the bi-encoder says of each."""
    relevant: NDArray[np.bool_]
    """bool[n]: what people said."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of texts, end to end."""

    ids: Ids
    starts: NDArray[np.int64]
    """int64[n + 1]: where each text begins, and the end."""

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Tokens:
        """One list of ids per text."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        flat = np.fromiter((one for text in texts for one in text), np.int32, int(lengths.sum()))
        return cls(flat, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def bags(self, chosen: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Ids of some texts and where each begins, as `embedding_bag` takes them."""
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        begins = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(begins[-1]) + np.repeat(self.starts[chosen] - begins[:-1], lengths)
        return torch.from_numpy(self.ids[places]), torch.from_numpy(begins[:-1].astype(np.int32))


class Table(nn.Module):
    """A row per token and its weight."""

    def __init__(self, words: NDArray[np.float32], frequencies: NDArray[np.float32]) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.from_numpy(np.ascontiguousarray(words)))
        # Smooth inverse frequency (Arora et al., 2017).
        self.weights = nn.Parameter(torch.from_numpy(np.log(1e-3 / (1e-3 + frequencies))))

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Token ids of several texts end to end, and where each begins, to float32[n, d] of unit length."""
        weights = self.weights.exp()[ids]
        sums = functional.embedding_bag(ids, self.words, starts, mode="sum", per_sample_weights=weights)
        return functional.normalize(sums, dim=1)

    @torch.no_grad()
    def rows(self) -> Tensor:
        """float32[v, d]."""
        return self.words * self.weights.exp().unsqueeze(1)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and the bi-encoder's vectors of them, turned into the directions that are kept."""

    tokens: Tokens
    wanted: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Questions with candidates."""

    questions: Tokens
    passages: Tokens
    asked: Sequence[Asked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and by what the table is fitted to pairs."""

    steps: int
    candidates: int = 8
    """Of a question, in one step."""
    questions: int = 64
    """In one step."""
    pull: float = 1.0
    """Weight of the bi-encoder's order of the candidates."""
    closeness: float = 20.0
    """Weight of its cosines as numbers."""
    judged: float = 0.0
    """Weight of what people said."""
    rate: float = 1e-3
    seed: int = 0


def fit_texts(table: Table, texts: Texts, epochs: float, seed: int) -> None:
    """Fit in place to the vectors of texts, and to how near they are to each other."""
    steps = int(epochs * len(texts.tokens) / _TEXTS_IN_A_STEP)
    optimiser, schedule = _optimiser(table, 2e-3, steps)
    wanted = functional.normalize(torch.from_numpy(texts.wanted), dim=1)
    lessons = _endless(len(texts.tokens), _TEXTS_IN_A_STEP, np.random.default_rng(seed))
    for _ in range(steps):
        _step(optimiser, schedule, _of_texts(table, texts, wanted, next(lessons)))


def fit_pairs(
    table: Table, texts: Texts, pairs: Pairs, effort: Effort, tell: Callable[[int, int], None]
) -> None:
    """Fit in place to the cosines of questions with their candidates.

    Args:
        table: What is fitted.
        texts: Whose vectors are to be met still: it keeps words right of which no question asks.
        pairs: Whose cosines and whose order are to be met.
        effort: How.
        tell: Called with the step and the number of all, from time to time.
    """
    optimiser, schedule = _optimiser(table, effort.rate, effort.steps)
    chance = np.random.default_rng(effort.seed)
    wanted = functional.normalize(torch.from_numpy(texts.wanted), dim=1)
    batches = _endless(len(pairs.asked), effort.questions, chance)
    lessons = _endless(len(texts.tokens), _TEXTS_IN_A_STEP, chance)
    for step in range(effort.steps):
        loss = _of_pairs(table, pairs, next(batches), effort, chance)
        _step(optimiser, schedule, loss + _of_texts(table, texts, wanted, next(lessons)))
        if step % 100 == 99 or step + 1 == effort.steps:
            tell(step + 1, effort.steps)


def _optimiser(
    table: Table, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.Adam(
        [{"params": [table.words], "lr": rate}, {"params": [table.weights], "lr": 10 * rate}]
    )
    return optimiser, torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, max(1, steps))


def _step(
    optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, loss: Tensor
) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    schedule.step()


def _of_texts(table: Table, texts: Texts, wanted: Tensor, chosen: NDArray[np.int64]) -> Tensor:
    said, target = table(*texts.tokens.bags(chosen)), wanted[torch.from_numpy(chosen)]
    direction = 1 - (said * target).sum(1).mean()
    # And as near to each other as the bi-encoder has them: what search over a whole index needs.
    nearness = (said @ said.T - target @ target.T).square().mean()
    return direction + 5 * nearness


def _of_pairs(
    table: Table, pairs: Pairs, chosen: NDArray[np.int64], effort: Effort, chance: np.random.Generator
) -> Tensor:
    some = [pairs.asked[number] for number in chosen]
    drawn = [_drawn(one, effort.candidates, chance) for one in some]
    named = np.stack([one.passages[places] for one, places in zip(some, drawn, strict=True)])
    known, back = np.unique(named, return_inverse=True)
    read = table(*pairs.passages.bags(known))[torch.from_numpy(back.reshape(named.shape))]
    asked = table(*pairs.questions.bags(np.asarray([one.question for one in some])))
    said = (read * asked.unsqueeze(1)).sum(2)
    target = torch.from_numpy(np.stack([one.cosines[p] for one, p in zip(some, drawn, strict=True)]))
    order = functional.kl_div(
        functional.log_softmax(_SHARPNESS * said, 1),
        functional.log_softmax(_SHARPNESS * target, 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = effort.pull * order + effort.closeness * (said - target).square().mean()
    if effort.judged:
        good = torch.from_numpy(np.stack([one.relevant[p] for one, p in zip(some, drawn, strict=True)]))
        shares = torch.where(good, functional.softmax(_SHARPNESS * said, 1), 0.0).sum(1)
        loss = loss - effort.judged * shares[good.any(1)].clamp_min(1e-6).log().mean()
    return loss


def _drawn(one: Asked, count: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Some candidates of a question: a relevant one, and others; some twice where there are too few."""
    places = chance.permutation(len(one.passages))
    good = np.flatnonzero(one.relevant)
    if len(good):
        first = chance.choice(good)
        places = np.concatenate([[first], places[places != first]])
    return np.resize(places, count)


def _endless(size: int, count: int, chance: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    count = min(size, count)
    while True:
        order = chance.permutation(size)
        for start in range(0, size - count + 1, count):
            yield order[start : start + count]


# --- how good ---------------------------------------------------------------------------------------------


@torch.no_grad()
def likeness(table: Table, texts: Texts) -> float:
    """Mean cosine of the table's vectors with the bi-encoder's."""
    wanted = functional.normalize(torch.from_numpy(texts.wanted), dim=1)
    said = table(*texts.tokens.bags(np.arange(len(texts.tokens))))
    return float((said * wanted).sum(1).mean())


@torch.no_grad()
def cosines(table: Table, pairs: Pairs) -> list[NDArray[np.float32]]:
    """Of each question with its candidates."""
    found = []
    for one in pairs.asked:
        read = table(*pairs.passages.bags(one.passages))
        asked = table(*pairs.questions.bags(np.asarray([one.question])))
        found.append((read @ asked[0]).numpy())
    return found


def ranked_well(pairs: Pairs, said: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """nDCG@10 of people's judgements over the candidates, by what is said and by the bi-encoder."""
    judged = [(one, given) for one, given in zip(pairs.asked, said, strict=True) if one.relevant.any()]
    ours = [ndcg(one.relevant, given) for one, given in judged]
    theirs = [ndcg(one.relevant, one.cosines) for one, _ in judged]
    return float(np.mean(ours)), float(np.mean(theirs))


def translation(pairs: Pairs, said: Sequence[NDArray[np.float32]]) -> tuple[float, float, float]:
    """Scale and shift for the best guess at the bi-encoder's cosine, and the correlation with it."""
    ours, theirs = np.concatenate(list(said)), np.concatenate([one.cosines for one in pairs.asked])
    scale, shift = np.polyfit(ours, theirs, 1)
    return float(scale), float(shift), float(np.corrcoef(ours, theirs)[0, 1])


def ndcg(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """nDCG@10 of what is relevant or not, by scores."""
    discount = 1 / np.log2(np.arange(2, 12))
    best = relevant[np.argsort(-scores, kind="stable")[:10]]
    return float((best * discount[: len(best)]).sum() / discount[: int(min(10, relevant.sum()))].sum())
