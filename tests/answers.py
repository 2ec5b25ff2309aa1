"""What tests of answers share: contexts from texts, generators that misbehave, events made whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crossrag.answering import stream_answer
from crossrag.context import assemble
from crossrag.errors import GeneratorError
from crossrag.testing import CannedGenerator, OverlapGrounder
from crossrag.types import (
    Answer,
    Candidate,
    Chunk,
    Cited,
    Claimed,
    Context,
    Delta,
    Done,
    Event,
    Ranking,
    Scores,
    Turn,
    Unsupported,
)
from crossrag.verification import Verification

NOTHING_RANKED = Ranking(query="q", candidates=())


def candidate(text: str, *, document: str = "a", start: int = 0, relevance: float = 0.9) -> Candidate:
    chunk = Chunk(
        id=f"{document}{start}",
        document_id=document,
        source=f"{document}.md",
        text=text,
        start=start,
        end=start + len(text),
        position=start,
    )
    return Candidate(chunk=chunk, scores=Scores(relevance=relevance))


def context(*texts: str, start: int = 0) -> Context:
    """One source per text, each from a document of its own."""
    return assemble(
        [candidate(text, document=f"d{number}", start=start) for number, text in enumerate(texts)],
        token_budget=100_000,
    )


def events(pieces: Sequence[str], used: Context, **options: Any) -> list[Event]:
    generator = options.pop("generator", None) or CannedGenerator(pieces)
    return list(stream_answer("q", used, generator=generator, ranking=NOTHING_RANKED, **options))


def answer(pieces: Sequence[str], used: Context, **options: Any) -> Answer:
    last = events(pieces, used, **options)[-1]
    assert isinstance(last, Done)
    return last.answer


class CutGenerator:
    """Says some pieces and then fails."""

    fingerprint = "cut"

    def __init__(self, *pieces: str, retryable: bool = True) -> None:
        self._pieces = pieces
        self._retryable = retryable

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        yield from self._pieces
        raise GeneratorError("The server hung up", retryable=self._retryable)


class FailingGrounder:
    """Fails at the n-th call, or gives back something that is no list of numbers for the pairs."""

    fingerprint = "failing"

    def __init__(self, *, at: int = 1, said: list[float] | None = None) -> None:
        self._at = at
        self._said = said
        self.calls = 0

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.calls += 1
        if self.calls >= self._at:
            if self._said is not None:
                return self._said
            raise RuntimeError("out of memory")
        return [1.0] * len(pairs)


CHECKED = Verification(grounder=OverlapGrounder(), threshold=0.6)
DROPPING = Verification(grounder=OverlapGrounder(), threshold=0.6, policy="drop")
AGAIN = Verification(grounder=OverlapGrounder(), threshold=0.6, policy="regenerate")
BACKUPS = context(
    "A backup is written every night at two. It is kept for thirty days.",
    "To restore a backup, stop the service. Then run the restore command.",
    start=100,
)
TRUE = "A backup is written each night at two [1]."
FALSE = "Elephants ate all of the tapes yesterday [1]."


def kinds(found: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in found]


def check(found: Sequence[Event]) -> Answer:
    """What holds for every stream of events, whatever the model said."""
    assert kinds(found)[0] == "Retrieved"
    assert kinds(found).count("Done") == 1
    last = found[-1]
    assert isinstance(last, Done)
    said = last.answer
    assert said.text == "".join(event.text for event in found if isinstance(event, Delta))
    sources = {source.number: source.chunk for source in said.context.sources}
    assert tuple(event.citation for event in found if isinstance(event, Cited)) == said.citations
    for citation in said.citations:
        assert said.text[citation.start : citation.end] == f"[{citation.number}]"
        chunk = sources[citation.number]
        assert (citation.document_id, citation.passage_start) == (chunk.document_id, chunk.start)
        if citation.quote_start is not None:
            begin = citation.quote_start - chunk.start
            assert chunk.text[begin : begin + len(citation.quote)] == citation.quote != ""
    for claim in said.claims:
        assert said.text[claim.start : claim.end] == claim.text
        assert set(claim.citations) <= sources.keys()
    claimed = [event.claim for event in found if isinstance(event, Claimed)]
    assert [claim for claim in claimed if claim.end > claim.start] == list(said.claims)
    assert [event.claim for event in found if isinstance(event, Unsupported)] == [
        claim for claim in claimed if claim.supported is False
    ]
    return said
