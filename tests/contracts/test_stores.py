"""Every store keeps the contract; the exact one is the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crossrag.stores.edge import EdgeStore
from crossrag.testing import MemoryStore, StoreContract

FINGERPRINT = {"embedder": "hashed", "chunking": "test"}


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestEdgeStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[EdgeStore]:
        with closing(EdgeStore(tmp_path, dimension=256, fingerprint=FINGERPRINT, create=True)) as store:
            yield store
