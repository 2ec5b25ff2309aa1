"""OpenAIGenerator against a real server that answers, refuses, stalls and breaks off as scripted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from crossrag.errors import GeneratorError
from crossrag.protocols import Generator
from crossrag.timed import Timed
from crossrag.types import Turn

from .fake_openai import BREAKS, CUTS, DONE, WRONG, FakeOpenAI, Reply, answer, event, refusal, token, words
from .openai_asking import HELLO, KEY, NOTHING, ask, fail, make

if TYPE_CHECKING:
    from crossrag.generators.openai import OpenAIGenerator

pytest.importorskip("openai", reason="needs the extra crossrag[openai]")


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def waits() -> list[float]:
    return []  # the seconds that the generator wanted to sleep


@pytest.fixture
def generator(server: FakeOpenAI, waits: list[float]) -> OpenAIGenerator:
    return make(server, sleep=waits.append, jitter=lambda: 1.0)


# --- what is asked and what comes back --------------------------------------------------------------------


def test_pieces_come_as_the_model_writes_them(server: FakeOpenAI, generator: OpenAIGenerator) -> None:
    server.play(HELLO, HELLO)
    assert list(generator.stream("Why?", NOTHING)) == ["Hel", "lo ", "[1]."]
    assert ask(generator) == "Hello [1]."
    assert isinstance(generator, Generator)
    assert generator.fingerprint == "openai:gpt-4o-mini"


def test_request_holds_model_messages_and_settings(server: FakeOpenAI) -> None:
    server.play(HELLO, HELLO)
    history = [Turn(role="user", text="Hi"), Turn(role="assistant", text="Yes?")]
    list(make(server, model="llama3.2", max_tokens=99).stream("Why?", NOTHING, history))
    ask(make(server, temperature=None))
    request, bare = server.requests
    assert bare.body.keys() == {"model", "messages", "stream"}
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "llama3.2",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Why? 0"},
        ],
        "temperature": 0.0,
        "max_tokens": 99,
        "stream": True,
    }


def test_events_without_text_are_skipped(server: FakeOpenAI, generator: OpenAIGenerator) -> None:
    usage = event({"choices": [], "usage": {"total_tokens": 3}})
    odd = (
        b": keep-alive\n\n",
        usage,
        event({}),
        event({"choices": None}),
        event({"choices": [{"delta": None}]}),
    )
    server.play(Reply(parts=(*odd, token("Yes."), *odd, token(None, end="stop"), usage, DONE)))
    assert list(generator.stream("Why?", NOTHING)) == ["Yes."]


def test_text_beside_the_finish_reason_counts(server: FakeOpenAI, generator: OpenAIGenerator) -> None:
    server.play(Reply(parts=(token("Ye"), token("s.", end="stop")), framing="unfinished"))
    assert ask(generator) == "Yes."


def test_text_cut_within_a_character_is_whole_again(server: FakeOpenAI, generator: OpenAIGenerator) -> None:
    line = 'data: {"choices": [{"delta": {"content": "Zürich"}}]}\n\n'.encode()
    middle = line.index("ü".encode()) + 1
    server.play(Reply(parts=(line[:middle], line[middle:], token(None, end="stop"))))
    assert ask(generator) == "Zürich"


# --- key and address --------------------------------------------------------------------------------------


def test_key_and_address_from_the_environment(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    server.play(HELLO, HELLO)
    ask(make(server, api_key=None))
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    ask(make(server, base_url=None, api_key=None))
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer none",
        f"Bearer {KEY}",
    ]


def test_without_key_and_address_nothing_is_sent(server: FakeOpenAI) -> None:
    with pytest.raises(GeneratorError, match=r"OPENAI_API_KEY.*openai\.api_key"):
        make(server, base_url=None, api_key=None).stream("Why?", NOTHING)


@pytest.mark.parametrize("key", ["sk-…", "sk-1\nX-Evil: 1"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(server: FakeOpenAI, key: str) -> None:
    with pytest.raises(GeneratorError, match="The API key has characters") as caught:
        make(server, api_key=key).stream("Why?", NOTHING)
    assert key not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize("address", ["localhost:11434", "ftp://host/v1", "http://ho\x00st/v1"])
def test_an_address_that_is_none_is_refused(server: FakeOpenAI, address: str) -> None:
    _, error = fail(make(server, base_url=address))
    assert "openai.base_url" in str(error)


def test_a_password_in_the_address_is_not_shown(server: FakeOpenAI) -> None:
    address = server.base_url.replace("//", "//me:secret@") + "?token=secret"
    server.play(refusal(404))
    _, error = fail(make(server, base_url=address))
    assert server.base_url in str(error)
    assert "secret" not in str(error)


# --- tried again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_passing_failures_are_tried_again(
    server: FakeOpenAI, generator: OpenAIGenerator, waits: list[float], status: int
) -> None:
    server.play(refusal(status), HELLO)
    assert ask(generator) == "Hello [1]."
    assert len(server.requests) == 2
    assert waits == [0.5]


@pytest.mark.parametrize("reply", BREAKS.values(), ids=BREAKS.keys())
def test_breaks_before_the_first_word_are_tried_again(
    server: FakeOpenAI, generator: OpenAIGenerator, reply: Reply
) -> None:
    server.play(reply, HELLO)
    assert ask(generator) == "Hello [1]."
    assert len(server.requests) == 2


def test_tries_are_bounded_and_waits_grow(server: FakeOpenAI, waits: list[float]) -> None:
    server.play(*[refusal(500, "boom")] * 9)
    jitter = iter([1.0, 1.0, 1.0, 0.25, 0.0, 1.0]).__next__
    _, error = fail(make(server, max_retries=6, sleep=waits.append, jitter=jitter))
    assert len(server.requests) == 7
    assert waits == [0.5, 1.0, 2.0, 1.0, 0.0, 8.0]
    assert "HTTP 500" in str(error)
    assert "boom" in str(error)
    assert "after 7 tries" in str(error)
    assert error.retryable


def test_silence_is_a_time_out(server: FakeOpenAI, waits: list[float]) -> None:
    server.play(Reply(silent=True), Reply(silent=True))
    _, error = fail(make(server, timeout=0.2, max_retries=1, sleep=waits.append))
    assert len(server.requests) == 2
    assert "sent nothing for 0.2 s" in str(error)
    assert "openai.timeout" in error.hint


def test_nobody_listens(server: FakeOpenAI, waits: list[float]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    _, error = fail(make(server, base_url=address, sleep=waits.append))
    assert len(waits) == 2
    assert address in str(error)
    assert "refused" in str(error)
    assert "openai.base_url" in error.hint


# --- Retry-After ------------------------------------------------------------------------------------------


def test_the_server_says_how_long_to_wait(
    server: FakeOpenAI, generator: OpenAIGenerator, waits: list[float]
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True).replace("GMT", "-0000")
    server.play(*(refusal(429, Retry_After=value) for value in ("7", soon)), HELLO)
    assert ask(generator) == "Hello [1]."
    server.play(refusal(503, Retry_After=past), HELLO)
    assert ask(make(server, sleep=waits.append)) == "Hello [1]."
    assert waits == [7.0, pytest.approx(19, abs=2), 0.0]


@pytest.mark.parametrize(
    "value", ["soon", "", "nan", "inf", "Wed, 99 Foo 2020 0:0:0 GMT", f"1 Jan {10**30} 0:0:0 GMT"]
)
def test_a_wait_that_is_none_falls_back(
    server: FakeOpenAI, generator: OpenAIGenerator, waits: list[float], value: str
) -> None:
    server.play(refusal(429, Retry_After=value), HELLO)
    assert ask(generator) == "Hello [1]."
    assert waits == [0.5]


def test_too_long_a_wait_is_told_at_once(server: FakeOpenAI) -> None:
    server.play(refusal(429, Retry_After="3600"))
    _, error = fail(make(server))
    assert len(server.requests) == 1
    assert "asks to wait 3600 s" in str(error)
    assert error.retryable


# --- never after the first word ---------------------------------------------------------------------------


@pytest.mark.parametrize("reply", CUTS.values(), ids=CUTS.keys())
def test_a_cut_answer_is_incomplete_and_not_begun_again(server: FakeOpenAI, reply: Reply) -> None:
    server.play(reply, HELLO)
    pieces, error = fail(make(server, timeout=0.3))
    assert pieces == ["One", " two"]
    assert len(server.requests) == 1
    assert "The answer is incomplete: " in str(error)
    assert error.retryable


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_event_ends_the_answer(server: FakeOpenAI, line: bytes) -> None:
    server.play(Reply(parts=(token("One"), line, *words(" two"))), HELLO)
    pieces, error = fail(make(server))
    assert pieces == ["One"]
    assert len(server.requests) == 1
    assert "The answer is incomplete: " in str(error)
    assert ("out of memory" in str(error)) == (b"out of memory" in line)


@pytest.mark.parametrize(
    ("end", "message", "hint"),
    [
        ("length", "model stopped at its token limit", "openai.max_tokens"),
        ("content_filter", "content filter", "other words"),
        ("abort", "aborted", "later"),
        ("stop", "wrote no text", ""),
    ],
)
def test_an_answer_cut_short_by_the_server(server: FakeOpenAI, end: str, message: str, hint: str) -> None:
    texts = [] if end == "stop" else ["One"]
    server.play(answer(*texts, end=end), HELLO)
    pieces, error = fail(make(server))
    assert pieces == texts
    assert len(server.requests) == 1
    assert message in error.message
    assert hint in error.hint


# --- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, ["refused the API key", "OPENAI_API_KEY", "openai.api_key"]),
        (403, ["'gpt-4o-mini'", "not for you", "openai.api_key"]),
        (404, ["'gpt-4o-mini'", "not for you", "127.0.0.1", "generator.model", "openai.base_url"]),
        (400, ["refused the request", "not for you"]),
        (422, ["refused the request", "not for you"]),
    ],
)
def test_refusals_are_final(server: FakeOpenAI, status: int, said: list[str]) -> None:
    server.play(refusal(status, "not for you"), HELLO)
    _, error = fail(make(server))
    assert len(server.requests) == 1
    assert not error.retryable
    assert [part for part in [f"HTTP {status}", *said] if part not in str(error)] == []


@pytest.mark.parametrize(
    "body", [b'{"detail": "why not"}', b'{"error": "why not"}', b"why\nnot", b'["why not"]']
)
def test_the_reason_is_found_in_every_form(server: FakeOpenAI, body: bytes) -> None:
    server.play(Reply(status=400, headers={}, parts=(body,)))
    assert "why not" in str(fail(make(server))[1])


def test_a_page_is_no_answer(server: FakeOpenAI) -> None:
    server.play(Reply(headers={"Content-Type": "text/html"}, parts=(b"<p>Welcome</p>",)), HELLO)
    _, error = fail(make(server))
    assert len(server.requests) == 1
    assert "text/html" in str(error)
    assert "/v1" in error.hint


def test_an_end_that_nobody_knows_is_said(server: FakeOpenAI) -> None:
    server.play(answer("Yes.", end="fatigue"), answer("Yes.", end="stop"))
    for told in (("model-1 stopped with 'fatigue': the answer may be incomplete",), ()):
        timed = Timed(make(server, model="model-1").stream("Why?", NOTHING), None, of="x")
        assert (list(timed), timed.told) == (["Yes."], told)
