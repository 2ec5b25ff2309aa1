"""A Reranker and an Embedder whose work is done by replicas of Ray Serve.

A replica that is lost is made good by another one; replicas that have too much to do refuse the request as a
whole, with 503, since an answer without its reranker would not say what it is worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from crossrag.errors import CrossragError, ModelError
from crossrag.server.problems import Problem
from crossrag.server.tickets import Abandoned, current
from crossrag.types import Relevance

from .serve_models import Embedded, Embedding, Scored, Scoring

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.types import Scores

_LOOKING = 0.25
"""Seconds between two looks at whether somebody still waits."""
_RETRY_AFTER = 2.0
_PAUSE = 0.05
"""Seconds before the second try; twice as long before each further one."""


class Replicas:
    """A deployment, asked from threads.

    Args:
        handle: Ray Serve's handle of it.
        name: What it is, for messages.
        retries: Further tries when the replica that works is lost.
    """

    def __init__(self, handle: Any, name: str, *, retries: int) -> None:
        self._handle, self._name, self._retries = handle, name, retries

    def ask(self, method: str, argument: Callable[[], object] | None = None) -> Any:
        """What any of the replicas says.

        Args:
            method: Of the replica; it must be safe to do twice.
            argument: Makes its argument, anew for every try, since time passes.

        Raises:
            Problem: 503, the replicas have too much to do.
            ModelError: Replica after replica was lost, alone or with its machine, or the model failed.
            Abandoned: Nobody waits for it any more.
        """
        from ray.exceptions import (
            NodeDiedError,
            ObjectLostError,
            RayActorError,
            RayTaskError,
            WorkerCrashedError,
        )
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        for attempt in range(self._retries + 1):
            try:
                return self._once(method, () if argument is None else (argument(),))
            except BackPressureError:
                raise self._refused() from None
            except DeploymentUnavailableError as error:
                raise ModelError(
                    f"The {self._name} is not there: {error}", hint="See `serve status`"
                ) from None
            except RayTaskError as error:
                # The replica's own exception, with this program's classes where it has them.
                raise (
                    error.cause
                    if isinstance(error.cause, CrossragError)
                    else ModelError(
                        f"The {self._name} failed: {type(error.cause).__name__}",
                        hint="The replica's log says why",
                    )
                ) from None
            # The replica, its machine, or what it had answered and nobody had fetched yet.
            except (RayActorError, NodeDiedError, ObjectLostError, WorkerCrashedError):
                if attempt < self._retries:
                    time.sleep(_PAUSE * 2**attempt)
        raise ModelError(
            f"{self._retries + 1} replicas of the {self._name} were lost over one request",
            hint="Their log says why; memory is a likely reason",
        )

    def _once(self, method: str, arguments: tuple[object, ...]) -> Any:
        ticket = current()
        response = getattr(self._handle, method).remote(*arguments)
        while True:
            try:
                return response.result(timeout_s=_LOOKING)
            except TimeoutError:
                if ticket is not None and ticket.abandoned:
                    response.cancel()
                    raise Abandoned from None

    def _refused(self) -> Problem:
        refusal = Problem(
            503, f"The {self._name} has too much to do", hint="Try again later", retry_after=_RETRY_AFTER
        )
        # A stage goes on without what failed; this request shall not.
        if (ticket := current()) is not None:
            ticket.refuse(refusal)
        return refusal


class ServedReranker:
    """The reranker of a deployment.

    Args:
        replicas: Of `RerankerReplica`.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._fingerprint: str | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when another model answers than before."""

    @property
    def fingerprint(self) -> str:
        """Of the model that answered last."""
        if self._fingerprint is None:
            self._fingerprint = str(self._replicas.ask("fingerprint"))
        return self._fingerprint

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As the model's."""
        if not texts:
            return Relevance.of_nothing()
        ticket = current()

        def asked() -> Scoring:
            return Scoring(
                query=query,
                texts=tuple(texts),
                first_stage=None if first_stage is None else tuple(first_stage),
                top_k=top_k,
                seconds=None if deadline is None else deadline - time.monotonic(),
                key=ticket.key if ticket else "",
            )

        said: Scored = self._replicas.ask("score", asked)
        before, self._fingerprint = self._fingerprint, said.fingerprint
        if before is not None and before != said.fingerprint:
            self.changed()
        return said.relevance


class ServedEmbedder:
    """The embedder of a deployment; one model for as long as this lives, as an index demands.

    Args:
        replicas: Of `EmbedderReplica`.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._about: tuple[str, int] | None = None

    @property
    def dimension(self) -> int:
        """The model's."""
        return self._known()[1]

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self._known()[0]

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to float32[n, d]."""
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return self._vectors(Embedding("documents", tuple(texts)))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One question to float32[d]."""
        row: NDArray[np.float32] = self._vectors(Embedding("query", (text,)))[0]
        return row

    def _known(self) -> tuple[str, int]:
        if self._about is None:
            fingerprint, dimension = self._replicas.ask("about")
            self._about = str(fingerprint), int(dimension)
        return self._about

    def _vectors(self, asked: Embedding) -> NDArray[np.float32]:
        said: Embedded = self._replicas.ask("embed", lambda: asked)
        if said.fingerprint != self.fingerprint:
            raise ModelError(
                "The embedder was exchanged, and the index holds vectors of the one before",
                hint="Reindex with it, then deploy the API anew",
            )
        return said.vectors
