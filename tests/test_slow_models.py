"""What has been written by the deadline is the answer; who leaves closes the generator."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from crossrag.answering import OUT_OF_TIME, stream_answer
from crossrag.testing import CannedGenerator
from crossrag.types import (
    Context,
    Retrieved,
    Turn,
)

from .answers import BACKUPS, FALSE, NOTHING_RANKED, TRUE, answer


class Slow:
    """Writes its pieces with a pause before each, and knows whether it was closed."""

    fingerprint = "slow"

    def __init__(self, *pieces: str, pause: float) -> None:
        self._pieces, self._pause = pieces, pause
        self.closed = threading.Event()

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        try:
            for piece in self._pieces:
                time.sleep(self._pause)
                yield piece
        finally:
            self.closed.set()


def test_what_is_written_by_the_deadline_is_the_answer() -> None:
    generator = Slow(f"{TRUE} ", *["More. "] * 1000, pause=0.05)
    begun = time.monotonic()
    said = answer([], BACKUPS, generator=generator, deadline=begun + 0.4)
    assert time.monotonic() - begun < 2.0
    assert said.text.startswith(TRUE)
    assert (said.status, said.degraded) == ("partial", ("answer",))
    assert generator.closed.wait(5)


def test_without_a_word_by_the_deadline_there_is_none() -> None:
    generator = Slow(TRUE, pause=1.0)
    said = answer([], BACKUPS, generator=generator, deadline=time.monotonic() + 0.1)
    assert (said.text, said.status, said.degraded) == (OUT_OF_TIME, "no_answer", ("answer",))
    assert generator.closed.wait(5)


def test_a_model_that_has_begun_has_all_the_time() -> None:
    generator = Slow("A backup is ", "written each ", "night at two [1].", pause=0.2)
    said = answer([], BACKUPS, generator=generator, fallback=CannedGenerator([FALSE]), deadline=soon(0.9))
    assert (said.text, said.degraded) == ("A backup is written each night at two [1].", ())


def test_a_model_that_has_not_begun_leaves_time_for_the_fallback() -> None:
    generator = Slow(FALSE, pause=2.0)
    said = answer([], BACKUPS, generator=generator, fallback=CannedGenerator([TRUE]), deadline=soon(0.5))
    assert (said.text, said.degraded) == (TRUE, ("llm",))


def test_where_both_are_too_slow_no_quotes_are_claimed() -> None:
    slow = Slow(TRUE, pause=2.0)
    said = answer([], BACKUPS, generator=slow, fallback=Slow(TRUE, pause=2.0), deadline=soon(0.3))
    assert (said.text, said.status, said.degraded) == (OUT_OF_TIME, "no_answer", ("llm", "answer"))
    assert "The language model failed: It wrote nothing in time" in said.notices


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_reader_who_leaves_closes_the_generator() -> None:
    for deadline in (None, time.monotonic() + 60):
        generator = Slow(*["More. "] * 1000, pause=0.01)
        stream = stream_answer("q", BACKUPS, generator=generator, ranking=NOTHING_RANKED, deadline=deadline)
        assert isinstance(next(stream), Retrieved)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert generator.closed.wait(5)
