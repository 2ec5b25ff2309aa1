"""A Qdrant server -> a client that tries again, and errors that say how to mend them.

Every operation that goes through here can be repeated: ids are the chunks' own, deletions go by filter.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from crossrag.errors import ConfigError, IndexMissingError, StoreError

from .patience import Patience, Trouble

Result = TypeVar("Result")

OLDEST_SERVER = (1, 19)
"""What filters by prefix and rarity within a tenant need."""

_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_KEY_HINT = "Set qdrant.api_key, or QDRANT_API_KEY in the environment, to the server's own"
_UNINDEXED = "Index required but not found"
_UNINDEXED_HINT = (
    "The collection is in strict mode, which refuses filters on keys without an index: make a payload index "
    "over this key, of a type that is named, or allow unindexed_filtering_retrieve there"
)
_STATUS_OF_GRPC = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
}


class _NotAppliedError(Exception):
    """The server has logged a write and not done it, though it was told to wait."""


class MissingError(IndexMissingError):
    """The server has no such collection, or has it no longer."""


class DeniedError(StoreError):
    """The key may not do this."""


class RefusedError(StoreError):
    """The server does not do this, however often it is asked."""


class ExistsError(StoreError):
    """The server has one of this name already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is and how patient to be with it.

    Raises:
        ConfigError: The address is none.
    """

    url: str
    """`http://` or `https://`, host and port; 6333 where none is given."""
    api_key: str | None = field(default=None, repr=False)
    """None for QDRANT_API_KEY of the environment, if it is there."""
    grpc: bool = False
    """Whether to speak gRPC; collections are still looked at by REST where gRPC has no word for it."""
    grpc_port: int = 6334
    timeout: float = 30.0
    """Seconds for one request; the client rounds it up."""
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        try:
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ConfigError(f"qdrant.url is no address: {error}", hint=_URL_HINT) from None
        if address.scheme not in {"http", "https"} or not address.host or address.query or address.userinfo:
            raise ConfigError(f"qdrant.url is {_masked(address)}", hint=_URL_HINT)

    @property
    def key(self) -> str | None:
        """The key that is sent, if any."""
        return self.api_key or os.environ.get("QDRANT_API_KEY") or None


_URL_HINT = "Write http://HOST:6333 or https://HOST:6333; a key belongs in qdrant.api_key"


class Connection:
    """A client of one server; `call` is the only way to it.

    Args:
        server: Where it is.
        client: In place of one made for the server, such as one in memory.
    """

    def __init__(self, server: Server, client: QdrantClient | None = None) -> None:
        self.server = server
        self._client = client or _client(server)

    def call(self, verb: str, work: Callable[[QdrantClient], Result]) -> Result:
        """What `work` returns; somebody may wait for it, so it is given up after a few tries.

        Raises:
            StoreError: It failed and could not be mended by trying again.
        """
        return self._tried(self.server.patience, verb, work)

    def call_long(self, verb: str, work: Callable[[QdrantClient], Result]) -> Result:
        """The same for work of an ingestion, which outlives a server's restart: until the deadline.

        What is written must have been applied when it returns.

        Raises:
            StoreError: It failed, and went on failing.
        """
        patience = self.server.patience

        def applied(client: QdrantClient) -> Result:
            result = work(client)
            if isinstance(result, models.UpdateResult) and result.status != models.UpdateStatus.COMPLETED:
                raise _NotAppliedError(f"the write is {result.status}, and not applied yet")
            return result

        # Who wants no further tries at all wants none here either.
        return self._tried(replace(patience, retries=None) if patience.retries else patience, verb, applied)

    def _tried(self, patience: Patience, verb: str, work: Callable[[QdrantClient], Result]) -> Result:
        return patience.call(lambda: work(self._client), lambda error: self._explain(verb, error))

    def close(self) -> None:
        """Closing twice is fine."""
        self._client.close()

    def _explain(self, verb: str, error: Exception) -> Trouble:  # noqa: PLR0911 - one line for each kind
        if isinstance(error, _NotAppliedError):
            return Trouble(self._error(verb, str(error), "Look at the server's load and log"), passing=True)
        if isinstance(error, ResourceExhaustedResponse):
            return self._by_status(verb, 429, str(error), float(error.retry_after_s))
        if isinstance(error, UnexpectedResponse):
            return self._by_status(verb, error.status_code or 0, _said(error))
        if isinstance(error, grpc.RpcError):
            return self._explain_grpc(verb, error)
        if isinstance(error, ResponseHandlingException):
            return self._explain_transport(verb, error.source)
        if isinstance(error, QdrantException):
            # A 429 whose Retry-After is no whole number.
            return self._by_status(verb, 429, str(error))
        if isinstance(error, json.JSONDecodeError):
            return self._explain_transport(verb, error)
        if isinstance(error, ValueError):
            # What a client in memory raises in place of a status.
            kinds = {"not found": MissingError, "already exists": ExistsError}
            kind = next((kinds[part] for part in kinds if part in str(error)), StoreError)
            return Trouble(self._error(verb, str(error), "Run `crossrag doctor`", kind), passing=False)
        return Trouble(
            self._error(verb, f"{type(error).__name__}: {error}", "Run `crossrag doctor`"), passing=False
        )

    def _by_status(self, verb: str, status: int, said: str, wait: float | None = None) -> Trouble:
        older = ".".join(map(str, OLDEST_SERVER))
        kinds: dict[int, tuple[type[StoreError], str]] = {
            400: (RefusedError, f"`crossrag doctor` says whether the server is too old (needs {older})"),
            401: (StoreError, _KEY_HINT),
            403: (DeniedError, f"The key may not do this. {_KEY_HINT}"),
            404: (
                MissingError,
                "Make the index with `crossrag ingest PATH`, or check qdrant.collection and url",
            ),
            409: (ExistsError, "Choose another qdrant.collection"),
            429: (StoreError, "The server is busy: try again later, or raise its limits"),
        }
        if status == 400 and "already exists" in said:
            status = 409
        if status == 400 and _UNINDEXED in said:
            kinds[400] = RefusedError, _UNINDEXED_HINT
        kind, hint = kinds.get(
            status, (StoreError, f"`crossrag doctor` says whether the server is too old (needs {older})")
        )
        asked = f", asks to wait {wait:g} s" if wait else ""
        error = self._error(verb, f"the server says {status}{asked}: {said[:300] or 'nothing'}", hint, kind)
        return Trouble(error, passing=status in _PASSING_STATUS, wait=wait)

    def _explain_grpc(self, verb: str, error: Any) -> Trouble:
        code = error.code() if hasattr(error, "code") else None
        said = str(error.details() if hasattr(error, "details") else error)
        if code in _STATUS_OF_GRPC:
            return self._by_status(verb, _STATUS_OF_GRPC[code], said)
        passing = code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        hint = (
            f"Is gRPC open on port {self.server.grpc_port}? See qdrant.grpc_port"
            if passing
            else "See its log"
        )
        return Trouble(self._error(verb, f"gRPC {code}: {said[:300]}", hint), passing=passing)

    def _explain_transport(self, verb: str, source: object) -> Trouble:
        if isinstance(source, httpx.TimeoutException):
            what = f"no answer within {self.server.timeout:g} s (the work may have been done or not)"
            return Trouble(
                self._error(verb, what, "Raise qdrant.timeout, or look at the server's load"), passing=True
            )
        if isinstance(source, httpx.ConnectError):
            return self._explain_refusal(verb, str(source))
        if isinstance(source, httpx.TransportError):
            what = f"the connection was cut ({str(source)[:200] or type(source).__name__})"
            return Trouble(
                self._error(
                    verb, what, "Is it the REST port (6333), and http or https as the server has it?"
                ),
                passing=True,
            )
        return Trouble(
            self._error(verb, "what answers there is no Qdrant", "Check qdrant.url: the REST port is 6333"),
            passing=False,
        )

    def _explain_refusal(self, verb: str, said: str) -> Trouble:
        if "SSL" in said or "CERTIFICATE" in said.upper():
            hint = (
                "Write http:// where the server has no TLS; a certificate of your own goes in SSL_CERT_FILE"
            )
            return Trouble(self._error(verb, f"TLS failed ({said[:200]})", hint), passing=False)
        if "Name or service not known" in said or "nodename" in said or "getaddrinfo" in said:
            return Trouble(self._error(verb, "there is no such host", "Check qdrant.url"), passing=False)
        return Trouble(
            self._error(
                verb, f"the connection was refused ({said[:200]})", "Is the server running? Check qdrant.url"
            ),
            passing=True,
        )

    def _error(self, verb: str, what: str, hint: str, kind: type[StoreError] = StoreError) -> StoreError:
        what = what.strip().rstrip(".")
        return kind(f"Could not {verb} the Qdrant server at {self.server.url}: {what}", hint=hint)


def _client(server: Server) -> QdrantClient:
    with warnings.catch_warnings():
        # That a key goes over plain http is what `crossrag doctor` says, once.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(
            url=server.url,
            api_key=server.key,
            prefer_grpc=server.grpc,
            grpc_port=server.grpc_port,
            timeout=max(1, round(server.timeout + 0.499)),
            check_compatibility=False,
        )


def _said(error: UnexpectedResponse) -> str:
    """The server's own sentence, where it is written as Qdrant writes it."""
    try:
        status = error.structured()["status"]
        return str(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return error.content[:200].decode("utf-8", "replace")


def _masked(address: httpx.URL) -> str:
    return str(address.copy_with(userinfo=b"", query=None)) or "empty"
