"""A judge that runs on this machine: a grounding model and a cross-encoder. Deterministic, and no person.

    faithfulness        share of the answer's claims that some source of the context supports
    answer_relevancy    how relevant the cross-encoder finds the answer, read as a passage, to the question
    context_precision   average precision of the sources: relevant where a judged place is in one, else where
                        it supports a sentence of the reference, else where the cross-encoder says so
    context_recall      share of the reference's sentences that some source supports
    answer_correctness  harmonic mean of: claims that the reference supports, sentences of it that they do
    citation_precision  share of citations whose source alone supports the claim (Gao et al., 2023, ALCE)
    citation_recall     share of claims that the sources they cite support together
    exact_match, f1     against the reference (SQuAD)
    cited_words         share of the reference's distinct words that stand in the sources that are cited

What needs a reference is None without one; what needs claims is None for a refusal, but for correctness,
which is 0 where there was an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossrag.sentences import split_sentences

from .answers import bare, exact_match, word_f1, word_recall
from .measures import mean

if TYPE_CHECKING:
    from crossrag.protocols import Grounder, Reranker

    from .dataset import Question
    from .judging import Verdict
    from .records import Answered

SUPPORTED = 0.5
"""Least probability of support that counts as support."""
_SHORT = 5
"""A reference of fewer words is no sentence: it is read after the question."""
_WORDS = ("exact_match", "f1", "cited_words")
_GROUNDED = (
    "faithfulness",
    "answer_relevancy",
    "context_precision",
    "context_recall",
    "answer_correctness",
    "citation_precision",
    "citation_recall",
)


class LocalJudge:
    """Judges by models of this machine.

    Args:
        grounder: Says whether a text supports a claim; None leaves out everything that needs it.
        reranker: Says whether a text is about a question; None leaves out `answer_relevancy`.
    """

    def __init__(self, *, grounder: Grounder | None, reranker: Reranker | None) -> None:
        self._grounder, self._reranker = grounder, reranker

    @property
    def fingerprint(self) -> str:
        """Both models'."""
        parts = (self._grounder, self._reranker)
        return "local:1 " + " ".join(part.fingerprint if part else "none" for part in parts)

    @property
    def measures(self) -> tuple[str, ...]:
        """What it can say with the models that there are."""
        if self._grounder is None:
            return (*(("answer_relevancy",) if self._reranker else ()), *_WORDS)
        without = {"answer_relevancy"} if self._reranker is None else set()
        return tuple(name for name in (*_GROUNDED, *_WORDS) if name not in without)

    def judge(self, question: Question, answered: Answered) -> Verdict:
        """One value per measure."""
        found = {**self._grounded(question, answered), **_words(question, answered)}
        if self._reranker is not None:
            found["answer_relevancy"] = self._relevancy(question, answered)
        return {name: found[name] for name in self.measures}

    def _grounded(self, question: Question, answered: Answered) -> dict[str, float | None]:
        if self._grounder is None:
            return {}
        claims = [text for text, _ in answered.claims]
        reference = _sentences(question)
        by_source = self._table(answered.sources, claims)
        recalled = self._table(answered.sources, reference)
        return {
            "faithfulness": _share([max(column, default=0.0) for column in by_source]),
            "context_precision": self._context_precision(question, answered, recalled),
            "context_recall": _share([max(column, default=0.0) for column in recalled]),
            "answer_correctness": self._correctness(question, claims, reference),
            **self._citations(answered, by_source),
        }

    def _table(self, evidence: Sequence[str], claims: Sequence[str]) -> list[list[float]]:
        """Per claim, the support by each piece of evidence."""
        said = self._support([(text, claim) for claim in claims for text in evidence])
        width = len(evidence)
        return [said[start * width : (start + 1) * width] for start in range(len(claims))]

    def _support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        assert self._grounder is not None  # noqa: S101 - the callers have looked
        return list(self._grounder.support(pairs)) if pairs else []

    def _correctness(
        self, question: Question, claims: Sequence[str], reference: Sequence[str]
    ) -> float | None:
        if not reference:
            return None
        if not claims:
            return None if question.answerable is False else 0.0
        right = _share([max(column, default=0.0) for column in self._table([" ".join(reference)], claims)])
        said = _share(self._support([(" ".join(claims), sentence) for sentence in reference]))
        if right is None or said is None or math.isnan(right) or math.isnan(said):
            return math.nan
        return 2 * right * said / (right + said) if right + said else 0.0

    def _citations(self, answered: Answered, by_source: Sequence[Sequence[float]]) -> dict[str, float | None]:
        together: list[tuple[str, str]] = []
        alone: list[float] = []
        for (claim, numbers), column in zip(answered.claims, by_source, strict=True):
            known = [number for number in numbers if 1 <= number <= len(answered.sources)]
            alone += [column[number - 1] for number in known]
            if known:
                together.append(("\n\n".join(answered.sources[number - 1] for number in known), claim))
        uncited = [0.0] * (len(answered.claims) - len(together))
        return {
            "citation_precision": _share(alone),
            "citation_recall": _share([*self._support(together), *uncited]),
        }

    def _context_precision(
        self, question: Question, answered: Answered, recalled: Sequence[Sequence[float]]
    ) -> float | None:
        if not answered.sources:
            return None
        relevant = self._relevant(question, answered, recalled)
        if any(value is None for value in relevant):
            return math.nan
        precisions = [
            sum(bool(value) for value in relevant[:rank]) / rank
            for rank, value in enumerate(relevant, start=1)
            if value
        ]
        return mean(precisions)

    def _relevant(
        self, question: Question, answered: Answered, recalled: Sequence[Sequence[float]]
    ) -> list[bool | None]:
        if question.judged:
            return [(grade or 0) > 0 for grade in answered.grades]
        if recalled:
            best = [max(column[place] for column in recalled) for place in range(len(answered.sources))]
        elif self._reranker is not None:
            best = list(self._reranker.score(question.text, answered.sources).relevance)
        else:
            return [None] * len(answered.sources)
        return [None if math.isnan(value) else value >= SUPPORTED for value in best]

    def _relevancy(self, question: Question, answered: Answered) -> float | None:
        if not answered.claims or self._reranker is None:
            return None
        return self._reranker.score(question.text, [bare(answered.text)]).relevance[0]


def _words(question: Question, answered: Answered) -> dict[str, float | None]:
    if not question.answers:
        return dict.fromkeys(_WORDS)
    text = bare(answered.text) if answered.claims else ""
    cited = {number for _, numbers in answered.claims for number in numbers}
    read = " ".join(source for number, source in enumerate(answered.sources, start=1) if number in cited)
    return {
        "exact_match": exact_match(text, question.answers),
        "f1": word_f1(text, question.answers),
        "cited_words": word_recall(read, question.answers),
    }


def _sentences(question: Question) -> list[str]:
    """Of the longest reference: it says most."""
    if not question.answers:
        return []
    reference = max(question.answers, key=lambda text: (len(text), text))
    if len(reference.split()) < _SHORT:
        return [f"{question.text} {reference}"]
    return [reference[s.start : s.end] for s in split_sentences(reference) if not s.heading] or [reference]


def _share(probabilities: Sequence[float]) -> float | None:
    """Of those that reach the threshold; None of nothing, NaN where the model failed."""
    if not probabilities:
        return None
    if any(math.isnan(value) for value in probabilities):
        return math.nan
    return mean([float(value >= SUPPORTED) for value in probabilities])
