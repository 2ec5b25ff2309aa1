"""Mined questions -> batches of groups: one relevant passage beside hard negatives, tokenised and padded.

The same seed gives the same batches. Knows the tokenizer, not the network.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossrag.inference import cut_question, feeds
from crossrag.residual import comparable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from .judged import Passage
    from .mining import Mined, Question

_BLOCK = 512
# fmt: off
_QUESTION_WORDS = frozenset({
    "a", "an", "are", "at", "be", "by", "can", "did", "do", "does", "for", "from", "had", "has", "have",
    "how", "i", "in", "is", "it", "of", "on", "or", "should", "that", "the", "their", "there", "to",
    "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with",
    "would", "you",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Batch:
    """`groups * size` pairs, padded to one length. Row `g * size` is the relevant one of group g, if any."""

    tokens: dict[str, NDArray[np.int64]]
    """`input_ids`, `attention_mask` and `token_type_ids`: int64[n, l]."""
    first_stage: NDArray[np.float32]
    """float32[n, 2]: cosine and BM25."""
    labelled: NDArray[np.bool_]
    """bool[groups]: whether row `g * size` is relevant."""
    judged: NDArray[np.bool_]
    """bool[groups]: whether it is known that all others are not; else the first stage's order is taught."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How groups are drawn."""

    negatives: int = 5
    max_tokens: int = 192
    long_tokens: int = 320
    long_share: float = 0.15
    """Share of batches that are cut at `long_tokens` instead: most learning is done on what is cheap."""
    batch_tokens: int = 8_192
    """Padded tokens per batch."""
    easy_share: float = 0.25
    """Share of negatives from the lower part of what the first stage found."""
    without_title: float = 0.3
    """Share of groups whose passages are read without their titles."""
    keywords: float = 0.1
    """Share of questions from which function words are taken, as in a search box."""
    seed: int = 0


class Batches:
    """Draws batches from several collections, `quotas[name]` questions of each per epoch, else all."""

    def __init__(
        self,
        mined: Sequence[Mined],
        tokenizer: Tokenizer,
        options: BatchOptions,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        self._mined = {part.name: part for part in mined}
        self._tokenizer, self._options, self._quotas = tokenizer, options, dict(quotas or {})

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of one epoch."""
        chance = random.Random(f"{self._options.seed}:{number}")  # noqa: S311 - a draw, no secret
        drawn: list[tuple[str, Question]] = []
        for name, part in sorted(self._mined.items()):
            usable = [
                question for question in part.questions if len(question.passages) > self._options.negatives
            ]
            quota = min(self._quotas.get(name, len(usable)), len(usable))
            drawn += [(name, question) for question in chance.sample(usable, quota)]
        chance.shuffle(drawn)
        for start in range(0, len(drawn), _BLOCK):
            groups = [self._group(name, question, chance) for name, question in drawn[start : start + _BLOCK]]
            yield from self._packed([group for group in groups if group is not None], chance)

    def _group(self, name: str, question: Question, chance: random.Random) -> _Group | None:
        options = self._options
        relevant = [place for place, grade in enumerate(question.grades) if grade > 0]
        others = [place for place, grade in enumerate(question.grades) if grade <= 0]
        labelled = bool(relevant)
        # Judged, and nothing relevant: a question that these passages do not answer.
        judged = labelled or bool((question.grades == 0).all())
        wanted = options.negatives + (not labelled)
        if len(others) < wanted:
            return None
        near = others[: max(wanted, len(others) // 4)]
        easy = round(wanted * options.easy_share) if len(others) > 2 * wanted else 0
        chosen = chance.sample(near, wanted - easy)
        left = [place for place in others if place not in chosen]
        chosen += chance.sample(left, easy)
        places = [chance.choice(relevant), *chosen] if labelled else chosen
        titled = chance.random() >= options.without_title
        passages = [self._mined[name].passages[question.passages[place]] for place in places]
        text = _as_keywords(question.text) if chance.random() < options.keywords else question.text
        return _Group(
            text,
            [_read(passage, titled=titled) for passage in passages],
            comparable(question.text, question.first_stage[places], self._mined[name].indexed),
            labelled,
            judged,
        )

    def _packed(self, groups: Sequence[_Group], chance: random.Random) -> Iterator[Batch]:
        """Groups of like length together, in random order."""
        options = self._options
        size = options.negatives + 1
        longest = options.long_tokens if chance.random() < options.long_share else options.max_tokens
        self._tokenizer.no_truncation()
        # The passage needs room, too.
        questions = [cut_question(self._tokenizer, group.question, longest // 2)[0] for group in groups]
        pairs = [
            (question, passage)
            for question, group in zip(questions, groups, strict=True)
            for passage in group.passages
        ]
        self._tokenizer.enable_truncation(longest, strategy="only_second")
        encodings = self._tokenizer.encode_batch(pairs)
        widths = [
            max(len(encodings[number * size + offset].ids) for offset in range(size))
            for number in range(len(groups))
        ]
        batches: list[list[int]] = [[]]
        for number in sorted(range(len(groups)), key=lambda number: (widths[number], number)):
            if batches[-1] and (len(batches[-1]) + 1) * size * widths[number] > options.batch_tokens:
                batches.append([])
            batches[-1].append(number)
        chance.shuffle(batches)
        for batch in batches:
            if batch:
                rows = [encodings[number * size + offset] for number in batch for offset in range(size)]
                yield Batch(
                    feeds(rows),
                    np.concatenate([groups[number].first_stage for number in batch]),
                    np.asarray([groups[number].labelled for number in batch]),
                    np.asarray([groups[number].judged for number in batch]),
                    size,
                )


@dataclass(frozen=True, slots=True)
class _Group:
    question: str
    passages: list[str]
    first_stage: NDArray[np.float32]
    labelled: bool
    judged: bool


def _read(passage: Passage, *, titled: bool) -> str:
    return passage.described if titled else passage.text


def _as_keywords(question: str) -> str:
    words = [word for word in question.rstrip("?").split() if word.lower() not in _QUESTION_WORDS]
    return " ".join(words) or question
