"""Exceptions of a request -> a logged line and a reply in the dialect of its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from crossrag.errors import CrossragError

from .problems import Problem, dialect, problem_of
from .tickets import Abandoned

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request


def reply_of(error: BaseException, request: Request) -> Problem:
    """The problem to tell; what it leaves out is in the log under the request's id."""
    problem = problem_of(error)
    if not isinstance(error, Problem) and problem.status >= 500:
        request.app.state.observer.failed(request.state.request_id, error)
    return problem


def register(app: FastAPI) -> None:
    """Let the app answer every exception."""

    async def told(request: Request, error: Exception) -> Response:
        problem = reply_of(_translated(error, request), request)
        if problem.status == 405:
            problem.allow = ", ".join(app.state.router.methods(request.scope))
        return respond(request, problem)

    for kind in (Problem, CrossragError, Abandoned, ClientDisconnect, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, told)


def respond(request: Request, problem: Problem) -> Response:
    """The reply."""
    body, media_type = dialect(request.url.path, problem, getattr(request.state, "request_id", ""))
    return JSONResponse(body, status_code=problem.status, headers=problem.headers, media_type=media_type)


def _translated(error: Exception, request: Request) -> Exception:
    if isinstance(error, RequestValidationError):
        # Without its type, a body is no object but text: what curl sends with -d alone.
        kind = request.headers.get("content-type", "")
        hint = "" if "json" in kind.lower() else "Send the header Content-Type: application/json"
        return Problem(422, _first(error.errors()), hint=hint if request.method == "POST" else "")
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail))
    return error


def _first(found: Any) -> str:
    """The first thing that is wrong, without the value: that may be a secret."""
    for one in found:
        where = ".".join(str(part) for part in one["loc"] if part != "body")
        return f"{where}: {one['msg']}" if where else str(one["msg"])
    return "The request cannot be used"
