"""What went wrong -> status, words and a body in the dialect of whoever asked.

Messages of failing parts stay in the log: they name paths and addresses.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.requests import ClientDisconnect

from crossrag.errors import CrossragError, GeneratorError, IndexMissingError, StoreSlowError, UsageError

from .tickets import Abandoned

_TITLES = {
    400: "The request is malformed",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "No such method here",
    408: "The request took too long to arrive",
    413: "Too large",
    415: "Another content type is needed",
    421: "This server has another name",
    422: "The request cannot be used",
    429: "Too much to do",
    431: "Too many headers",
    500: "Something failed that should not",
    502: "The language model failed",
    503: "Not available",
    504: "Time was up",
}
_LOGGED = "The server's log has it under this request's id"
_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    421: "unknown_host",
    429: "overloaded",
    500: "internal",
    502: "upstream_failed",
    503: "unavailable",
    504: "timeout",
}


class Problem(Exception):  # noqa: N818 - what RFC 9457 calls it
    """An answer that is an error.

    Args:
        status: Of the HTTP reply.
        detail: What went wrong, for the caller's eyes.
        hint: How to mend it.
        retry_after: Seconds after which it is worth another try.
        code: One word for programs; by status where it is not given.
    """

    def __init__(
        self, status: int, detail: str, *, hint: str = "", retry_after: float | None = None, code: str = ""
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint = status, detail, hint
        self.retry_after = retry_after
        self.allow = ""
        """Methods that the path has, where it has not this one."""
        self.code = code or _CODES.get(status, "invalid_request")

    @property
    def headers(self) -> dict[str, str]:
        """What belongs into the reply's head."""
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        if self.allow:
            found["Allow"] = self.allow
        return found

    def body(self, request_id: str) -> dict[str, Any]:
        """Problem details (RFC 9457), with hint, code and the request's id."""
        return {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "code": self.code,
            "request_id": request_id,
        }

    def openai(self) -> dict[str, Any]:
        """The error object of OpenAI's API."""
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}.get(
            self.status, "invalid_request_error" if self.status < 429 else "server_error"
        )
        if self.status == 429:
            kind = "rate_limit_error"
        text = f"{self.detail}. {self.hint}." if self.hint else self.detail
        return {"error": {"message": text, "type": kind, "param": None, "code": self.code}}

    def tei(self) -> dict[str, Any]:
        """What text-embeddings-inference says."""
        kind = {429: "overloaded", 413: "validation", 422: "validation", 400: "empty"}.get(
            self.status, "backend"
        )
        return {"error": self.detail, "error_type": kind}

    def rerank(self) -> dict[str, Any]:
        """What clients of Cohere (`message`), Jina (`detail`) and vLLM (`error`) look for."""
        return {"message": self.detail, "detail": self.detail} | self.openai()


def problem_of(error: BaseException) -> Problem:  # noqa: PLR0911 - a table
    """Any exception as a problem, without words that say more than a caller should know."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Abandoned | ClientDisconnect):
        return Problem(499, "Nobody waits for it any more")  # for the log; nobody reads it
    if isinstance(error, UsageError):
        return Problem(422, error.message, hint=error.hint)
    if isinstance(error, GeneratorError):
        if error.retryable:
            return Problem(503, "The language model is not available", retry_after=5, code="upstream_failed")
        return Problem(502, _TITLES[502], hint=_LOGGED)
    if isinstance(error, IndexMissingError):
        hint = "Upload some, or run crossrag ingest"
        return Problem(404, "There are no documents yet", hint=hint, code="no_documents")
    if isinstance(error, StoreSlowError):
        return Problem(504, "The index did not answer in time", hint="Ask again with a longer timeout")
    if isinstance(error, CrossragError):
        return Problem(503, "The index or a model cannot be used", hint=_LOGGED, retry_after=10)
    return Problem(500, _TITLES[500], hint=_LOGGED)


def dialect(path: str, problem: Problem, request_id: str) -> tuple[dict[str, Any], str]:
    """Body and media type of a problem at this path."""
    if path in {"/v1/rerank", "/v2/rerank"}:
        return problem.rerank(), "application/json"
    if path == "/rerank":
        return problem.tei(), "application/json"
    if path.startswith("/v1/"):
        return problem.openai(), "application/json"
    return problem.body(request_id), "application/problem+json"
