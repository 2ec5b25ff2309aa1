"""Question and earlier turns -> a question that stands alone; too long a question -> a shorter one.

A conversation is a list that the caller holds. Knows nothing of what is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import GeneratorError, reason
from .sentences import split_sentences
from .types import Truncated, Turn

REWRITE_PROMPT = """\
Below are a conversation and a new question. Write the question so that it is understandable without the
conversation: put names in the place of words like "it" or "they". If it is understandable as it is, write it
as it is. Write the question and nothing else.

<conversation>
{conversation}
</conversation>

<question>
{question}
</question>"""

_LONGEST_TURN, _LONGEST_QUESTION = 1_000, 500
_MOST_CARRIED = 6
_FEW_WORDS = 2
_POINTS_BACK = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|he|him|his|she|her|hers|this|these|those|the same|the former|"
    r"the latter|(?:that|there|one|ones)(?=\W*$))\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"^(?:and|but|so|or|also|what about|how about|why(?: not)?\b\W*$|what else)", re.IGNORECASE
)
_NAME = re.compile(
    r"\b(?:[A-Z][\w'-]*|\w*[a-z][A-Z]\w*|\w+_\w+|[A-Za-z]*\d[\w.]*)(?: (?:of |the |de )?[A-Z][\w'-]*)*"
)
_WORD = re.compile(r"[\w'-]+")


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question that stands alone, and what went wrong on the way to it."""

    text: str
    rewritten: bool = False
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def standalone(
    question: str,
    history: Sequence[Turn],
    *,
    is_content: Callable[[str], bool],
    complete: Callable[[str], str] | None = None,
) -> Standalone:
    """The question with what it takes from the turns before it.

    A language model rewrites it. Without one, or when it fails, a question that points back ("How long is
    it?") gets the names, or else the words, of the last question before it.

    Args:
        question: As it was asked.
        history: Earlier turns, oldest first; may be empty.
        is_content: Whether a word means something by itself, as `of` does not.
        complete: Asks the language model.
    """
    if not any(turn.role == "user" for turn in history):
        return Standalone(question)
    if complete is None:
        carried = carry_over(question, history, is_content=is_content)
        return Standalone(carried, rewritten=carried != question)
    try:
        said = complete(_prompt(question, history)).strip().strip("\"'`")
        if not said or "\n" in said or len(said) > max(_LONGEST_QUESTION, 2 * len(question)):
            raise GeneratorError("the model wrote no question")
    except Exception as error:  # noqa: BLE001 - a model raises what it likes
        carried = carry_over(question, history, is_content=is_content)
        why = f"The question was not rewritten by the language model: {reason(error)}"
        return Standalone(carried, carried != question, ("expansion",), (why,))
    return Standalone(said, rewritten=said != question)


def carry_over(question: str, history: Sequence[Turn], *, is_content: Callable[[str], bool]) -> str:
    """The question, with the names or words of the last question before it in brackets if it points back."""
    content = [word for word in _WORD.findall(question) if is_content(word)]
    if not (_points_back(question) or len(content) < _FEW_WORDS):
        return question
    asked = [turn.text for turn in history if turn.role == "user"]
    own = {word.casefold() for word in content}
    for earlier in reversed(asked):
        names = [name for name in _names(earlier) if is_content(name)]
        words = names
        if not names and not _points_back(earlier):
            words = [word for word in _WORD.findall(earlier) if is_content(word)]
        carried = [word for word in dict.fromkeys(words) if word.casefold() not in own][:_MOST_CARRIED]
        if carried:
            return f"{question} ({', '.join(carried)})"
    return question


def _points_back(question: str) -> bool:
    return bool(_POINTS_BACK.search(question) or _GOES_ON.match(question))


def condense(
    question: str, *, budget: int, count_tokens: Callable[[str], int], terms: Callable[[str], Sequence[int]]
) -> tuple[str, Truncated | None]:
    """The question within `budget` tokens: its most telling sentences in reading order, or its first words.

    A sentence tells more if it asks, and if its terms come again in other sentences.

    Returns:
        The question, and how much of it is left; None where nothing had to go.
    """
    # No token is shorter than a byte, so most questions need not be counted.
    if len(question.encode()) <= budget or (total := count_tokens(question)) <= budget:
        return question, None
    texts = [question[one.start : one.end] for one in split_sentences(question)]
    holds = [frozenset(terms(text)) for text in texts]
    spread: dict[int, int] = {}
    for one in holds:
        for term in one:
            spread[term] = spread.get(term, 0) + 1
    asks = [text.rstrip("\"')").endswith("?") for text in texts]
    worth = [sum(spread[term] - 1 for term in one) / (len(one) + 3) for one in holds]
    order = sorted(range(len(texts)), key=lambda place: (not asks[place], -worth[place], place))
    kept: list[int] = []
    left = budget
    for place in order:
        cost = count_tokens(texts[place])
        if cost <= left:
            kept.append(place)
            left -= cost
    short = " ".join(texts[place] for place in sorted(kept)) or _first_words(question, budget, count_tokens)
    return short, Truncated(query_tokens=total, kept=count_tokens(short))


def _first_words(text: str, budget: int, count_tokens: Callable[[str], int]) -> str:
    """As many distinct words as fit; a single word that does not is cut."""
    words = list(dict.fromkeys(text.split()))
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count_tokens(" ".join(words[:middle])) <= budget else (low, middle - 1)
    return " ".join(words[:low]) or text[:budget]


def _prompt(question: str, history: Sequence[Turn]) -> str:
    lines = (f"{turn.role}: {' '.join(turn.text.split())[:_LONGEST_TURN]}" for turn in history)
    return REWRITE_PROMPT.format(conversation="\n".join(lines), question=question)


def _names(text: str) -> list[str]:
    """Capitalised words, identifiers and numbers; the first word of a sentence is capitalised anyway."""
    return [
        match[0]
        for match in _NAME.finditer(text)
        if not (_begins_sentence(text, match.start()) and match[0].istitle() and " " not in match[0])
    ]


def _begins_sentence(text: str, place: int) -> bool:
    before = text[:place].rstrip()
    return not before or before[-1] in ".!?:"
