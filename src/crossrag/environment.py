"""Variables of the environment -> settings by section and key; what Kubernetes adds to them is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .errors import ConfigError

PREFIX = "CROSSRAG_"

_PORT = r"[0-9]{1,5}"
_URL = rf"(tcp|udp|sctp)://\S+:{_PORT}"
_SERVICE_LINKS = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (r"\w+_SERVICE_HOST", r"[0-9a-fA-F.:]+"),
        (r"\w+_SERVICE_PORT(_\w+)?", _PORT),
        (r"\w+_PORT", _URL),
        (rf"\w+_PORT_{_PORT}_(TCP|UDP|SCTP)", _URL),
        (rf"\w+_PORT_{_PORT}_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
        (rf"\w+_PORT_{_PORT}_(TCP|UDP|SCTP)_PORT", _PORT),
        (rf"\w+_PORT_{_PORT}_(TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
    )
)
"""What Kubernetes tells pods of each Service, under its name: one that is called crossrag has our prefix."""


def settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Variable, section, key and text of each `CROSSRAG_SECTION__KEY`; whether they exist is not asked.

    Raises:
        ConfigError: A variable begins as ours do and names no setting.
    """
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
        if key:
            yield variable, section, key, text
        elif not _is_service_link(variable, text):
            raise ConfigError(
                f"{variable} names no setting", hint="Write CROSSRAG_SECTION__KEY, with two underscores"
            )


def _is_service_link(variable: str, text: str) -> bool:
    """By name and value: `CROSSRAG_SERVER_PORT=8777` is a misspelt setting, and no address of a Service."""
    return any(name.fullmatch(variable) and value.fullmatch(text) for name, value in _SERVICE_LINKS)
