"""Points and conditions in the typed models of `qdrant_client`; batches that no server calls too large."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from . import points
from .points import DENSE, SPARSE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.types import Chunk, SparseVector

_BATCH_BYTES, _BATCH_POINTS = 4_000_000, 256
"""Qdrant advises less than 5 MB; 32 MB are refused. The number of points bounds the time of one request."""


def batches(
    chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector], tenant: str
) -> Iterator[list[models.PointStruct]]:
    """Chunks in their order, cut by size and number: the same chunks, the same batches."""
    batch: list[models.PointStruct] = []
    size = 0
    for chunk, row, terms in zip(chunks, dense, sparse, strict=True):
        payload = points.payload(chunk, tenant)
        # A number in JSON takes at most 24 characters, and a comma.
        needs = 25 * len(row) + 36 * len(terms.indices) + len(json.dumps(payload)) + 200
        if batch and (size + needs > _BATCH_BYTES or len(batch) == _BATCH_POINTS):
            yield batch
            batch, size = [], 0
        batch.append(
            models.PointStruct(
                id=points.point_id(chunk.id, tenant),
                vector={
                    DENSE: row.tolist(),
                    SPARSE: models.SparseVector(indices=list(terms.indices), values=list(terms.values)),
                },
                payload=payload,
            )
        )
        size += needs
    if batch:
        yield batch


class ClientDialect:
    """Conditions of `qdrant_client`; see `conditions.Dialect`."""

    def match(self, path: str, value: str) -> models.FieldCondition:
        """The value itself, or an element."""
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))

    def match_any(self, path: str, values: Sequence[str]) -> models.FieldCondition:
        """One of these."""
        return models.FieldCondition(key=path, match=models.MatchAny(any=list(values)))

    def prefix(self, path: str, text: str) -> models.FieldCondition:
        """Text that begins so."""
        return models.FieldCondition(key=path, match=models.MatchPrefix(prefix=text))

    def numbers(self, path: str, bounds: Mapping[str, float]) -> models.FieldCondition:
        """A number within bounds."""
        return models.FieldCondition(key=path, range=models.Range(**bounds))

    def dates(self, path: str, bounds: Mapping[str, datetime]) -> models.FieldCondition:
        """A date within bounds."""
        return models.FieldCondition(key=path, range=models.DatetimeRange(**bounds))

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> models.Filter:
        """Conditions as one."""
        return models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )
