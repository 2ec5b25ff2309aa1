"""Judged questions of a user -> calibration beside the index; and back, when questions are asked.

A file of judgements is JSON Lines, one relevant place per line:

    {"question": "How long is parental leave?", "source": "handbook/leave.md", "quote": "fourteen months"}

`quote` is optional; without it every passage of the source counts as relevant. Passages that the search finds
for the question and that no line names count as irrelevant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import quoted
from .calibration import Calibration, Operating, calibration_error, fit, operating_points, threshold_for
from .errors import ConfigError, UsageError

if TYPE_CHECKING:
    from .types import Candidate, Chunk

FILE_NAME = "calibration.json"
FEWEST = 10
"""Questions with a found relevant place; what is read off fewer is chance."""
FEW = 50
"""Below it thresholds say more of these questions than of others."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One place that answers a question."""

    question: str
    source: str
    quote: str = ""

    def names(self, chunk: Chunk) -> bool:
        """Whether the chunk is that place; its quote as `quoted.holds` has it."""
        same = chunk.source == self.source or chunk.source.endswith("/" + self.source)
        return same and quoted.holds(self.quote, chunk.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration with what it rests on. `*_error` is the expected calibration error, in [0, 1]."""

    scorers: tuple[str, ...]
    """Fingerprints of what made the logits: reranker, embedder, sparse encoder."""
    calibration: Calibration
    points: tuple[Operating, ...]
    questions: int
    pairs: int
    relevant: int
    unmatched: int
    """Questions of whose relevant places the search found none: a slip in source or quote, or a hard one."""
    error_before: float
    error_after: float

    @property
    def matched(self) -> int:
        """Questions that say what a relevant passage scores."""
        return self.questions - self.unmatched

    @property
    def better(self) -> bool:
        """Whether it is worth keeping: no worse than the model's own probabilities, on the same passages."""
        return self.error_after <= self.error_before

    def save(self, folder: Path) -> None:
        """Write it beside the index, in one step."""
        folder.mkdir(parents=True, exist_ok=True)  # of a collection on a server there may be nothing here yet
        partial = folder / f"{FILE_NAME}.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / FILE_NAME)


def load(folder: Path) -> Calibrated | None:
    """What `save` wrote, or None.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        row["calibration"] = Calibration(**row["calibration"])
        row["scorers"] = tuple(row["scorers"])
        row["points"] = tuple(Operating(**point) for point in row["points"])
        return Calibrated(**row)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}",
            hint="Delete it by `crossrag calibrate --remove`, then calibrate again",
        ) from None


def remove(folder: Path) -> bool:
    """Delete what `save` wrote, damaged or not; whether there was one."""
    path = folder / FILE_NAME
    if not path.is_file():
        return False
    path.unlink()
    return True


def check_enough(matched: int, *, asked: int, fewest: int = FEWEST) -> None:
    """Raise UsageError where so few questions have a found relevant place that nothing can be read off."""
    if matched >= fewest:
        return
    raise UsageError(
        f"Of {asked} questions {matched} have a relevant place that the search finds, and {fewest} are the"
        " least to calibrate with; nothing was kept",
        hint=f"Judge more, {FEW} are a good start; check source and quote of those that were not found",
    )


def read_judgements(path: Path) -> list[Judgement]:
    """Read a file of judgements.

    Raises:
        UsageError: The file is missing or a line is broken; the message names the line.
    """
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {wrong}", hint="Name a file of judgements, one JSON object per line")
    found = []
    # As bytes: a text may hold characters that str.splitlines breaks lines at, and a line may be no UTF-8.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            found.append(_judgement(line, f"{path}, line {number}"))
    if not found:
        raise UsageError(f"{path} is empty", hint="Write one JSON object per line: question, source, quote")
    return found


def by_question(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Judgements grouped by their question, in order."""
    grouped: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        grouped.setdefault(judgement.question, []).append(judgement)
    return grouped


def answers(judgements: Iterable[Judgement], chunk: Chunk) -> bool:
    """Whether any of the places is this chunk."""
    return any(judgement.names(chunk) for judgement in judgements)


def calibrate(
    ranked: Mapping[str, Sequence[Candidate]],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    scorers: tuple[str, ...],
    fewest: int = FEWEST,
) -> Calibrated:
    """Fit probabilities and operating points to what was ranked for the judged questions.

    Args:
        ranked: Reranked candidates per question.
        judgements: What is relevant, per question.
        scorers: Fingerprints of what made the logits.
        fewest: Least number of questions of which a relevant place was found.

    Raises:
        UsageError: There are too few questions or pairs, or relevant passages do not score higher.
    """
    marked = {
        question: [(candidate, answers(judgements[question], candidate.chunk)) for candidate in candidates]
        for question, candidates in ranked.items()
    }
    matched = sum(any(label for _, label in pairs) for pairs in marked.values())
    check_enough(matched, asked=len(ranked), fewest=fewest)
    scored = [pair for pairs in marked.values() for pair in pairs if pair[0].scores.logit is not None]
    relevant = [label for _, label in scored]
    logits = [candidate.scores.logit or 0.0 for candidate, _ in scored]
    before = [candidate.scores.relevance or 0.0 for candidate, _ in scored]
    calibration = fit(logits, relevant)
    after = [calibration.probability(logit) for logit in logits]
    return Calibrated(
        scorers=scorers,
        calibration=calibration,
        points=tuple(_thinned(operating_points(after, relevant))),
        questions=len(ranked),
        pairs=len(scored),
        relevant=sum(relevant),
        unmatched=len(ranked) - matched,
        error_before=calibration_error(before, relevant),
        error_after=calibration_error(after, relevant),
    )


def resolve_threshold(wanted: float | str, calibrated: Calibrated | None) -> float:
    """A number as it is; `precision>=P` as the laxest threshold that kept that precision when calibrating.

    Raises:
        ConfigError: There is no calibration of this reranker to read it from.
        UsageError: The precision was never reached.
    """
    if isinstance(wanted, (int, float)):
        return float(wanted)
    precision = float(wanted.partition(">=")[2])
    if calibrated is None:
        raise ConfigError(
            f"reranking.threshold is {wanted!r}, but this index has no calibration for its reranker",
            hint="Run `crossrag calibrate JUDGEMENTS` first, or set a number",
        )
    return threshold_for(calibrated.points, precision).threshold


def _thinned(points: list[Operating], most: int = 400) -> list[Operating]:
    """Of many thresholds those where the precision is best for the recall, at most so many."""
    best: list[Operating] = []
    for point in sorted(points, key=lambda point: (-point.recall, -point.precision, -point.threshold)):
        if not best or point.precision > best[-1].precision:
            best.append(point)
    best.reverse()
    step = max(1, -(-len(best) // most))
    return best[::step]


def _judgement(line: bytes, where: str) -> Judgement:
    try:
        row: Any = json.loads(line)
        if not isinstance(row, dict):
            raise TypeError("it is no JSON object")
        if missing := [name for name in ("question", "source") if name not in row]:
            raise ValueError(f"{' and '.join(missing)} missing")
        question, source, quote = row["question"], row["source"], row.get("quote", "")
        if not all(isinstance(value, str) for value in (question, source, quote)):
            raise TypeError("question, source and quote are texts")
        if not (question.strip() and source.strip()):
            raise ValueError("question and source must not be empty")
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{where}: {error}", hint='Write {"question": "…", "source": "…", "quote": "…"}'
        ) from None
    return Judgement(question.strip(), source.strip(), quote.strip())
