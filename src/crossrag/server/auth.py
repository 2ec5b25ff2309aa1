"""A key -> who it is, what it may do and whose documents it sees. Keys are kept as digests.

Knows nothing of requests; `gate` asks it before a body is read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossrag.server_settings import KeySettings, Scope, ServerSettings

_RANKS: dict[str, int] = {"read": 0, "write": 1, "admin": 2}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    name: str
    scope: Scope
    tenant: str

    def may(self, scope: Scope) -> bool:
        """Whether what needs `scope` is allowed: write includes read, admin both."""
        return _RANKS[self.scope] >= _RANKS[scope]


class Keys:
    """All keys of the settings; `required` is False where there are none."""

    def __init__(self, settings: ServerSettings, *, tenant: str) -> None:
        self._tenant = tenant
        self._known: list[tuple[str, Principal]] = [
            (key.sha256, Principal(key.name, key.scope, key.tenant or tenant)) for key in settings.keys
        ]
        if settings.api_key is not None:
            whole = settings.api_key.get_secret_value()
            self._known.append((digest(whole), Principal("api_key", "admin", tenant)))

    @property
    def required(self) -> bool:
        """Whether a caller must show a key."""
        return bool(self._known)

    @property
    def tenants(self) -> Sequence[str]:
        """Everybody whose documents some key sees, in order."""
        return sorted({principal.tenant for _, principal in self._known} | {self._tenant})

    def holder(self, key: str) -> Principal | None:
        """Whose key it is; None if nobody's. Takes the same time whichever it is."""
        given, found = digest(key), None
        for known, principal in self._known:
            if hmac.compare_digest(given, known):
                found = principal
        return found

    def anybody(self, address: str) -> Principal:
        """Who calls without a key where none is required: told apart by address, for fairness alone."""
        return Principal(f"address:{address}", "admin", self._tenant)


def digest(key: str) -> str:
    """SHA-256 in hex. Keys of ours are 256 random bits: a slower digest would save nothing from guessing."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(name: str, scope: Scope, tenant: str = "") -> tuple[str, KeySettings]:
    """A fresh key, and what to keep of it."""
    from crossrag.server_settings import KeySettings

    key = f"cr_{secrets.token_urlsafe(32)}"
    return key, KeySettings(name=name, sha256=digest(key), scope=scope, tenant=tenant)
