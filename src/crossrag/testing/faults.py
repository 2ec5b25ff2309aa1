"""Any backend -> the same, failing at chosen calls: what shows whether a caller keeps its promises then."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any


class Fault:
    """Hands everything on to a backend, but for the n-th call of its methods, which raises or gives nonsense.

    Args:
        backend: Any object; it is not changed.
        at: Numbers of the calls that fail, from 1; None for every one.
        methods: Which methods count; all of them if empty.
        error: What is raised.
        instead: Called in place of raising, with the name of the method and what the backend says.
    """

    def __init__(
        self,
        backend: Any,
        *,
        at: Collection[int] | None = None,
        methods: Collection[str] = (),
        error: Exception | None = None,
        instead: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self._backend = backend
        self._at = at
        self._methods = methods
        self._error = error or RuntimeError("a fault on purpose")
        self._instead = instead
        self.calls = 0
        """How many calls counted so far."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._backend, name)
        if not callable(value) or (self._methods and name not in self._methods):
            return value

        def called(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self._at is not None and self.calls not in self._at:
                return value(*arguments, **named)
            if self._instead is None:
                raise self._error
            return self._instead(name, value(*arguments, **named))

        return called
