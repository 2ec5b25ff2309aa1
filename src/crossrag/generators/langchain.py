"""Any LangChain chat model, by `langchain:PROVIDER:MODEL` or as an object, through the `langchain` package.

Question, context and history go in; pieces of text come out, or a GeneratorError. It knows no prompt: it is
given `render`, which writes the messages. Keys and addresses are the business of the provider's package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossrag import caller, providers
from crossrag.errors import GeneratorError

if TYPE_CHECKING:
    from crossrag.types import Context, Turn

_LONGER = "Allow a longer answer, or ask for less"
_OTHER_WORDS = "Put the question in other words"
_LATER = "Try again later"
_COMPLETE = {
    *("stop", "stop_sequence", "end", "end_turn", "eos", "eos_token", "complete", "completed"),
    *("tool_calls", "tool_use", "function_call"),
}
_ENDS = {
    _LONGER: (
        *("length", "max_length", "max_tokens", "max_output_tokens"),
        *("model_length", "model_context_window_exceeded"),
    ),
    _OTHER_WORDS: (
        *("content_filter", "content_filtered", "guardrail_intervened", "refusal", "error_toxic", "spii"),
        *("safety", "recitation", "blocklist", "prohibited_content", "language"),
    ),
    _LATER: (
        *("incomplete", "error", "error_limit", "abort", "aborted", "cancelled", "time_limit", "pause_turn"),
        "malformed_function_call",
    ),
}
_CUT_SHORT = {end: hint for hint, ends in _ENDS.items() for end in ends}
"""What ends an answer before its time, as providers say it, in small letters; with what may help."""
_STILL_GOING = {"", "none", "null", "not_finished", "in_progress"}
_SAID_BY = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_PASSES = re.compile("Timeout|Connect|RateLimit|Overloaded|Unavailable|InternalServer")
"""Names of errors that may not come again."""


class LangChainGenerator:
    """Streams the answer of a chat model of LangChain's.

    A request that nobody waits for any more ends with its next piece, or by the provider's own time limit:
    these packages have no way to interrupt one.

    Args:
        render: Turns question, context and history into chat messages (`role`, `content`).
        model: `provider:model`, as `langchain.chat_models.init_chat_model` reads it, or a chat model.
        temperature: 0 for the most repeatable answer; None leaves it out.
        timeout: Seconds that the provider's package waits.
        max_tokens: Longest answer; None is the model's own limit.

    Raises:
        ConfigError: There is no such provider.
        MissingExtraError: The provider's package is not installed.
    """

    def __init__(
        self,
        *,
        render: Callable[[str, Context, Sequence[Turn]], list[dict[str, str]]],
        model: Any,
        temperature: float | None = 0.0,
        timeout: float | None = 60.0,
        max_tokens: int | None = None,
    ) -> None:
        self._render = render
        options = {"temperature": temperature, "timeout": timeout, "max_tokens": max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        self._name = model if isinstance(model, str) else type(model).__name__
        self._model: Any = _made(model, given) if isinstance(model, str) else model

    @property
    def fingerprint(self) -> str:
        """Backend and model, such as `langchain:anthropic:claude-haiku-4-5`."""
        return f"langchain:{self._name}"

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """Pieces of text as the model writes them.

        Raises:
            GeneratorError: While iterating, where the model refuses, fails, or stops before it is done.
        """
        started = False
        end = ""
        try:
            for chunk in self._model.stream(self._render(question, context, history)):
                if text := str(chunk.text):
                    started = True
                    yield text
                end = _end(chunk) or end
                if end in _CUT_SHORT:
                    raise GeneratorError(
                        f"The answer is incomplete: {self._name} stopped with {end!r}", hint=_CUT_SHORT[end]
                    )
            if not started:
                with_reason = f" (it stopped with {end!r})" if end else ""
                raise GeneratorError(f"{self._name} wrote no text{with_reason}")
            if end and end not in _COMPLETE:
                caller.tell(f"{self._name} stopped with {end!r}: the answer may be incomplete")
        except GeneratorError:
            raise
        except Exception as error:  # noqa: BLE001 - every provider's package raises its own
            failure = _failure(self._name, error, started=started)
        else:
            return
        # Raised out here, with no exception in flight: nothing of the request is chained to it.
        raise failure


def _made(name: str, options: dict[str, Any]) -> Any:
    from langchain.chat_models import init_chat_model

    return providers.made(
        name,
        lambda: init_chat_model(name, **options),
        failed=lambda error: _failure(name, error, started=False),
    )


def _end(chunk: Any) -> str:
    """Why the model stopped, in small letters; "" as long as it goes on."""
    said = chunk.response_metadata or {}
    unfinished = said.get("incomplete_details")
    named = [unfinished.get("reason")] if isinstance(unfinished, dict) else []
    named += [said.get(name) for name in _SAID_BY]
    # `FinishReason.MAX_TOKENS` is the name of an enumeration's member.
    ends = (str(name).rpartition(".")[2].lower() for name in named if name is not None)
    return next((end for end in ends if end not in _STILL_GOING), "")


def _failure(name: str, error: Exception, *, started: bool) -> GeneratorError:
    """The same for the caller, without what may be a key."""
    kind = type(error).__name__
    status = getattr(error, "status_code", None)
    passes = status == 429 or (isinstance(status, int) and status >= 500) or bool(_PASSES.search(kind))
    quoted = providers.quoted(error)
    begun = "The answer is incomplete: " if started else ""
    return GeneratorError(
        f"{begun}{name} failed with {kind}: {quoted}",
        hint="Try again later" if passes else "Check model, key and address of the provider",
        retryable=passes,
    )
