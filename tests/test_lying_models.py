"""Whatever a model says, the citations are real (promise 22)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossrag.verification import Verification

from .answers import (
    AGAIN,
    BACKUPS,
    CHECKED,
    DROPPING,
    check,
    events,
)

LIES = st.lists(
    st.sampled_from(
        [
            "[1]",
            "[2]",
            "[3]",
            " [99]",
            "[0]",
            "[1,2,7]",
            ". ",
            "A backup",
            " is kept",
            ' "for thirty years"',
            "\n\n",
            "- ",
            " elephants",
            "Then run the restore command.",
            "[",
            "]",
            " [1",
            "```",
            ": ",
            "\u2060",
            "é",
        ]
    ),
    max_size=25,
)


@given(LIES, st.sampled_from([CHECKED, DROPPING, AGAIN, Verification()]))
def test_a_lying_model_cites_nothing_that_is_not_there(pieces: list[str], how: Verification) -> None:
    check(events(pieces, BACKUPS, verification=how))
