"""What the benches share: a fixed sample, a head that says where and when, printing."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Sequence
from datetime import date
from typing import TypeVar

SEED = 20261123
Item = TypeVar("Item")


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """The same items in every run."""
    return random.Random(SEED).sample(list(items), min(count, len(items)))  # noqa: S311 - a sample, no secret


def head(questions: int) -> tuple[str, ...]:
    """When, where and how the figures below were measured."""
    return (
        f"Measured on {date.today().isoformat()}, {machine()}, with",  # noqa: DTZ011 - the day where it ran
        f"`{' '.join(['python', *sys.argv])}`.",
        f"Questions per set: at most {questions}, sampled with seed {SEED}.",
        "",
    )


def machine() -> str:
    """Cores, architecture and Python."""
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"


def printed(lines: Sequence[str]) -> Sequence[str]:
    """Print at once what is returned."""
    for line in lines:
        print(line, flush=True)
    return lines
