"""Question -> further searches: by words of its first passages, by other spellings, by a language model.

Takes texts, terms and a function that completes a prompt. Knows nothing of stores and of what is found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import GeneratorError, reason
from .spellings import other_spellings
from .types import Expansion, SparseVector

if TYPE_CHECKING:
    from .protocols import SparseEncoder

Complete = Callable[[str], str]
"""A prompt to the whole of what a language model says to it."""

FEEDBACK_PASSAGES, FEEDBACK_TERMS, FEEDBACK_SHARE = 10, 10, 0.4
"""Of RM3: passages that are believed, words taken from them, their share of the query."""
SPELLING_WEIGHT = 0.5
"""Of a term that only another spelling holds; one of the question counts 1."""

_MOST_QUESTIONS = 4
_LONGEST_QUESTION, _LONGEST_PASSAGE = 300, 1_500
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")
_QUOTED = re.compile("^[\"'\u201c\u201d\u2018\u2019`]+|[\"'\u201c\u201d\u2018\u2019`]+$")

_QUESTION = "\n\n<question>\n{question}\n</question>"
_LINES = " Write one per line and nothing else: no numbers, no comments." + _QUESTION
PROMPTS = {
    "multi-query": "Write three other ways to ask the question below, in other words that documents which "
    "answer it may use. Keep names, numbers and what is asked for." + _LINES,
    "hyde": "Write a short passage, at most five sentences, such as a document that answers the question "
    "below may hold. Write the passage and nothing else." + _QUESTION,
    "step-back": "Write one more general question whose answer helps to answer the question below. Write "
    "the question and nothing else." + _QUESTION,
    "decompose": "If the question below asks for several facts, or for a fact that depends on another one, "
    "write the two to four simple questions that have to be answered first, each understandable alone. If "
    "it is simple, write it as it is." + _LINES,
}
"""What a language model is asked, by method."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """Further searches, and what went wrong on the way."""

    expansions: tuple[Expansion, ...] = ()
    notices: tuple[str, ...] = ()


def expand(
    question: str,
    methods: Sequence[str],
    *,
    passages: Sequence[str],
    sparse_encoder: SparseEncoder,
    complete: Complete | None = None,
) -> Expanded:
    """What else to search for. A method that fails is left out, and that is said.

    Args:
        question: As it is searched for.
        methods: `feedback`, `variants`, and the keys of `PROMPTS`, in the order of their expansions.
        passages: What the question itself found, best first.
        sparse_encoder: Makes terms of words.
        complete: Asks the language model; needed for the keys of `PROMPTS`.
    """
    found: list[Expansion] = []
    notices: list[str] = []
    for method in methods:
        try:
            if method == "feedback":
                found += feedback(question, passages, sparse_encoder=sparse_encoder)
            elif method == "variants":
                found += variants(question, passages, sparse_encoder=sparse_encoder)
            else:
                found += ask_model(question, method, complete)
        except Exception as error:  # noqa: BLE001 - a model and an encoder raise what they like
            notices.append(f"The question was not expanded by {method}: {reason(error)}")
    unique = {(one.text, one.passage, one.terms): one for one in found}
    return Expanded(tuple(unique.values()), tuple(notices))


def feedback(
    question: str,
    passages: Sequence[str],
    *,
    sparse_encoder: SparseEncoder,
    believed: int = FEEDBACK_PASSAGES,
    words: int = FEEDBACK_TERMS,
    share: float = FEEDBACK_SHARE,
) -> list[Expansion]:
    """The question's terms and the most telling ones of its first passages, for the sparse leg.

    A term tells the more, the more weight it has in the first `believed` passages and the rarer it is in
    those behind them; how rare it is in the whole index, the store adds.

    Abdul-Jaleel et al. (2004), "UMass at TREC 2004: Novelty and HARD" (RM3).
    """
    own = sparse_encoder.encode_query(question)
    if not own.indices or len(passages) < 2:
        return []
    vectors = sparse_encoder.encode_documents(list(passages))
    model: dict[int, float] = {}
    for vector in vectors[:believed]:
        whole = sum(vector.values) or 1.0
        for term, value in zip(vector.indices, vector.values, strict=True):
            model[term] = model.get(term, 0.0) + value / whole / min(believed, len(passages))
    telling = _telling(model, vectors[:believed], vectors[believed:])
    chosen = sorted(telling, key=lambda term: (-telling[term], term))[:words]
    total = sum(model[term] for term in chosen)
    if not total:
        return []
    # Scaled so that the question's own terms keep about the weight 1 which scores are used to.
    scale = share / (1 - share) * len(own.indices) / total
    weights = dict(zip(own.indices, own.values, strict=True))
    for term in chosen:
        weights[term] = weights.get(term, 0.0) + scale * model[term]
    added = _words_of(set(chosen) - set(own.indices), passages[:believed], sparse_encoder)
    if not added:
        return []
    return [Expansion(method="feedback", text=" ".join(added), terms=_sorted(weights))]


def variants(question: str, passages: Sequence[str], *, sparse_encoder: SparseEncoder) -> list[Expansion]:
    """The question with the other spellings of its identifiers, versions and acronyms, for the sparse leg."""
    others = other_spellings(question, passages)
    own = sparse_encoder.encode_query(question)
    new = sparse_encoder.encode_query(" ".join(others))
    weights = dict.fromkeys(new.indices, SPELLING_WEIGHT) | dict(zip(own.indices, own.values, strict=True))
    if len(weights) == len(own.indices):
        return []
    return [Expansion(method="variants", text="; ".join(others), terms=_sorted(weights))]


def ask_model(question: str, method: str, complete: Complete | None) -> list[Expansion]:
    """What a language model makes of the question, read strictly: what is too long or empty is left out.

    Gao et al. (2022), "Precise zero-shot dense retrieval without relevance labels" (HyDE); Zheng et al.
    (2023), "Take a step back"; Press et al. (2022), "Measuring and narrowing the compositionality gap in
    language models" (decomposition).

    Raises:
        GeneratorError: There is no model, it failed, or what it said holds nothing that can be searched for.
    """
    if complete is None:
        raise GeneratorError(
            f"{method} needs a language model", hint="Set generator.model or expansion.model to openai:MODEL"
        )
    said = complete(PROMPTS[method].format(question=question))
    if method == "hyde":
        passage = " ".join(said.split())[:_LONGEST_PASSAGE]
        if not passage:
            raise GeneratorError("the model wrote no passage")
        return [Expansion(method=method, text=passage, passage=True)]
    questions = read_questions(said, most=1 if method == "step-back" else _MOST_QUESTIONS)
    if not questions:
        raise GeneratorError("the model wrote no question that can be searched for")
    same = " ".join(question.casefold().split())
    return [Expansion(method=method, text=text) for text in questions if text.casefold() != same]


def read_questions(said: str, *, most: int) -> list[str]:
    """The lines of a model's reply without bullets and quotation marks; no line twice, none too long."""
    lines = (" ".join(_QUOTED.sub("", _BULLET.sub("", line)).split()) for line in said.splitlines())
    unique: dict[str, str] = {}
    for line in lines:
        if line and len(line) <= _LONGEST_QUESTION and line[-1] != ":":
            unique.setdefault(line.casefold(), line)
    return list(unique.values())[:most]


