"""The answer without a language model: the best sentences of the context, verbatim, each cited.

The reranker itself says which sentences answer the question. Works offline, never invents a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossrag.sentences import Sentence, split_sentences
from crossrag.types import WORD_JOINER, Context, Scores, Source, Turn

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Reranker

_NUMERIC_BRACKET = re.compile(r"\[(?=[\d ,]+\])")
_LEAST_WORDS, _LEAST_WORDS_WITHOUT_STOP = 4, 8
_STOP = re.compile("[.!?:;\u3002\uff01\uff1f\u2026][\"'\u201d\u2019\u00bb)\\]*_`]*$|`{3}$")


@dataclass(frozen=True, slots=True)
class _Quote:
    source: Source
    start: int
    text: str
    logit: float = 0.0


class ExtractiveGenerator:
    """Quotes at most `sentences` sentences whose logit is within `margin` of the best one's.

    Args:
        reranker: Scores question and sentence.
        embedder: Gives the cosine that residual rerankers need for a sentence.
        sentences: Most sentences of an answer.
        margin: In logits of the reranker.
    """

    fingerprint = "extractive"

    def __init__(
        self, *, reranker: Reranker, embedder: Embedder, sentences: int = 3, margin: float = 2.0
    ) -> None:
        self._reranker = reranker
        self._embedder = embedder
        self._sentences = sentences
        self._margin = margin

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        """One piece per quoted sentence, in order of the sources and then of reading."""
        quotes = self._scored(question, _quotable(context))
        chosen = self._chosen(quotes)
        for position, quote in enumerate(
            sorted(chosen, key=lambda quote: (quote.source.number, quote.start))
        ):
            block = "```" in quote.text
            gap = "" if position == 0 else "\n\n" if block else " "
            literal = _NUMERIC_BRACKET.sub("[" + WORD_JOINER, quote.text)
            before = "\n" if block else " "
            # A mark on the line of a closing fence would keep the fence open.
            yield f"{gap}{literal}{before}[{quote.source.number}]"

    def _scored(self, question: str, quotes: Sequence[_Quote]) -> list[_Quote]:
        texts = [quote.text for quote in quotes]
        if not texts:
            return []
        cosines = self._embedder.embed_documents(texts) @ self._embedder.embed_query(question)
        said = self._reranker.score(
            question,
            texts,
            first_stage=[Scores(dense=float(cosine)) for cosine in cosines],
            top_k=self._sentences,
        )
        # NaN compares unequal to itself: an unscored sentence is not quoted.
        return [
            _Quote(quote.source, quote.start, quote.text, logit)
            for quote, logit in zip(quotes, said.logit, strict=True)
            if logit == logit  # noqa: PLR0124
        ]

    def _chosen(self, quotes: Sequence[_Quote]) -> list[_Quote]:
        ranked = sorted(quotes, key=lambda quote: (-quote.logit, quote.source.number, quote.start))
        chosen: list[_Quote] = []
        for quote in ranked:
            if len(chosen) == self._sentences or quote.logit < ranked[0].logit - self._margin:
                break
            if not any(_repeats(quote.text, other.text) for other in chosen):
                chosen.append(quote)
        return chosen


def _quotable(context: Context) -> list[_Quote]:
    return [
        _Quote(source, start, text)
        for source in context.sources
        for start, text in _whole_sentences(source.chunk.text)
        if _is_statement(text)
    ]


def _is_statement(text: str) -> bool:
    """A few words without a full stop are a title or a scrap of a table, whatever their line looks like."""
    words = len(text.split())
    return words >= (_LEAST_WORDS if _STOP.search(text) else _LEAST_WORDS_WITHOUT_STOP)


def _whole_sentences(text: str) -> Iterator[tuple[int, str]]:
    """Sentences; one that ends in a colon takes along what it announces."""
    sentences = split_sentences(text)
    for index, sentence in enumerate(sentences):
        if sentence.heading:
            continue
        end = sentence.end
        if text[sentence.start : end].endswith(":") and index + 1 < len(sentences):
            end = _announced(sentences, index + 1)
        yield sentence.start, text[sentence.start : end]


def _announced(sentences: Sequence[Sentence], index: int) -> int:
    return sentences[index - 1].end if sentences[index].heading else sentences[index].end


def _repeats(one: str, other: str) -> bool:
    first, second = " ".join(one.lower().split()), " ".join(other.lower().split())
    return first in second or second in first
