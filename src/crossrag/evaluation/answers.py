"""An answer -> its claims and sources as they are kept; its words against those of a reference.

Exact match and F1 are those of SQuAD (Rajpurkar et al., 2016): case, punctuation and articles do not count.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag.sentences import split_sentences
from crossrag.types import Candidate, Scores

from .records import Answered

if TYPE_CHECKING:
    from crossrag.types import Answer

    from .dataset import Dataset, Question

_MARK = re.compile(r"\s*\[\d{1,4}\]")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answered(
    dataset: Dataset, question: Question, answer: Answer, count_tokens: Callable[[str], int] | None = None
) -> Answered:
    """What judges and people need of an answer; what it costs, where tokens can be counted."""
    sources = answer.context.sources
    return Answered(
        text=answer.text,
        status=answer.status,
        claims=tuple(claims(answer)) if answer.status != "no_answer" else (),
        sources=tuple(source.chunk.text for source in sources),
        grades=tuple(
            dataset.grade(question, dataset.names(question, Candidate(chunk=source.chunk, scores=Scores())))
            for source in sources
        ),
        degraded=tuple(answer.degraded),
        tokens=(answer.context.tokens, count_tokens(answer.text)) if count_tokens else None,
    )


def claims(answer: Answer) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Sentences without their marks, each with the numbers of the sources that it cites."""
    if answer.claims:
        for claim in answer.claims:
            if text := bare(claim.text):
                yield text, claim.citations
        return
    found: list[tuple[str, list[int]]] = []
    start = 0
    for sentence in split_sentences(answer.text):
        text = bare(answer.text[sentence.start : sentence.end])
        if text:
            found.append((text, []))
        if found:
            # A mark after the full stop stands in the next sentence, or alone: it is the former one's.
            found[-1][1].extend(c.number for c in answer.citations if start <= c.start < sentence.end)
        start = sentence.end
    for text, numbers in found:
        yield text, tuple(dict.fromkeys(numbers))


def bare(text: str) -> str:
    """Without citation marks and space around."""
    return _MARK.sub("", text).strip()


def exact_match(text: str, references: Sequence[str]) -> float:
    """1 where the text is one of the references, else 0."""
    return float(any(_normal(text) == _normal(reference) for reference in references))


def word_f1(text: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, against the reference that it is nearest to."""
    return max((_f1(_normal(text), _normal(reference)) for reference in references), default=0.0)


def word_recall(text: str, references: Sequence[str]) -> float:
    """Share of the distinct words of a reference that the text holds; the best one counts."""
    there = set(_normal(text))
    shares = [len(set(_normal(r)) & there) / len(set(_normal(r))) for r in references if _normal(r)]
    return max(shares, default=0.0)


def _f1(words: Sequence[str], wanted: Sequence[str]) -> float:
    if not words or not wanted:
        return float(words == wanted)
    common = sum((Counter(words) & Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted))


def _normal(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()
