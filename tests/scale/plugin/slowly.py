"""An installed plug-in: an embedder that takes its time, says where it ran, and dies when it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.scale import ingest_work
from crossrag.testing import HashedEmbedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.scale.ingest_rows import Row
    from crossrag.scale.ingest_work import Order


def noted(row: Row, order: Order) -> Row:
    """As the engine's `read`; leaves a file `NUMBER.read` with how many calls the embedder had had."""
    made = ingest_work.read(row, order)
    folder = Path(order.read().embedder.model.partition(":")[2])
    calls = len(list(folder.glob("*-*")))
    (folder / f"{row['number']}.read").write_text(str(calls), encoding="utf-8")
    return made


class SlowEmbedder(HashedEmbedder):
    """`slowly:FOLDER`. Each call leaves a file `PID-TIME` there; a file `die` kills the next caller, once.

    A file `seconds` says how long each takes.
    """

    def __init__(self, model: str, *, threads: int = 0) -> None:
        super().__init__()
        self._folder = Path(model)
        self.threads = threads

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As ever, later."""
        (self._folder / f"{os.getpid()}-{time.monotonic_ns()}").write_text(str(len(texts)), encoding="utf-8")
        die = self._folder / "die"
        if die.exists():
            die.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        seconds = self._folder / "seconds"
        time.sleep(float(seconds.read_text(encoding="utf-8")) if seconds.exists() else 0.05)
        return super().embed_documents(texts)
