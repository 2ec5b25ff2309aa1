"""What runs in the replicas of Ray Serve: one model each, shared by the requests that it gets.

The reranker's batches are those of `server.batching`, filled by tokens with pairs of several questions; the
embedder's are `serve.batch`, by tokens too. Scoring and embedding change nothing: asking again is safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from crossrag import assembly
from crossrag.errors import ConfigError
from crossrag.server.batching import shared
from crossrag.server.tickets import Ticket, working_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.config import Settings
    from crossrag.types import Relevance, Scores

Result = TypeVar("Result")
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A question and its passages on their way to a replica."""

    query: str
    texts: tuple[str, ...]
    first_stage: tuple[Scores, ...] | None
    top_k: int | None
    seconds: float | None
    """Until no further batch is begun; clocks of two machines do not compare."""
    key: str
    """Whose request it is, for fair turns."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a replica says, and by which model."""

    fingerprint: str
    relevance: Relevance


@dataclass(frozen=True, slots=True)
class Embedding:
    """Texts on their way to a replica; questions are embedded in another way than documents."""

    kind: Literal["query", "documents"]
    texts: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """About how many there are to read."""
        return sum(2 + len(text) // _CHARACTERS_PER_TOKEN for text in self.texts)


@dataclass(frozen=True, slots=True)
class Embedded:
    """float32[n, d] of one `Embedding`, and by which model."""

    fingerprint: str
    vectors: NDArray[np.float32]


class RerankerReplica:
    """The reranker of the settings, loaded and used once before it is ready.

    Args:
        settings: Of which `reranking`, `rerank_http` and `rerank_torch` count.
        digest: Of what was deployed.
    """

    def __init__(self, settings: Settings, digest: str) -> None:
        made = assembly.reranker(settings)
        if made is None:
            raise ConfigError("There is no reranker to serve", hint="Set reranking.model")
        self._model = shared(made, batch_tokens=settings.server.batch_tokens)
        self._model.score("ready?", ["Ready.", "Not ready yet, for a while."])
        self._digest = digest
        self._threads = ThreadPoolExecutor(settings.ray.max_ongoing_requests, "crossrag-replica")

    async def score(self, asked: Scoring) -> Scored:
        """Read; batches are filled with pairs of the other questions that are here."""
        deadline = None if asked.seconds is None else time.monotonic() + asked.seconds

        def work() -> Scored:
            relevance = self._model.score(
                asked.query,
                asked.texts,
                first_stage=asked.first_stage,
                top_k=asked.top_k,
                deadline=deadline,
            )
            return Scored(self._model.fingerprint, relevance)

        return await _while_wanted(self._threads, Ticket(asked.key), work)

    def fingerprint(self) -> str:
        """Of the model."""
        return self._model.fingerprint

    def digest(self) -> str:
        """Of what was deployed."""
        return self._digest


class EmbedderReplica:
    """The embedder of the settings, loaded and used once before it is ready.

    Args:
        settings: Of which `embedder` counts.
        digest: Of what was deployed.
    """

    def __init__(self, settings: Settings, digest: str) -> None:
        from ray import serve

        self._model = assembly.embedder(settings)
        self._model.embed_query("ready?")
        self._digest = digest
        self._most = settings.server.batch_tokens
        self._threads = ThreadPoolExecutor(1, "crossrag-replica")
        # No waiting for company: what has come while the last batch ran is the next one.
        self._batched: Any = serve.batch(
            max_batch_size=self._most, batch_wait_timeout_s=0.0, batch_size_fn=self._size
        )(self._run)

    async def embed(self, asked: Embedding) -> Embedded:
        """Vectors of the texts, in their order."""
        embedded: Embedded = await self._batched(asked)
        return embedded

    def about(self) -> tuple[str, int]:
        """The model's fingerprint and dimension."""
        return self._model.fingerprint, self._model.dimension

    def digest(self) -> str:
        """Of what was deployed."""
        return self._digest

    def _size(self, asked: Sequence[Embedding]) -> int:
        # One that is longer than a batch is a batch.
        return (
            sum(min(self._most, one.tokens) for one in asked)
            if len(asked) > 1
            else min(self._most, asked[0].tokens)
        )

    async def _run(self, asked: list[Embedding]) -> list[Embedded]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._embedded, asked)

    def _embedded(self, asked: Sequence[Embedding]) -> list[Embedded]:
        """Documents of all requests at once; a question has a call of its own in the protocol."""
        texts = [text for one in asked if one.kind == "documents" for text in one.texts]
        rows = self._model.embed_documents(texts) if texts else None
        found, at = [], 0
        for one in asked:
            if one.kind == "query" or rows is None:
                vectors = self._model.embed_query(one.texts[0])[None]
            else:
                vectors, at = rows[at : at + len(one.texts)], at + len(one.texts)
            found.append(Embedded(self._model.fingerprint, vectors))
        return found


class Nobody:
    """Takes no processor and is asked nothing."""


async def _while_wanted(threads: ThreadPoolExecutor, ticket: Ticket, work: Callable[[], Result]) -> Result:
    """The result of blocking work, which is told when nobody waits for it any more."""

    def working() -> Result:
        with working_for(ticket):
            return work()

    try:
        return await asyncio.get_running_loop().run_in_executor(threads, working)
    except asyncio.CancelledError:
        ticket.abandon()
        raise
