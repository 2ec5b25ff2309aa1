"""Settings -> collections of `Rag`s that share their models, each for one tenant; ready or not. No HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakSet

from crossrag import assembly, calibrating
from crossrag.errors import ConfigError, IndexMissingError
from crossrag.pipeline import Rag
from crossrag.score_cache import CachedReranker, is_memorable, remembering

from .admission import Admission
from .auth import Keys
from .batching import shared
from .breaker import Breaker, GuardedGenerator
from .problems import Problem
from .tenants import TenantIndex

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.protocols import Embedder, Generator, Reranker, SparseEncoder
    from crossrag.types import Ranking

    from .tickets import Ticket

DEFAULT = "default"
"""Name of the collection at `index.path`."""

_GRACE_SHARE = 0.8
"""Of the time between the order to stop and the end; the rest is for last words."""
State = Literal["starting", "ready", "failing", "stopping"]


class Service:
    """Everything that the routes work with.

    Args:
        settings: All of them.
        embedder: In place of what the settings name, and so on; for tests, and for applications.
        sparse_encoder: Likewise.
        reranker: Likewise.
        generator: Likewise.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embedder: Embedder | None = None,
        sparse_encoder: SparseEncoder | None = None,
        reranker: Reranker | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.settings = settings
        self.limits = settings.server
        self.keys = Keys(settings.server, tenant=settings.index.tenant)
        self.admission = Admission(permits=self.limits.concurrency, queue_seconds=self.limits.queue_seconds)
        self.threads = ThreadPoolExecutor(self.limits.concurrency, "crossrag")
        """One for each permit."""
        self.state: State = "starting"
        self.warm = False
        """Whether the models have been loaded and used."""
        self.batch_ran: Callable[[int], None] = lambda _: None
        """Told how many tokens a batch of the reranker had."""
        self.ranked: Callable[[Ranking], None] = lambda _: None
        """Told what every search has found."""
        self.tickets: WeakSet[Ticket] = WeakSet()
        """Of all work that is wanted now."""
        self.breaker = Breaker(failures=self.limits.breaker_failures, seconds=self.limits.breaker_seconds)
        """Of the language model."""
        self._embedder, self._sparse, self._generator = embedder, sparse_encoder, generator
        self._given = reranker
        self._reranker: Reranker | None = None
        self._rags: dict[tuple[str, str], Rag] = {}
        self._making = threading.RLock()

    @property
    def collections(self) -> list[str]:
        """Names, the default first."""
        return [DEFAULT, *self.limits.collections]

    def folder(self, collection: str) -> Path:
        """Where its index is."""
        return self.limits.collections.get(collection, self.settings.index.path)

    def uploads(self, collection: str, tenant: str) -> Path:
        """Where uploaded files of a collection and a tenant are; both names are the settings'."""
        if self.limits.uploads is None:
            root = self.folder(collection) / "uploads"
        else:
            root = self.limits.uploads / collection
        return root / (f"tenant-{tenant}" if tenant else "shared")

    def made(self, collection: str | None, tenant: str) -> Rag | None:
        """The one for a collection and a tenant, if it has been made; never waits.

        Raises:
            Problem: There is no such collection.
        """
        name = collection or DEFAULT
        if name not in self.collections:
            raise Problem(404, f"There is no collection {name[:64]!r}", code="not_found")
        return self._rags.get((name, tenant))

    def rag(self, collection: str | None, tenant: str) -> Rag:
        """The same, made at first use, which loads models: not for the event loop (`running.opened`).

        Raises:
            Problem: There is no such collection.
        """
        if (known := self.made(collection, tenant)) is not None:
            return known
        name = collection or DEFAULT
        with self._making:
            found = self._rags.get((name, tenant))
            if found is None:
                found = self._rags[name, tenant] = self._made(name, tenant)
            return found

    def threshold(self, rag: Rag) -> float | None:
        """The least relevance of a passage that an answer may rest on; None where nothing says it.

        That is so without a reranker, and where a precision is wanted that no calibration knows yet.
        """
        if rag.reranker is None:
            return None
        try:
            return calibrating.resolve_threshold(rag.settings.reranking.threshold, rag.calibrated)
        except ConfigError:
            return None

    def warm_up(self) -> None:
        """Load the models and use each once; ready afterwards. Runs in a thread of its own.

        Raises:
            CrossragError: A model or the index cannot be used; the service is `failing` then.
        """
        try:
            rag = self.rag(DEFAULT, self.settings.index.tenant)
            rag.embedder.embed_query("ready?")
            rag.sparse_encoder.encode_query("ready?")
            if rag.reranker is not None:
                rag.reranker.score("ready?", ["Ready.", "Not ready yet, for a while."])
            if rag.grounder is not None:
                rag.grounder.support([("Ready.", "It is ready.")])
            _ = rag.generator.fingerprint
            rag.count_tokens("ready?")
            self.warm = True
            self.check()
        except Exception:
            if self.state == "starting":
                self.state = "failing"
            raise
        if self.state == "starting":
            self.state = "ready"

    def models_changed(self) -> None:
        """Another reranker answers: what was calibrated with the one before may not hold."""
        for rag in [*self._rags.values()]:
            rag.__dict__.pop("calibrated", None)

    def stop(self) -> None:
        """Begin nothing new, and let what runs end in time to say so; on the event loop's thread."""
        self.state = "stopping"
        end = time.monotonic() + _GRACE_SHARE * self.limits.grace_seconds
        for ticket in [*self.tickets]:
            ticket.end_by(end)

    def now(self, state: State) -> None:
        """Be in this state, unless the end has begun: nothing undoes that."""
        if self.state != "stopping":
            self.state = state

    def check(self) -> None:
        """Whether every index answers; one that does not exist yet is no failure.

        Raises:
            CrossragError: One does not.
        """
        for name in self.collections:
            try:
                next(self.rag(name, self.settings.index.tenant).store.scan(limit=1), None)
            except IndexMissingError:
                continue

    def close(self) -> None:
        """Let go of everything; threads that still work are waited for."""
        self.state = "stopping"
        self.threads.shutdown(wait=True, cancel_futures=True)
        # Those of tenants first: the store is the whole index's.
        for _, rag in sorted(self._rags.items(), key=lambda item: not isinstance(item[1].index, TenantIndex)):
            rag.close()
        if self._reranker is not None and hasattr(self._reranker, "close"):
            self._reranker.close()
        self._rags.clear()

    def _made(self, name: str, tenant: str) -> Rag:
        index = self.settings.index.model_copy(update={"path": self.folder(name)})
        settings = self.settings.model_copy(update={"index": index})
        if tenant != index.tenant:
            whole = self.rag(name, index.tenant)
            own = index.model_copy(update={"tenant": tenant})
            made = self._assembled(settings.model_copy(update={"index": own}))
            made.index = TenantIndex(whole.index, tenant)
            return made
        return self._assembled(settings)

    def _assembled(self, settings: Settings) -> Rag:
        """Models are made once and shared by all."""
        if self._embedder is None:
            self._embedder = assembly.embedder(self.settings)
        if self._sparse is None:
            self._sparse = assembly.sparse_encoder(self.settings)
        if self._reranker is None:
            self._reranker = self._made_reranker()
        quotes = self._generator is None and self.settings.generator.model == "extractive"
        return Rag(
            settings,
            embedder=self._embedder,
            sparse_encoder=self._sparse,
            reranker=self._reranker,
            # What quotes needs no leave.
            generator=None if quotes else GuardedGenerator(self._made_generator, self.breaker),
        )

    def _made_generator(self) -> Generator:
        with self._making:
            if self._generator is None:
                if self._embedder is None:
                    self._embedder = assembly.embedder(self.settings)
                self._generator = assembly.generator(
                    self.settings, reranker=self._reranker, embedder=self._embedder
                )
            return self._generator

    def _note_batch(self, tokens: int) -> None:
        self.batch_ran(tokens)

    def _made_reranker(self) -> Reranker | None:
        """The model behind a worker that all requests share, behind the memory of what it has said."""
        wanted = self.settings.reranking
        plain = self.settings.model_copy(update={"reranking": wanted.model_copy(update={"cache": None})})
        model = self._given or assembly.reranker(plain)
        if model is None:
            return None
        made = shared(model, batch_tokens=self.limits.batch_tokens, ran=self._note_batch)
        if wanted.cache is not None:
            return remembering(made, wanted.cache)
        if self.limits.score_cache and self._given is None and is_memorable(model):
            return CachedReranker(made, self.settings.index.path.expanduser() / "scores.sqlite")
        return made
