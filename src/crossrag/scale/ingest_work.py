"""What runs on Ray's workers during an ingestion: read and cut a shelf of files; embed what was cut.

Rows in, rows out (`ingest_rows`). Parsers run in children of the worker, with the limits of every ingestion.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from crossrag import assembly, loading
from crossrag.config import Settings
from crossrag.errors import ConfigError, CrossragError, ModelError
from crossrag.preparing import Recipe, prepare

from . import ingest_rows
from .cluster import device, everywhere

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, SparseEncoder

    from .ingest_rows import Row

_NEEDED = {"embedder", "sparse", "loading", "chunking", "ray"}
"""Sections that a worker sees: no keys, no addresses of other services."""


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker is told, and what it must agree with."""

    settings: str
    """Sections of the settings, as JSON."""
    recipe: str
    embedder: str
    sparse: str
    """Fingerprints on the driver's side."""

    @classmethod
    def of(cls, settings: Settings) -> Order:
        """From the driver's settings."""
        named = settings.embedder.model_copy(update={"model": everywhere(settings.embedder.model)})
        sent = settings.model_copy(update={"embedder": named})
        return cls(
            sent.model_dump_json(include=_NEEDED, exclude_unset=True),
            assembly.recipe(settings).fingerprint,
            assembly.embedder(settings).fingerprint,
            assembly.sparse_encoder(settings).fingerprint,
        )

    def read(self) -> Settings:
        """The settings on the worker's side: as many threads as it has CPUs, and the GPU that it has."""
        settings = Settings.model_validate_json(self.settings)
        wanted, ray = settings.embedder, settings.ray
        own = {
            "threads": wanted.threads or max(1, int(ray.ingest_cpus)),
            "device": device("embedders", wanted.model, wanted.device, gpus=ray.ingest_gpus),
        }
        return settings.model_copy(update={"embedder": wanted.model_copy(update=own)})


def read(row: Row, order: Order) -> Row:
    """Read and cut the files of a shelf; each that cannot be read fails alone."""
    return _told(row, lambda: _read(row, order))


def _read(row: Row, order: Order) -> Row:
    loader, recipe = _reading(order)
    changes = ingest_rows.changes_of(row)
    return ingest_rows.read(
        row["number"], [(prepare(change, loader, recipe), known) for change, known in changes]
    )


@cache
def _reading(order: Order) -> tuple[loading.Loader, Recipe]:
    """Kept by the worker from shelf to shelf, with the parsing process; both end with it."""
    settings = order.read()
    recipe = assembly.recipe(settings)
    if recipe.fingerprint != order.recipe:
        raise ConfigError(
            f"crossrag on {platform.node()} cuts documents in another way than the driver's",
            hint="Install the same version of crossrag on all machines of the cluster",
        )
    # One shelf at a time, and one file of it at a time.
    one = settings.model_copy(update={"loading": settings.loading.model_copy(update={"workers": 1})})
    return assembly.loader(one), recipe


class Embedding:
    """Holds the models, and embeds shelf by shelf.

    Args:
        order: What the driver wants.
    """

    def __init__(self, order: Order) -> None:
        self._order = order

    def __call__(self, row: Row) -> Row:
        """The row with vectors for its texts."""
        return _told(row, lambda: self._embedded(row))

    def _embedded(self, row: Row) -> Row:
        if row["error"]:
            return row
        embedder, sparse_encoder = self._models
        texts = ingest_rows.texts_of(row)
        return ingest_rows.embedded(
            row, embedder.embed_documents(texts), sparse_encoder.encode_documents(texts)
        )

    @cached_property
    def _models(self) -> tuple[Embedder, SparseEncoder]:
        """Made at the first row: an error in the constructor of an actor would be no answer but a retry."""
        settings = self._order.read()
        embedder, sparse_encoder = assembly.embedder(settings), assembly.sparse_encoder(settings)
        here = (embedder.fingerprint, sparse_encoder.fingerprint)
        if here != (wanted := (self._order.embedder, self._order.sparse)):
            raise ModelError(
                f"Models on {platform.node()} are {', '.join(here)}; the index's are {', '.join(wanted)}",
                hint="Copy the same model to all machines of the cluster",
            )
        return embedder, sparse_encoder


def _told(row: Row, work: Callable[[], Row]) -> Row:
    """What an error that is raised on purpose comes to: it ends the run, and Ray need not try again."""
    try:
        made = work()
    except CrossragError as error:
        made = ingest_rows.failed(row, error)
    # All rows of a block have the same columns.
    return {"dense": b"", "lengths": b"", "terms": b"", "weights": b""} | made
