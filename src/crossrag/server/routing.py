"""Routes with a policy each: what a caller must be allowed to do. An app with a route without one is refused.

Knows nothing of what the routes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from starlette.routing import Match

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Scope as AsgiScope

    from crossrag.server_settings import Scope

KEY = "key"
"""What the description calls the header with the key."""
Policy = Literal["public", "read", "write", "admin"]
"""Whoever, or the least scope of the key."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The route that a request goes to."""

    template: str
    policy: Policy
    upload: bool


class Router:
    """Adds routes to an app and remembers their policies.

    Args:
        app: It has no routes yet but the framework's own.
        locked: Whether callers must show a key, which the description then says.
    """

    def __init__(self, app: FastAPI, *, locked: bool = False) -> None:
        self._app, self._locked = app, locked
        self._policies: dict[int, tuple[str, Policy, bool]] = {}

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        policy: Policy,
        *,
        upload: bool = False,
        **options: Any,
    ) -> None:
        """Add a route; `options` are those of `FastAPI.add_api_route`."""
        if self._locked and policy != "public":
            options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "security": [{KEY: []}]}
        self._app.add_api_route(path, endpoint, methods=[method], **options)
        self._policies[id(self._app.routes[-1])] = path, policy, upload

    def include(self, route: Any, policy: Policy) -> None:
        """Add a route that another application has made."""
        self._app.router.routes.append(route)
        self._policies[id(route)] = route.path, policy, False

    def open(self, *paths: str) -> None:
        """Let anybody use routes that the framework has added itself."""
        for route in self._app.routes:
            if getattr(route, "path", None) in paths:
                self._policies[id(route)] = str(getattr(route, "path", "")), "public", False

    def check(self) -> None:
        """Refuse an app with a route that nobody has said a policy for."""
        for route in self._app.routes:
            if id(route) not in self._policies:
                raise AssertionError(f"route {getattr(route, 'path', route)} has no policy")

    def policies(self) -> Iterator[tuple[str, str, Policy]]:
        """Method, path and policy of every route; `*` where it takes any method."""
        for route in self._app.routes:
            path, policy, _ = self._policies[id(route)]
            for method in sorted(getattr(route, "methods", None) or {"*"}):
                yield method, path, policy

    def methods(self, scope: AsgiScope) -> list[str]:
        """All methods that the path of a request has, in order: two routes may share a path."""
        there = [route for route in self._app.routes if route.matches(scope)[0] != Match.NONE]
        return sorted({method for route in there for method in getattr(route, "methods", None) or ()})

    def match(self, scope: AsgiScope) -> Matched | None:
        """Where a request goes; one with a wrong method to the route of its path; None where nothing is."""
        partial = None
        for route in self._app.routes:
            found, _ = route.matches(scope)
            if found == Match.NONE:
                continue
            matched = Matched(*self._policies[id(route)])
            if found == Match.FULL:
                return matched
            partial = partial or matched
        return partial


def required(policy: Policy) -> Scope | None:
    """The scope that a policy asks for."""
    return None if policy == "public" else policy


SseResponse: Mapping[str, Any] = {
    "description": "One object, or server-sent events where `stream` is true",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "required": ["data"],
                "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
            }
        }
    },
}
