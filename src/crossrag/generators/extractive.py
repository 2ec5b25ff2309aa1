"""The answer without a language model: the best sentences of the context, verbatim, each cited.

The reranker itself says which sentences answer the question; how relevant their passage is counts too. Works
offline, never invents a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crossrag.lexical import bm25, find_words
from crossrag.sentences import Sentence, split_sentences
from crossrag.types import WORD_JOINER, Context, Scores, Source, Turn

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Reranker

_OWN = re.compile(r"\[(?= ?[0-9])|`+")
"""What somebody who reads citations might take for a citation or for code."""
_PASSAGE = 0.6
"""Weight of the log-odds of a passage's relevance beside the logit of a sentence in it."""
_CERTAIN = 1e-6
_PARTS = re.compile(
    r"[?;]\s+(?:and )?|"
    r",? and (?=(?:how|what|when|where|who|whom|whose|why|which|is|are|can|do|does|did|was|were)\b)",
    re.IGNORECASE,
)
_LEAST_WORDS_OF_A_PART = 3
_LEAST_WORDS, _LEAST_WORDS_WITHOUT_STOP = 4, 8
_STOP = re.compile("[.!?:;\u3002\uff01\uff1f\u2026][\"'\u201d\u2019\u00bb)\\]*_`]*$|`{3}$")


@dataclass(frozen=True, slots=True)
class _Quote:
    source: Source
    start: int
    text: str
    score: float = 0.0


class ExtractiveGenerator:
    """Quotes at most `sentences` sentences whose score is within `margin` of the best one's.

    Of a question in parts, such as `How … and when …?`, each part has its own.

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
        quotes = [quote for quote in _quotable(context) if not _asks(question, quote.text)]
        chosen: list[_Quote] = []
        for part in _parts(question):
            for quote in self._chosen(self._scored(part, quotes)):
                if not any(_repeats(quote.text, other.text) for other in chosen):
                    chosen.append(quote)
        for position, quote in enumerate(
            sorted(chosen, key=lambda quote: (quote.source.number, quote.start))
        ):
            block = "```" in quote.text
            gap = "" if position == 0 else "\n\n" if block else " "
            literal = _OWN.sub(rf"\g<0>{WORD_JOINER}", quote.text)
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
            first_stage=[
                Scores(dense=float(cosine), sparse=overlap, indexed=len(texts))
                for cosine, overlap in zip(cosines, bm25(question, texts), strict=True)
            ],
            # More than are quoted: the passage may still change their order.
            top_k=2 * self._sentences,
        )
        # An unscored sentence is not quoted.
        return [
            replace(quote, score=logit + _PASSAGE * _log_odds(quote.source.relevance))
            for quote, logit in zip(quotes, said.logit, strict=True)
            if not math.isnan(logit)
        ]

    def _chosen(self, quotes: Sequence[_Quote]) -> list[_Quote]:
        ranked = sorted(quotes, key=lambda quote: (-quote.score, quote.source.number, quote.start))
        chosen: list[_Quote] = []
        for quote in ranked:
            if len(chosen) == self._sentences or quote.score < ranked[0].score - self._margin:
                break
            if not any(_repeats(quote.text, other.text) for other in chosen):
                chosen.append(quote)
        return chosen


def _parts(question: str) -> list[str]:
    """The questions in a question; itself alone where one of them would be a scrap."""
    parts = [part.strip() for part in _PARTS.split(question) if part.strip()]
    whole = len(parts) > 1 and all(len(part.split()) >= _LEAST_WORDS_OF_A_PART for part in parts)
    return parts if whole else [question]


def _asks(question: str, text: str) -> bool:
    """Whoever asks the same does not answer."""
    long = len(question.split()) > _LEAST_WORDS_OF_A_PART and question.rstrip().endswith("?")
    return long and find_words(question, text) is not None


def _log_odds(relevance: float | None) -> float:
    if relevance is None or math.isnan(relevance):
        return 0.0
    sure = min(max(relevance, _CERTAIN), 1.0 - _CERTAIN)
    return math.log(sure / (1.0 - sure))


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
