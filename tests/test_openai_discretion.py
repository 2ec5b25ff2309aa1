"""OpenAIGenerator leaves nothing behind, and gives its key to nobody."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from crossrag.timed import Timed

from .fake_openai import FakeOpenAI, Reply, event, refusal, token, words
from .openai_asking import HELLO, KEY, NOTHING, fail, make

pytest.importorskip("openai", reason="needs the extra crossrag[openai]")


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def test_closing_the_iterator_hangs_up(server: FakeOpenAI) -> None:
    server.play(Reply(parts=(token("on "),), endless=True))
    pieces = make(server).stream("Why?", NOTHING)
    assert next(pieces) == "on "
    pieces.close()  # type: ignore[attr-defined]
    assert server.hung_up.wait(5)
    assert list(pieces) == []


@pytest.mark.parametrize(
    "begun", [(), words("One", end=None)], ids=["before the first byte", "in the middle"]
)
def test_an_answer_that_nobody_waits_for_is_hung_up_on(server: FakeOpenAI, begun: tuple[bytes, ...]) -> None:
    server.play(Reply(parts=begun, silent=True), HELLO)
    timed = Timed(
        make(server, sleep=time.sleep, timeout=60.0).stream("Why?", NOTHING),
        time.monotonic() + 0.5,
        of="hung up on",
    )
    before = threading.active_count()
    assert list(timed) == (["One"] if begun else [])
    assert timed.expired
    assert server.hung_up.wait(5)
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    # No second request is paid for.
    assert len(server.requests) == 1


def test_long_words_are_cut_and_the_key_leaves_first(server: FakeOpenAI) -> None:
    server.play(refusal(400, f"{'x' * 290} {KEY} {'y' * 500}"))
    _, error = fail(make(server))
    assert "x" * 290 in error.message
    assert "sk-test" not in str(error)
    assert len(error.message) < 400


def test_the_key_is_nowhere(
    server: FakeOpenAI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    tell = f"wrong key: {KEY}"
    generator = make(server, max_retries=0)
    leaks = [repr(generator)]
    for reply in (
        *(refusal(status, tell) for status in (400, 401, 403, 404, 429, 500)),
        Reply(parts=(token("One"), event({"error": {"message": tell}}))),
        Reply(framing="reset"),
    ):
        server.play(reply)
        _, error = fail(generator)
        assert error.__cause__ is None
        assert error.__context__ is None
        leaks += [str(error), repr(error), error.hint]
    leaks += [caplog.text, *capfd.readouterr()]
    assert len(server.requests) == 8
    assert KEY not in "".join(leaks)


def test_importing_the_module_loads_no_library() -> None:
    code = "import sys, crossrag.generators.openai; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "crossrag.generators.openai" in loaded
    assert {"openai", "httpx", "httpx2"}.isdisjoint(loaded)
