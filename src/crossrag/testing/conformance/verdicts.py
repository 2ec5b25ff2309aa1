"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one check."""

    status: Status
    evidence: str = ""
    """What was seen; empty where there is nothing to add."""


def passed(evidence: str = "") -> Verdict:
    """It holds."""
    return Verdict("pass", evidence)


def failed(evidence: str) -> Verdict:
    """It does not, and this was seen."""
    return Verdict("fail", evidence)


def not_applicable(evidence: str) -> Verdict:
    """It cannot be asked here, for this reason."""
    return Verdict("not applicable", evidence)
