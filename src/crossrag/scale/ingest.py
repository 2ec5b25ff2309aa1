"""RayEngine: documents are read, cut and embedded on a Ray cluster, as a stream; the driver alone writes.

What comes back is in the plan's order, so that the writer does what it does with the local engine. A worker
that is lost is replaced, and its shelf of files done again, by Ray; a driver that is lost is made good by the
next run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crossrag.errors import CrossragError, MissingExtraError

from . import ingest_rows
from .cluster import Need, connected
from .ingest_work import Embedding, Order, read

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.planning import Change
    from crossrag.preparing import Prepared
    from crossrag.ray_settings import RaySettings

_READER_CPUS = 1.0
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): .")
_READER_SHELVES = 100
"""After so many a reader is replaced, whatever parsers have left in it."""


@dataclass(frozen=True)
class RayEngine:
    """Prepares documents on a cluster: `rag.ingest("docs", engine=RayEngine(rag.settings))`.

    All machines of the cluster see the files under the same paths, and have the same crossrag and models.

    Args:
        settings: Those of the index; `[ray]` says which cluster and how much of it.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    settings: Settings

    def __post_init__(self) -> None:
        # Ray alone has no Ray Data.
        if any(find_spec(module) is None for module in ("ray", "pyarrow", "pandas")):
            raise MissingExtraError("--engine ray needs Ray", hint="pip install 'crossrag[ray]'")

    @cached_property
    def _order(self) -> Order:
        return Order.of(self.settings)

    @property
    def models(self) -> tuple[str, ...]:
        """Fingerprints of embedder and sparse encoder, made of the settings on each machine."""
        return self._order.embedder, self._order.sparse

    @contextmanager
    def prepared(
        self, changes: Sequence[Change], known: Callable[[Change], Collection[str]]
    ) -> Iterator[Iterator[Prepared]]:
        """As `Engine.prepared`; where nothing changed, no cluster is asked."""
        if not changes:
            yield iter(())
            return
        ray = self.settings.ray
        with connected(ray, _need(ray)), _in_order(), _explained():
            stream = self._stream(changes, known)
            try:
                yield stream
            finally:
                stream.close()

    def _stream(
        self, changes: Sequence[Change], known: Callable[[Change], Collection[str]]
    ) -> Generator[Prepared]:
        shelves = list(ingest_rows.shelves(changes))
        asked = [
            ingest_rows.asked(
                shelf, [[ingest_rows.mark(text) for text in sorted(known(one))] for one in shelf.changes]
            )
            for shelf in shelves
        ]
        rows = _dataset(asked, self._order, self.settings.ray).iter_rows()
        for shelf, row in zip(shelves, rows, strict=True):
            if row["number"] != shelf.number:
                raise AssertionError(f"Ray gave shelf {row['number']} in place of {shelf.number}")
            yield from ingest_rows.prepared(row, shelf.changes)


def _dataset(asked: list[ingest_rows.Row], order: Order, ray: RaySettings) -> Any:
    """Shelves -> read -> embedded, in order. Each is a block, and so what is tried again and what waits."""
    from ray import data

    # Ray's types know no further arguments.
    reading: Any = read
    embedding: Any = Embedding
    return (
        data.from_items(asked, override_num_blocks=len(asked))
        # That readers are replaced also keeps Ray from reading within the process that embeds.
        .map(reading, fn_kwargs={"order": order}, num_cpus=_READER_CPUS, max_calls=_READER_SHELVES)
        .map(
            embedding,
            fn_constructor_kwargs={"order": order},
            compute=data.ActorPoolStrategy(size=ray.ingest_embedders),
            num_cpus=ray.ingest_cpus,
            num_gpus=ray.ingest_gpus or None,
        )
    )


def _need(ray: RaySettings) -> Need:
    """Embedders that leave nothing to readers would wait for them for ever."""
    return Need(
        whose="Embedders and one reader",
        cpus=ray.ingest_embedders * ray.ingest_cpus + _READER_CPUS,
        gpus=ray.ingest_embedders * ray.ingest_gpus,
        hint="Lower ray.ingest_embedders, ray.ingest_cpus or ray.ingest_gpus",
    )


@contextmanager
def _in_order() -> Iterator[None]:
    """Ray Data gives rows in their order, and says nothing but warnings."""
    from ray import data

    context = data.DataContext.get_current()
    kept = context.execution_options.preserve_order, context.enable_progress_bars
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = kept


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of Ray's own, in a sentence."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise CrossragError(
            f"Ray gave up: {_reason(error)[:300]}",
            hint="What was written is whole; mend what it says and run the same command again",
        ) from error


def _reason(error: Exception) -> str:
    """The line of Ray's report that says what happened: the last exception, but those that say only where."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raised = [line for line in lines if _RAISED.match(line) and "UserCodeException" not in line]
    return raised[-1] if raised else lines[0]
