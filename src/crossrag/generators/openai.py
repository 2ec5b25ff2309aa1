"""Any OpenAI-compatible chat endpoint (OpenAI, Ollama, vLLM…), through the `openai` package.

Question, context and history go in; pieces of text come out, or a GeneratorError. It knows no prompt:
`render` writes the messages. Retries end with the first piece, so no reader sees an answer begin twice.
"""

from __future__ import annotations

import math
import os
import random
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from crossrag import caller
from crossrag.errors import GeneratorError
from crossrag.retry_budget import RetryBudget

if TYPE_CHECKING:
    import openai

    from crossrag.types import Context, Turn

_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"
_FIRST_WAIT = 0.5
_LONGEST_BACKOFF = 8.0
_LONGEST_WAIT = 30.0
_LONGEST_CONNECT = 10.0
_LONGEST_QUOTE = 300

_KEY_HINT = "Set OPENAI_API_KEY or the setting openai.api_key"
_URL_HINT = "Check the setting openai.base_url; it usually ends in /v1"
_LATER = "Try again later"
_CUT_SHORT = {
    "length": ("the model stopped at its token limit", "Raise the setting openai.max_tokens"),
    "model_length": ("the model stopped at its token limit", "Ask for a smaller context"),
    "content_filter": ("the server's content filter stopped the answer", "Put the question in other words"),
    "refusal": ("the model refused to go on", "Put the question in other words"),
    "abort": ("the server aborted the answer", _LATER),
    "error": ("the server failed while it answered", _LATER),
}
"""What ends an answer before its time, by finish reason: OpenAI's own and those of compatible servers."""
_COMPLETE = {"stop", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence", "end_turn"}


class _AttemptError(Exception):
    """One request failed. `wait`: seconds for which the server asks."""

    def __init__(
        self, message: str, hint: str = "", *, retryable: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.wait = wait

    def told(self, tries: int, *, started: bool) -> GeneratorError:
        """The same for the caller: nothing of this request hangs on it."""
        message = f"the answer is incomplete: {self.message}" if started else self.message
        if message.startswith("the "):  # an address keeps its case
            message = f"T{message[1:]}"
        if tries > 1:
            message = f"{message} (after {tries} tries)"
        return GeneratorError(message, hint=self.hint, retryable=self.retryable)


class OpenAIGenerator:
    """Streams the answer of a chat model. Keeps nothing open between answers; threads may share it.

    When nobody waits any more (`crossrag.caller`), the connection is cut, wherever the request is, and no
    further one is made.

    Args:
        render: Turns question, context and history into chat messages (`role`, `content`).
        model: The server's name for the model.
        base_url: Address of the endpoint; None is the environment's OPENAI_BASE_URL, then OpenAI's own.
        api_key: None is the environment's OPENAI_API_KEY. A server named by address may need none.
        temperature: 0 for the most repeatable answer; None leaves it out, for models that refuse it.
        timeout: Seconds without a byte from the server after which a request has failed.
        max_retries: Further requests before the first piece, at most; over many answers, a fifth of them.
        max_tokens: Longest answer; None is the server's own limit.
        sleep: Waits that many seconds between requests.
        jitter: Draws from [0, 1): the share of the backoff that is waited.
    """

    def __init__(  # noqa: PLR0913 - one per setting of the endpoint
        self,
        *,
        render: Callable[[str, Context, Sequence[Turn]], list[dict[str, str]]],
        model: str = "gpt-4o-mini",
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        timeout: float = 60.0,
        max_retries: int = 2,
        max_tokens: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        address = base_url or os.environ.get("OPENAI_BASE_URL", "").strip()
        key = (api_key or os.environ.get("OPENAI_API_KEY", "")).strip()
        self._render = render
        self._model = model
        self._url = address or _OPENAI
        self._key = key or (_NO_KEY if address else "")
        self._temperature = temperature
        self._timeout = timeout
        self._max_retries = max_retries
        self._budget = RetryBudget(reserve=max_retries)
        self._max_tokens = max_tokens
        self._sleep = sleep
        self._jitter = jitter

    @property
    def fingerprint(self) -> str:
        """Backend and model, such as `openai:gpt-4o-mini`."""
        return f"openai:{self._model}"

    @property
    def _shown(self) -> str:
        """The address without user, password and query, which may be secrets."""
        return re.sub(r"(?<=//).*@", "", self._url.partition("?")[0]).rstrip("/")

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """Pieces of text as the model writes them. Closing the iterator hangs up on the server, too.

        Raises:
            GeneratorError: At once where key or address cannot be used; while iterating where the server
                refuses, fails, or stops before the answer is complete.
        """
        self._check()
        return self._pieces(self._render(question, context, history))

    def _check(self) -> None:
        if not self._key:
            raise GeneratorError("There is no API key for OpenAI", hint=_KEY_HINT)
        if not (self._key.isascii() and self._key.isprintable()):
            raise GeneratorError("The API key has characters that no key has", hint=_KEY_HINT)
        if not self._url.startswith(("http://", "https://")):
            raise GeneratorError(f"{self._shown!r} is no http:// or https:// address", hint=_URL_HINT)

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        line = _Line()
        with self._client(line) as client:
            self._budget.call()
            for tries in count(1):
                started = False
                try:
                    with (
                        caller.interrupted_by(line.cut),
                        closing(self._attempt(client, messages)) as pieces,
                    ):
                        for piece in pieces:
                            started = True
                            yield piece
                    return
                except Exception as error:  # noqa: BLE001 - what is not the library's is raised again
                    failure = self._translated(error)
                # Raised out here, with no exception in flight: nothing of the request is chained to it.
                wait = None if started or tries > self._max_retries else self._wait(failure, tries)
                if wait is not None and not self._budget.retry():
                    wait = None
                if wait is not None:
                    self._sleep(0.0 if caller.is_gone() else wait)
                if wait is None or caller.is_gone():
                    raise failure.told(tries, started=started)

    def _client(self, line: _Line) -> openai.OpenAI:
        import openai

        timeout = openai.Timeout(self._timeout, connect=min(self._timeout, _LONGEST_CONNECT))
        try:
            http = openai.DefaultHttpxClient(timeout=timeout, event_hooks={"request": [line.watch]})
            return openai.OpenAI(
                api_key=self._key, base_url=self._url, timeout=timeout, max_retries=0, http_client=http
            )
        except Exception as error:  # noqa: BLE001 - address, proxy, certificates: each raises its own class
            reason = self._quoted(error)
        raise GeneratorError(f"Cannot set up a connection to {self._shown}{reason}", hint=_URL_HINT)

    def _attempt(self, client: openai.OpenAI, messages: list[dict[str, str]]) -> Generator[str, None, None]:
        request: dict[str, Any] = {"model": self._model, "messages": messages}
        if self._temperature is not None:
            request["temperature"] = self._temperature
        if self._max_tokens is not None:
            request["max_tokens"] = self._max_tokens
        events = pieces = 0
        with client.chat.completions.create(**request, stream=True) as answer:
            for chunk in answer:
                events += 1
                text, end = _read(chunk)
                if text:
                    pieces += 1
                    yield text
                if end in _CUT_SHORT:
                    raise _AttemptError(*_CUT_SHORT[end])
                if end and not pieces:
                    raise _AttemptError(f"the model {self._model!r} wrote no text (finish reason {end!r})")
                if end:
                    if end not in _COMPLETE:
                        caller.tell(f"{self._model} stopped with {end!r}: the answer may be incomplete")
                    return
            kind = answer.response.headers.get("content-type", "")
        if not events and not kind.startswith("text/event-stream"):
            raise _AttemptError(f"{self._shown} sent no answer but {kind or 'an untyped body'}", _URL_HINT)
        raise _AttemptError(
            f"{self._shown} ended the stream before the answer was complete", _LATER, retryable=True
        )

    def _wait(self, failure: _AttemptError, tries: int) -> float | None:
        """Seconds until the next request; None for no further one. Exponential backoff with full jitter."""
        if not failure.retryable:
            return None
        if failure.wait is not None:
            return failure.wait if failure.wait <= _LONGEST_WAIT else None
        return self._jitter() * min(_LONGEST_BACKOFF, _FIRST_WAIT * 2.0 ** (tries - 1))

    def _translated(self, error: Exception) -> _AttemptError:
        """The boundary: beyond it there is no exception of `openai` or of the HTTP library below."""
        import openai

        if isinstance(error, _AttemptError):
            return error
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, openai.APITimeoutError) or _of_http_library(error, "Timeout"):
            return _AttemptError(
                f"{self._shown} sent nothing for {self._timeout:g} s",
                "Try again later, or raise the setting openai.timeout",
                retryable=True,
            )
        if isinstance(error, openai.APIConnectionError) or _of_http_library(error):
            reason = self._quoted(error.__cause__ or error)
            return _AttemptError(f"the connection to {self._shown} failed{reason}", _URL_HINT, retryable=True)
        if isinstance(error, openai.APIError):
            failed = f"{self._shown} reports an error{self._quoted(error.body or error)}"
            return _AttemptError(failed, retryable=_is_transient(error.code))
        if isinstance(error, openai.OpenAIError | ValueError):
            return _AttemptError(f"{self._shown} sent what is no chat completion", _URL_HINT)
        raise error

    def _refused(self, error: openai.APIStatusError) -> _AttemptError:
        status = f"(HTTP {error.status_code})"
        quote = self._quoted(error.body)
        match error.status_code:
            case 401:  # the server's own words may hold parts of the key
                return _AttemptError(f"{self._shown} refused the API key {status}", _KEY_HINT)
            case 403:
                refused = f"{self._shown} denies this key the model {self._model!r} {status}{quote}"
                return _AttemptError(refused, _KEY_HINT)
            case 404:
                missing = f"{self._shown} has no model {self._model!r} {status}{quote}"
                return _AttemptError(missing, f"Check the setting generator.model. {_URL_HINT}")
            case code if _is_transient(code):
                wait = _retry_after(error.response.headers.get("retry-after", ""))
                asks = "" if wait is None else f" and asks to wait {math.ceil(wait)} s"
                busy = f"{self._shown} is busy or failing {status}{asks}{quote}"
                return _AttemptError(busy, _LATER, retryable=True, wait=wait)
        return _AttemptError(
            f"{self._shown} refused the request {status}{quote}", "Check the settings generator and openai"
        )

    def _quoted(self, said: object) -> str:
        """`: its words` on one line, without the key and cut; the key goes first, lest a half of it stay."""
        if isinstance(said, dict):
            said = said.get("message") or said.get("detail") or said
        text = str(said or "")
        if self._key != _NO_KEY:
            text = text.replace(self._key, "[key]")
        text = " ".join(text.split())
        if len(text) > _LONGEST_QUOTE:
            text = text[: _LONGEST_QUOTE - 1] + "…"
        return f": {text.rstrip('. ')}" if text else ""


class _Line:
    """The connection of a request, which another thread may cut.

    Closing a socket does not wake up who reads from it, and before the first byte there is no response that
    could be closed. So the socket is shut down; the HTTP library says which it is by its trace.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_cut = False

    def watch(self, request: Any) -> None:
        """A hook of the HTTP library."""
        request.extensions = {**request.extensions, "trace": self._trace}

    def cut(self) -> None:
        """Whoever reads gets an error at once."""
        self._is_cut = True
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._socket = info["return_value"].get_extra_info("socket")
            if self._is_cut:
                self.cut()


def _read(chunk: Any) -> tuple[str, str]:
    """Text and finish reason of one event, each "" where it has none. The library checks no types."""
    choices = getattr(chunk, "choices", None)
    if not choices:
        return "", ""
    if not isinstance(choices, list):
        raise ValueError("choices are no list")
    text = getattr(getattr(choices[0], "delta", None), "content", None) or ""
    end = getattr(choices[0], "finish_reason", None) or ""
    if not (isinstance(text, str) and isinstance(end, str)):
        raise ValueError("neither text nor end")
    return text, end


def _is_transient(code: object) -> bool:
    """Whether an HTTP status, also one told in words within a stream, may pass."""
    return re.fullmatch("408|409|429|5[0-9][0-9]", str(code)) is not None


def _of_http_library(error: Exception, kind: str = "") -> bool:
    """Some errors below `openai` pass through it as they are, such as a cut in the body of a refusal.

    Told by name, because its versions stand on different libraries.
    """
    return type(error).__module__.partition(".")[0] in {"httpx", "httpx2"} and kind in type(error).__name__


def _retry_after(value: str) -> float | None:
    """Seconds to wait, from a Retry-After header in either form; None where it says nothing usable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        # A date in "-0000" comes without a zone; HTTP dates are in UTC.
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
