"""What every Grounder must do; inherit it and override the fixture `grounder`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossrag.protocols import Grounder

EVIDENCE = (
    "A backup is written every night at two and kept for thirty days. "
    "To restore a backup, stop the service and run the restore command."
)
PAIRS = (
    (EVIDENCE, "A backup is written every night at two."),
    (EVIDENCE, "Whales are the largest animals that ever lived on Earth."),
    ("Whales are mammals. The blue whale is the largest animal that ever lived.", "Whales are mammals."),
    ("Whales are mammals.", EVIDENCE),
    ("Cats sleep for most of the day. " * 40 + EVIDENCE, "Backups are kept for thirty days."),
)


class GrounderContract:
    """Order, batches, long and odd texts."""

    def test_what_the_evidence_says_is_supported_more_than_what_it_does_not(self, grounder: Grounder) -> None:
        """The least that checking needs."""
        said = grounder.support(PAIRS)
        assert all(0.0 <= value <= 1.0 for value in said)
        assert said[0] > said[1]
        assert said[2] > said[3]

    def test_scores_belong_to_their_pairs(self, grounder: Grounder) -> None:
        """Permuting the pairs permutes the scores, also where pairs repeat."""
        pairs = (*PAIRS, PAIRS[0])
        order = [3, 0, 5, 2, 1, 4]
        straight = grounder.support(pairs)
        mixed = grounder.support([pairs[position] for position in order])
        for place, position in enumerate(order):
            assert math.isclose(mixed[place], straight[position], abs_tol=1e-4)

    def test_a_score_does_not_depend_on_its_batch(self, grounder: Grounder) -> None:
        """Alone or in company, the same number."""
        together = grounder.support(PAIRS)
        for pair, value in zip(PAIRS, together, strict=True):
            assert math.isclose(grounder.support([pair])[0], value, abs_tol=1e-4)

    def test_support_is_found_deep_in_long_evidence(self, grounder: Grounder) -> None:
        """What is too long for one reading is not just cut behind its beginning."""
        filler = "The weather was mild and nothing happened on that day. " * 200
        claim = "A backup is written every night at two."
        deep, without = grounder.support([(filler + EVIDENCE + filler, claim), (filler, claim)])
        assert deep > without + 0.3

    def test_empty_and_odd_input(self, grounder: Grounder) -> None:
        """No pairs give nothing; odd ones give a number or NaN."""
        assert grounder.support([]) == []
        odd = [("", ""), (" ", "🦉"), ("word " * 5000, "word " * 5000), ("\u202e", "\x00"), (EVIDENCE, "")]
        said = grounder.support(odd)
        assert len(said) == len(odd)
        assert all(math.isnan(value) or 0.0 <= value <= 1.0 for value in said)

    def test_it_has_a_name(self, grounder: Grounder) -> None:
        """For fingerprints of answers."""
        assert grounder.fingerprint
