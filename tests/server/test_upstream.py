"""A language model in trouble: it is left alone after a while (promise 29) and not asked ever more (30)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.errors import GeneratorError
from crossrag.generators.openai import OpenAIGenerator
from crossrag.prompt import messages
from crossrag.server.breaker import Breaker, GuardedGenerator
from tests.answers import context
from tests.fake_openai import FakeOpenAI, refusal

from .conftest import listening

if TYPE_CHECKING:
    from crossrag.server.service import Service
    from crossrag.types import Context, Turn


class Moody:
    """Fails as long as it is told to."""

    fingerprint = "moody"

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, 0

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        self.asked += 1
        if self.error is not None:
            raise self.error
        yield "A word [1]."


def test_a_model_that_fails_is_left_alone_and_then_asked_once() -> None:
    now = [0.0]
    model = Moody(GeneratorError("busy", retryable=True))
    guarded = GuardedGenerator(lambda: model, Breaker(failures=3, seconds=10, clock=lambda: now[0]))

    def ask() -> str:
        try:
            return "".join(guarded.stream("q", None))  # type: ignore[arg-type]
        except GeneratorError as error:
            return error.message

    assert [ask() for _ in range(3)] == ["busy"] * 3
    assert all("is not asked for 10 s" in ask() for _ in range(5))
    assert model.asked == 3
    now[0] = 10.1
    assert ask() == "busy"  # the one that sees whether it works
    assert "is not asked" in ask()
    assert model.asked == 4
    model.error = None
    now[0] = 20.2
    probe = guarded.stream("q", None)  # type: ignore[arg-type]
    assert next(iter(probe)) == "A word [1]."
    assert [ask() for _ in range(3)] == ["A word [1]."] * 3


@pytest.mark.parametrize("error", [GeneratorError("a wrong key"), RuntimeError("broken")])
def test_what_will_not_pass_is_told_each_time(error: Exception) -> None:
    model = Moody(error)
    guarded = GuardedGenerator(lambda: model, Breaker(failures=2, seconds=10))
    for _ in range(5):
        with pytest.raises(type(error) if isinstance(error, GeneratorError) else Exception):
            list(guarded.stream("q", None))  # type: ignore[arg-type]
    assert model.asked == (5 if isinstance(error, GeneratorError) else 2)


def test_requests_share_the_breaker(make: Callable[..., Service]) -> None:
    model = Moody(GeneratorError("busy", retryable=True))
    with listening(make(generator=model, breaker_failures=3, breaker_seconds=600)) as found:
        bodies: list[dict[str, Any]] = []
        for _ in range(8):
            reply = httpx.post(
                f"{found.url}/api/v1/answer", json={"question": "How large is a whale?"}, timeout=30
            )
            assert reply.status_code in {200, 503}
            bodies.append(reply.json())
        assert model.asked == 3


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as served:
        yield served


@pytest.mark.parametrize("count", [50, pytest.param(1_000, marks=pytest.mark.stress)])
def test_a_storm_of_429_is_not_made_a_larger_one(server: FakeOpenAI, count: int) -> None:
    waits: list[float] = []
    generator = OpenAIGenerator(
        render=messages, base_url=server.base_url, api_key="k", max_retries=2, sleep=waits.append
    )
    server.play(*[refusal(429, "slow down", Retry_After="3")] * (3 * count))

    def ask(_: int) -> bool:
        try:
            list(generator.stream("q", context("A backup is written every night.")))
        except GeneratorError as error:
            return error.retryable
        return False

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(count)))
    assert count < len(server.requests) <= 1.2 * count + 2
    assert set(waits) == {3.0}, "the server said how long to wait"