def _telling(
    model: dict[int, float], believed: Sequence[SparseVector], others: Sequence[SparseVector]
) -> dict[int, float]:
    """Terms of at least two believed passages, by weight and by how rarely the others hold them."""
    inside, outside = _holders(believed), _holders(others)
    return {
        term: weight * math.log((len(others) + 1.5) / (outside.get(term, 0) + 0.5))
        for term, weight in model.items()
        if inside[term] > 1
    }


def _holders(vectors: Sequence[SparseVector]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for vector in vectors:
        for term in vector.indices:
            counts[term] = counts.get(term, 0) + 1
    return counts


def _words_of(terms: set[int], passages: Sequence[str], sparse_encoder: SparseEncoder) -> list[str]:
    """A word for each term, for people; terms themselves are numbers."""
    found: dict[int, str] = {}
    seen: set[str] = set()
    for passage in passages:
        for word in re.findall(r"\w+", passage):
            if len(found) == len(terms):
                return list(found.values())
            if (lower := word.lower()) not in seen:
                seen.add(lower)
                for term in sparse_encoder.encode_query(lower).indices:
                    if term in terms:
                        found.setdefault(term, lower)
    return list(found.values())


def _sorted(weights: dict[int, float]) -> SparseVector:
    indices = sorted(weights)
    return SparseVector(tuple(indices), tuple(weights[index] for index in indices))
