"""Checks of rerankers: what any of them should keep, whatever its model. Each is a plain function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .material import ANSWER, FILLER, ODD, OTHER_END, QUERY, TEXTS
from .target import Ranked
from .verdicts import Verdict, failed, not_applicable, passed

_TOLERANCE = 1e-3
"""Of the spread of the scores of `TEXTS`: what counts as the same score."""
_LONG = (1_500, 12_000)
"""Words."""


def ranked(target: Any, query: str, texts: Sequence[str], top_k: int | None = None) -> list[Ranked]:
    """A call, its pairs made `Ranked`."""
    said = target.rank(query, list(texts), len(texts) if top_k is None else top_k)
    return [Ranked(*one) for one in said]


def the_answer_comes_first(target: Any) -> Verdict:
    """Among unlike passages the one that answers is the first."""
    said = ranked(target, QUERY, TEXTS)
    first = TEXTS[said[0].position]
    return passed() if first == ANSWER else failed(f"first is {first!r}")


def scores_are_given(target: Any) -> Verdict:
    """Each text comes back with a number."""
    said = ranked(target, QUERY, TEXTS)
    without = sum(one.score is None for one in said)
    return failed(f"{without} of {len(said)} texts come back without a score") if without else passed()


def the_order_is_that_of_the_scores(target: Any) -> Verdict:
    """Best first, by the very numbers that are handed out."""
    scores = _given(ranked(target, QUERY, TEXTS))
    if scores is None:
        return not_applicable("no scores")
    for better, worse in pairwise(scores):
        if worse > better:
            return failed(f"{worse:.6g} stands behind {better:.6g}")
    return passed()


def positions_belong_to_their_texts(target: Any) -> Verdict:
    """Each position is one of those given, once, and leads to the text that came back."""
    said = ranked(target, QUERY, TEXTS)
    positions = [one.position for one in said]
    if sorted(positions) != list(range(len(TEXTS))):
        return failed(f"positions {positions} of {len(TEXTS)} texts")
    for one in said:
        if one.text is not None and one.text != TEXTS[one.position]:
            return failed(f"position {one.position} came back with {one.text!r}")
    alone = [ranked(target, QUERY, [text])[0].score for text in TEXTS]
    together = _by_position(said)
    if None in alone or together is None:
        return passed("by texts; there are no scores to compare")
    # Scores may depend on their company; whose is the best may not.
    best, lone = _argmax(together), _argmax([score or 0.0 for score in alone])
    if best != lone:
        return failed(f"together text {best} is best, alone text {lone}")
    return passed()


def permutation_changes_nothing(target: Any) -> Verdict:
    """The same texts in another order get the same ranking and the same scores."""
    straight = ranked(target, QUERY, TEXTS)
    tolerance = _tolerance(straight)
    for order in ([3, 0, 6, 2, 5, 1, 7, 4], [*reversed(range(len(TEXTS)))]):
        mixed = [
            one._replace(position=order[one.position])
            for one in ranked(target, QUERY, [TEXTS[place] for place in order])
        ]
        before, after = _by_position(straight), _by_position(mixed)
        if before is None or after is None:
            if [one.position for one in mixed] != [one.position for one in straight]:
                return failed(f"the order changes with the order of the texts ({order})")
            continue
        far = max(abs(one - other) for one, other in zip(before, after, strict=True))
        if far > tolerance:
            return failed(f"scores differ by up to {far:.3g} when the texts come in another order")
    return passed()


def equal_texts_keep_their_order(target: Any) -> Verdict:
    """The same text several times among others of other lengths, twice."""
    texts = [text for other in TEXTS for text in (ANSWER, other, "Short.")]
    first, again = ranked(target, QUERY, texts), ranked(target, QUERY, texts)
    if [one.position for one in first] != [one.position for one in again]:
        return failed("the same call gives another order the second time")
    for text in (ANSWER, "Short."):
        equal = [one for one in first if texts[one.position] == text]
        places = [one.position for one in equal]
        if places != sorted(places):
            scores = _given(equal)
            apart = f"; their scores are up to {max(scores) - min(scores):.1g} apart" if scores else ""
            return failed(f"equal texts come in the order {places}{apart}")
    return passed()


def truncation_is_reported(target: Any) -> Verdict:
    """A text whose end decides is either read to its end, or said to be cut."""
    found = []
    tolerance = _tolerance(ranked(target, QUERY, TEXTS))
    for words in _LONG:
        filler = FILLER * (words // len(FILLER.split()))
        # The answer comes second: where neither end is read, it stays there.
        other, deciding = sorted(
            ranked(target, QUERY, [filler + OTHER_END, filler + ANSWER]), key=lambda one: one.position
        )
        if other.score is None or deciding.score is None:
            read = ranked(target, QUERY, [filler + OTHER_END, filler + ANSWER])[0].position == 1
        else:
            read = abs(deciding.score - other.score) > tolerance
        if not read and not deciding.truncated:
            return failed(f"the end of {words} words makes no difference, and nothing says so")
        found.append(f"{words} words: {'said to be cut' if deciding.truncated else 'read to the end'}")
    return passed("; ".join(found))


def nothing_gives_nothing(target: Any) -> Verdict:
    """An empty list of texts is no error."""
    said = ranked(target, QUERY, [], 5)
    return failed(f"{len(said)} texts came out of none") if said else passed()


def one_text_is_ranked(target: Any) -> Verdict:
    """A single text comes back, whether it answers or not."""
    for text in (ANSWER, TEXTS[0]):
        said = ranked(target, QUERY, [text], 5)
        if [one.position for one in said] != [0]:
            return failed(f"one text gives {said}")
    return passed()


def top_k_counts(target: Any) -> Verdict:
    """As many as asked for, the beginning of the whole; all of them where more is asked for."""
    whole = [one.position for one in ranked(target, QUERY, TEXTS)]
    for top_k in (1, 3, len(TEXTS), len(TEXTS) + 5):
        said = [one.position for one in ranked(target, QUERY, TEXTS, top_k)]
        if len(said) != min(top_k, len(TEXTS)):
            return failed(f"{len(said)} texts for top_k={top_k} of {len(TEXTS)}")
        if said[:3] != whole[: len(said[:3])]:
            return failed(f"the best for top_k={top_k} are {said[:3]}, of all they are {whole[:3]}")
    return passed()


def scores_are_finite(target: Any) -> Verdict:
    """Empty, blank, odd and endless texts have scores that can be sorted and written as JSON."""
    scores = _given(ranked(target, QUERY, [*TEXTS, *ODD]))
    if scores is None:
        return not_applicable("no scores")
    bad = [score for score in scores if not math.isfinite(score)]
    return failed(f"scores {bad}") if bad else passed()


def a_score_does_not_depend_on_its_company(target: Any) -> Verdict:
    """Alone, among others, and beside an endless one, a text has the same score."""
    together = _by_position(said := ranked(target, QUERY, TEXTS))
    if together is None:
        return not_applicable("no scores")
    tolerance = _tolerance(said)
    beside = _by_position(ranked(target, QUERY, [*TEXTS, FILLER * 100]))
    alone = [ranked(target, QUERY, [text])[0].score for text in TEXTS]
    for company, scores in (("alone", alone), ("beside a long text", beside or [])):
        for place, (one, other) in enumerate(zip(together, scores, strict=False)):
            if other is None or abs(one - other) > tolerance:
                lone = "none" if other is None else f"{other:.4g}"
                return failed(
                    f"a text has {one:.4g} among {len(TEXTS)} and {lone} {company}: {TEXTS[place]!r}"
                )
    return passed()


def unlike_texts_have_unlike_scores(target: Any) -> Verdict:
    """No rounding, no saturation: what is unlike does not end in a tie."""
    said = ranked(target, QUERY, TEXTS)
    scores = _given(said)
    if scores is None:
        return not_applicable("no scores")
    if len(set(scores)) < len(scores):
        return failed(f"{len(scores) - len(set(scores))} of {len(scores)} unlike texts are tied")
    return passed()


def a_long_question_leaves_the_texts_readable(target: Any) -> Verdict:
    """A question of 1 500 words still tells one text from another."""
    said = ranked(target, f"{QUERY} {FILLER * 166}", TEXTS)
    scores = _given(said)
    if scores is None:
        return not_applicable("no scores")
    return failed("all texts have the same score") if len(set(scores)) == 1 else passed()


def duplicates_are_kept(target: Any) -> Verdict:
    """Equal texts are documents of their own: each comes back."""
    texts = [ANSWER, TEXTS[0], ANSWER, TEXTS[0]]
    said = sorted(one.position for one in ranked(target, QUERY, texts))
    return passed() if said == [0, 1, 2, 3] else failed(f"of 4 texts, 2 of them twice, came back {said}")


def what_is_given_is_not_changed(target: Any) -> Verdict:
    """Neither the list nor a document in it; who gave them may use them again."""
    texts = list(TEXTS)
    target.rank(QUERY, texts, len(texts))
    if tuple(texts) != TEXTS:
        return failed("the list of texts was changed")
    if changed := list(getattr(target, "changed", ())):
        return failed(f"{len(changed)} of {len(texts)} documents that were given are not as they were")
    return passed()


def _given(said: Sequence[Ranked]) -> list[float] | None:
    scores = [one.score for one in said if one.score is not None]
    return scores if len(scores) == len(said) else None


def _by_position(said: Sequence[Ranked]) -> list[float] | None:
    return _given(sorted(said, key=lambda one: one.position))


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _tolerance(said: Sequence[Ranked]) -> float:
    scores = _given(said)
    return _TOLERANCE * (max(scores) - min(scores)) if scores else 0.0
