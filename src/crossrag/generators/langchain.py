"""Any LangChain chat model, by `langchain:PROVIDER:MODEL` or as an object, through the `langchain` package.

Question, context and history go in; pieces of text come out, or a GeneratorError. It knows no prompt: it is
given `render`, which writes the messages. Keys and addresses are the business of the provider's package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossrag.errors import ConfigError, GeneratorError, MissingExtraError

if TYPE_CHECKING:
    from crossrag.types import Context, Turn

_CUT_SHORT = {"length", "max_tokens", "MAX_TOKENS", "content_filter", "SAFETY"}
"""What ends an answer before its time, as providers say it."""
_PASSES = re.compile("Timeout|Connect|RateLimit|Overloaded|Unavailable|InternalServer")
"""Names of errors that may not come again."""
_SECRET = re.compile(r"[A-Za-z0-9_\-]{20,}")
_LONGEST_QUOTE = 300


class LangChainGenerator:
    """Streams the answer of a chat model of LangChain's.

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
        try:
            for chunk in self._model.stream(self._render(question, context, history)):
                if text := str(chunk.text):
                    started = True
                    yield text
                if (end := _end(chunk)) in _CUT_SHORT:
                    raise GeneratorError(
                        f"The answer is incomplete: {self._name} stopped with {end!r}",
                        hint="Allow a longer answer, or ask for less",
                    )
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

    try:
        return init_chat_model(name, **options)
    except ImportError as error:
        raise MissingExtraError(
            f"langchain:{name} needs a package of its provider: {error}",
            hint="Install the package that is named there",
        ) from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"langchain:{name}: {first}", hint="Write langchain:PROVIDER:MODEL") from None
    except Exception as error:  # noqa: BLE001 - most often a key that is missing; it may be quoted there
        failure = _failure(name, error, started=False)
    raise failure


def _end(chunk: Any) -> str:
    said = chunk.response_metadata or {}
    return str(said.get("finish_reason") or said.get("stop_reason") or "")


def _failure(name: str, error: Exception, *, started: bool) -> GeneratorError:
    """The same for the caller, without what may be a key."""
    kind = type(error).__name__
    status = getattr(error, "status_code", None)
    passes = status == 429 or (isinstance(status, int) and status >= 500) or bool(_PASSES.search(kind))
    quoted = _SECRET.sub("…", " ".join(str(error).split()))[:_LONGEST_QUOTE]
    begun = "The answer is incomplete: " if started else ""
    return GeneratorError(
        f"{begun}{name} failed with {kind}: {quoted}",
        hint="Try again later" if passes else "Check model, key and address of the provider",
        retryable=passes,
    )
