"""The index of one tenant in a store that another index has open: an embedded one opens once a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from crossrag.index import Index

if TYPE_CHECKING:
    from crossrag.protocols import Store


class _Divisible(Protocol):
    def for_tenant(self, tenant: str) -> Store: ...


class TenantIndex(Index):
    """As `Index`, for another tenant of the same folder or server; closing it leaves the store open.

    Args:
        whole: The index that holds the store.
        tenant: Whose documents are read and written.
    """

    def __init__(self, whole: Index, tenant: str) -> None:
        section = whole.settings.index.model_copy(update={"tenant": tenant})
        super().__init__(
            whole.settings.model_copy(update={"index": section}),
            embedder=whole._embedder,  # noqa: SLF001 - of the same class
            sparse_encoder=whole._sparse_encoder,  # noqa: SLF001
        )
        self._whole = whole
        # Writers of one store take turns, whoever's documents they write.
        self._writing = whole._writing  # noqa: SLF001
        self._gate = whole._gate  # noqa: SLF001

    def _assembled(self, *, create: bool, replace: bool = False) -> Store:  # noqa: ARG002 - never replaces
        store = self._whole._opened(create=create)  # noqa: SLF001
        return cast("_Divisible", store).for_tenant(self.settings.index.tenant)

    def _close(self) -> None:
        with self._opening:
            self._store = None  # its owner closes it
        super()._close()
