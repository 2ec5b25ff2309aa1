"""An index that is no longer waited for when time is up. Knows nothing of what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .errors import StoreSlowError
from .timed import within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .index import Index
    from .types import Rankings, SparseVector, Where

Said = TypeVar("Said")


class PunctualIndex:
    """What a search asks of an index. Without its passages there is nothing, so no time is an error.

    Args:
        index: The index.
        until: `time.monotonic()` value at which it is given up; None for never.
        name: Which index that is.
    """

    def __init__(self, index: Index, until: float | None, *, name: str) -> None:
        self._index, self._until, self._name = index, until, name

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Index.search`.

        Raises:
            StoreError: The index cannot be read; StoreSlowError where that takes too long.
        """
        return self._asked(lambda: self._index.search(dense, sparse, limit=limit, where=where))

    def count(self) -> int:
        """As `Index.count`.

        Raises:
            StoreError: As for `search`.
        """
        return self._asked(self._index.count)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """As `Index.reading`.

        Raises:
            StoreSlowError: An exchange under way was not over in time.
        """
        with ExitStack() as stack:
            with _answering():
                stack.enter_context(self._index.reading(self._until))
            yield

    def _asked(self, work: Callable[[], Said]) -> Said:
        with _answering():
            return within(work, self._until, of=self._name)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise StoreSlowError(
            f"The index did not answer in time: {error}", hint="Allow more time by a longer deadline"
        ) from None
