"""How many questions training needs. Known at once, before anything is searched or torch is loaded."""

from __future__ import annotations

from crossrag.errors import UsageError

LEAST_LEARNED, LEAST_HELD_OUT = 40, 10
"""Questions without which nothing can be learned or decided."""
HELD_BACK = 5
"""Each so many-th question is held out."""


def check_split(questions: int) -> None:
    """`check_counts` of so many questions that we split ourselves."""
    check_counts(questions - questions // HELD_BACK, questions // HELD_BACK)


def check_folder_counts(learned: int, held_out: int) -> None:
    """`check_counts` of a folder's own splits; a folder without a second one is split by us."""
    if held_out:
        check_counts(learned, held_out)
    else:
        check_split(learned)


def check_counts(learned: int, held_out: int) -> None:
    """Raise UsageError where there are too few questions to learn from or to decide with."""
    if learned < LEAST_LEARNED or held_out < LEAST_HELD_OUT:
        raise UsageError(
            f"{learned} questions to learn from and {held_out} held out are too few",
            hint=f"Judge at least {LEAST_LEARNED + LEAST_HELD_OUT} questions; some hundreds are a good start",
        )
