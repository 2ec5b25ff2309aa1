"""What is asked, and what was judged relevant: questions with places, and passages named after the places.

A place is a document, or words in it. Everything that is measured is an order of *names*: of the places that
a passage holds, or of the passage itself where it holds none. Knows nothing of files or measures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from crossrag import quoted
from crossrag.errors import UsageError

if TYPE_CHECKING:
    from crossrag.types import Candidate, Chunk


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question is answered, or said not to be.

    Args:
        sources: Documents, by their source or its last parts; any of them. Empty: whatever document.
        quote: Words of the document; empty where the whole document is meant.
        grade: Above 0 relevant, the more the better; 0 judged irrelevant.
    """

    sources: tuple[str, ...]
    quote: str = ""
    grade: int = 1

    def holds(self, chunk: Chunk) -> bool:
        """Whether the chunk is this place, as `quoted.holds` has it."""
        if self.sources and not any(_same(source, chunk.source) for source in self.sources):
            return False
        return quoted.holds(self.quote, chunk.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with everything that is known about its answer."""

    id: str
    text: str
    places: tuple[Place, ...] = ()
    answers: tuple[str, ...] = ()
    """Reference answers, any of which is right."""
    answerable: bool | None = None
    """Whether the documents hold an answer; None where nobody said so."""

    @property
    def judged(self) -> bool:
        """Whether a ranking can be measured by it: some place is relevant."""
        return any(place.grade > 0 for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Questions about one collection of documents."""

    name: str
    questions: tuple[Question, ...]
    relevant_from: int = 1
    """Least grade that counts as relevant where a measure knows only yes and no."""

    @property
    def by_document(self) -> bool:
        """Whether documents are judged, not passages: then a document stands where its best passage does."""
        return not any(place.quote for question in self.questions for place in question.places)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a question or a judgement does; SHA-256 in hex."""
        rows = [asdict(question) for question in sorted(self.questions, key=lambda question: question.id)]
        text = json.dumps([self.relevant_from, rows], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def judgements(self, question: Question) -> dict[str, int]:
        """Grade per name of a place."""
        grades: dict[str, int] = {}
        for name, place in zip(self._names(question), question.places, strict=True):
            grades[name] = max(place.grade, grades.get(name, place.grade))
        return grades

    def grade(self, question: Question, names: Sequence[str]) -> int | None:
        """The best grade of these names; None where nobody judged any."""
        judged = self.judgements(question)
        return max((judged[name] for name in names if name in judged), default=None)

    def names(self, question: Question, candidate: Candidate) -> tuple[str, ...]:
        """The places that a candidate holds, itself or by a near-duplicate, in order; else its own name."""
        chunks = (candidate.chunk, *candidate.duplicates)
        found = dict.fromkeys(
            name
            for name, place in zip(self._names(question), question.places, strict=True)
            if any(place.holds(chunk) for chunk in chunks)
        )
        own = (
            candidate.chunk.source
            if self.by_document
            else f"{candidate.chunk.source}#{candidate.chunk.position}"
        )
        return tuple(found) or (written(own),)

    def _names(self, question: Question) -> list[str]:
        """In a folder of judged documents the document itself, so that a run can be read by other tools."""
        if self.by_document and all(len(place.sources) == 1 for place in question.places):
            return [written(place.sources[0]) for place in question.places]
        return [f"{written(question.id)}@{number}" for number, _ in enumerate(question.places, start=1)]


def order(named: Iterable[Sequence[str]]) -> list[str]:
    """Names in the order of their first passage; what a further passage repeats is left out."""
    return list(dict.fromkeys(name for names in named for name in names))


def written(name: str) -> str:
    """A name without white space, as files of runs need it."""
    return "".join(f"%{ord(letter):02X}" if letter.isspace() else letter for letter in name)


def merged(questions: Iterable[Question]) -> tuple[Question, ...]:
    """Questions of the same id as one, with all their places and answers.

    Raises:
        UsageError: An id stands for two questions.
    """
    found: dict[str, Question] = {}
    for question in questions:
        before = found.get(question.id)
        if before is None:
            found[question.id] = question
            continue
        if before.text != question.text:
            raise UsageError(
                f"The id {question.id!r} is that of two questions: "
                f"{before.text[:60]!r}, {question.text[:60]!r}",
                hint="Give each its own id, or leave ids out",
            )
        said = [known for known in (before.answerable, question.answerable) if known is not None]
        found[question.id] = Question(
            id=before.id,
            text=before.text,
            places=tuple(dict.fromkeys((*before.places, *question.places))),
            answers=tuple(dict.fromkeys((*before.answers, *question.answers))),
            answerable=any(said) if said else None,
        )
    return tuple(found.values())


def graded(judged: Mapping[str, int]) -> tuple[Place, ...]:
    """Places of judged documents."""
    return tuple(Place((document,), grade=grade) for document, grade in judged.items())


def _same(named: str, source: str) -> bool:
    return source == named or source.endswith("/" + named)
