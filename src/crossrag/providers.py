"""Models of LangChain's providers, made by name; and what their packages raise, in words without keys.

Knows no package: who wants a model says how it is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .errors import ConfigError, CrossragError, MissingExtraError

_SECRET = re.compile(r"[A-Za-z0-9_\-]{20,}")
_LONGEST_QUOTE = 300


def made(name: str, make: Callable[[], Any], *, failed: Callable[[Exception], CrossragError]) -> Any:
    """What `make` makes.

    Args:
        name: `provider:model`, for messages.
        make: Such as a call of `init_chat_model`.
        failed: From whatever else it raises to an error of ours: a key may be missing, and quoted there.

    Raises:
        ConfigError: There is no such provider.
        CrossragError: As `failed` says.
        MissingExtraError: The provider's package is not installed.
    """
    try:
        return make()
    except ImportError as error:
        raise MissingExtraError(
            f"langchain:{name} needs a package of its provider: {error}",
            hint="Install the package that is named there",
        ) from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"langchain:{name}: {first}", hint="Write langchain:PROVIDER:MODEL") from None
    except Exception as error:  # noqa: BLE001 - every provider's package raises its own
        failure = failed(error)
    # Raised out here, with no exception in flight: nothing of the request is chained to it.
    raise failure


def quoted(error: Exception) -> str:
    """What it says, on one line of bounded length, without what may be a key."""
    return _SECRET.sub("…", " ".join(str(error).split()))[:_LONGEST_QUOTE]
