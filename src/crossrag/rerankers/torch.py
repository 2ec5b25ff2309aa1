"""The progressive reranker in torch, for a GPU: the same folders, questions and exits as `progressive`.

What makes it fast there:

- pairs lie one behind the other without padding, in batches by tokens (`packed`);
- bfloat16, with heads in float32;
- all inputs of a batch in one transfer from pinned memory, and logits come back on their own: the program
  waits for the device where it must choose who may go on, and at the end;
- `score_all` tokenizes the next questions in a thread and always has one more group of batches on its way.

On the processor it is right and slower than int8 graphs: there it serves tests. Extra:
`pip install 'crossrag[training]'`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossrag.errors import ModelError
from crossrag.exported import read_weights
from crossrag.inference import ModelFolder
from crossrag.types import Relevance

from .many import Question, read_all
from .packed import PackedNetwork, lay_out
from .questions import Questions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.types import Scores

    from .reading import Reading, Window

_GPU_TOKENS, _CPU_TOKENS = 65_536, 4_096
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_MOST_ON_THEIR_WAY = 2
"""Batches that a question with a deadline has on the device: what was begun cannot be called back."""


class TorchReranker:
    """Reads as `ProgressiveReranker` does, on what torch runs on.

    Args:
        directory: A folder that `crossrag train` made, or the bundled one.
        threads: Threads of torch on the processor; 0 leaves its own choice.
        device: `cpu`, `cuda` or `cuda:1`; None takes a GPU where there is one.
        precision: `bf16`, `fp32`, or `auto`: bf16 on a GPU that has it.
        compiled: Whether torch compiles the network; the first batches wait for it.
        batch_tokens: Most tokens of a batch; None takes what suits the device.

    Raises:
        ModelError: The folder is damaged or of another kind, or there is no such device.
    """

    residual = True
    """Corrects what a first stage says; see `Reranker`."""

    def __init__(
        self,
        directory: Path | str,
        *,
        threads: int = 0,
        device: str | None = None,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        compiled: bool = False,
        batch_tokens: int | None = None,
    ) -> None:
        self._folder = ModelFolder(Path(directory).expanduser(), ("model.onnx",))
        self._questions = Questions(self._folder)
        self._device = _device(device)
        if threads:
            torch.set_num_threads(threads)
        on_gpu = self._device.type == "cuda"
        if precision == "auto":
            precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
        self.batch_tokens = batch_tokens or (_GPU_TOKENS if on_gpu else _CPU_TOKENS)
        """Most tokens of a batch."""
        digest = self._folder.fingerprint  # verifies the files before anything is made of them
        self.fingerprint = f"torch-{precision}:{digest}"
        weights, config = read_weights(self._folder.directory)
        self._network = PackedNetwork(
            weights, config, device=self._device, dtype=_PRECISIONS[precision], compiled=compiled
        )

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As `ProgressiveReranker.score`. In bf16 a score may differ in its last digits in other company."""
        if not texts:
            return Relevance.of_nothing()
        reading = self.begin(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)
        on_their_way: deque[_Said] = deque()
        while not reading.done:
            for batch in reading.batches:
                if deadline is not None:
                    if len(on_their_way) == _MOST_ON_THEIR_WAY:
                        on_their_way.popleft().wait()
                    if time.monotonic() >= deadline:
                        reading.stop()
                        return reading.result()
                on_their_way.append(self._read(batch))
            reading.settle()
        return reading.result()

    def score_all(self, questions: Iterable[Question], *, top_k: int | None = None) -> Iterator[Relevance]:
        """Many questions, in their order: batches are filled across them, and the device does not wait.

        Args:
            questions: Drawn from as they are needed.
            top_k: As of `score`.
        """
        yield from read_all(
            questions,
            begin=lambda asked: self.begin(
                asked.query, asked.texts, first_stage=asked.first_stage, top_k=top_k
            ),
            read=self.read_in_batches,
            # In this, batches are nearly full, and early exits leave enough for another one.
            tokens=2 * self.batch_tokens,
        )

    def begin(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Reading:
        """Begin to read, for whoever runs the batches of several questions; there must be a text."""
        return self._questions.begin(
            query,
            texts,
            first_stage=first_stage,
            top_k=top_k,
            batched=self._batches,
            deadline=deadline,
        )

    def run(self, windows: Sequence[Window]) -> None:
        """Read windows up to their next exit, which must be the same; of which questions does not matter.

        Their logits are there once `Window.pending` was called.
        """
        self._read(windows)

    def read_in_batches(self, windows: Sequence[Window]) -> None:
        """As `run`, however many there are."""
        for batch in self._batches([window.length for window in windows]):
            self._read([windows[position] for position in batch])

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions grouped by like length, at most `batch_tokens` tokens each; a longer one is alone."""
        # Within blocks, so that a deadline costs the last texts and not the longest ones.
        block, before = 8 * self.batch_tokens, 0
        keys = []
        for length in lengths:
            keys.append((before // block, length))
            before += length
        batch: list[int] = []
        held = 0
        for position in sorted(range(len(lengths)), key=keys.__getitem__):
            if batch and held + lengths[position] > self.batch_tokens:
                yield batch
                batch, held = [], 0
            batch.append(position)
            held += lengths[position]
        if batch:
            yield batch

    def _read(self, windows: Sequence[Window]) -> _Said:
        number = len(windows[0].logits)
        sources = _by_source(windows) if number else []
        if sources:
            windows = [window for _, members in sources for window in members]
        lengths = [window.length for window in windows]
        of_question = [
            window.states.of_question if number else _of_question(window.encoding.type_ids)
            for window in windows
        ]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        if number:
            places = [_places(members, tensor.shape[0]) for tensor, members in sources]
        else:
            places = [_ids(windows, int(starts[-1]))]
        starts_there, questions, *there = self._sent([starts, of_question, *places])
        with torch.inference_mode():
            pack = lay_out(starts_there, questions, lengths, of_question, rows=self._network.rows)
            if number:
                states = _gathered([tensor for tensor, _ in sources], there)
            else:
                states = self._network.embed(there[0], pack)
            corrections, after = self._network.read(number, states, pack)
        said = _Said(corrections, windows, number, self._questions.biases[number])
        last = number == len(self._network.exits) - 1
        for window, start, own in zip(windows, starts.tolist(), of_question, strict=False):
            window.states = None if last else _Held(after, start, own)
            window.logits.append(float("nan"))
            window.pending.append(said.fetch)
        return said

    def _sent(self, parts: Sequence[Any]) -> list[Tensor]:
        """Whole numbers to the device, int32, all in one transfer that nobody waits for."""
        arrays = [np.asarray(part, np.int32) for part in parts]
        host = torch.from_numpy(np.concatenate(arrays))
        if self._device.type == "cuda":
            host = host.pin_memory()
        there = host.to(self._device, non_blocking=True)
        return list(there.split([len(array) for array in arrays]))


class _Held(NamedTuple):
    """Where on the device the states of a window are."""

    tensor: Tensor
    start: int
    of_question: int


class _Said:
    """Corrections of one batch on their way back from the device."""

    def __init__(self, corrections: Tensor, windows: Sequence[Window], number: int, bias: float) -> None:
        self._windows, self._number, self._bias = windows, number, bias
        self._event: Any = None
        self._values = corrections
        if corrections.is_cuda:
            self._values = torch.empty(corrections.shape, dtype=torch.float32, pin_memory=True)
            self._values.copy_(corrections, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(corrections.device))

    def wait(self) -> None:
        """Until the device has read them."""
        if self._event is not None:
            self._event.synchronize()

    def fetch(self) -> None:
        """Put the logits into the windows; once is enough for all of them."""
        if self._windows:
            self.wait()
            for window, correction in zip(self._windows, self._values.tolist(), strict=True):
                window.logits[self._number] = window.share + self._bias + correction
            self._windows = ()


def _device(wanted: str | None) -> torch.device:
    """What torch calls it.

    Raises:
        ModelError: A GPU is wanted that is not there.
    """
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ModelError(
            f"{wanted} is wanted, and torch sees {count or 'no'} GPU{'s' if count > 1 else ''} here",
            hint="Install a build of torch for CUDA and its driver, or set device to cpu",
        )
    return device


def _of_question(types: Sequence[int]) -> int:
    """How many tokens come before those of the passage."""
    return types.index(1) if 1 in types else len(types)


def _ids(windows: Sequence[Window], total: int) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(window.encoding.ids for window in windows), np.int32, total)


def _by_source(windows: Sequence[Window]) -> list[tuple[Tensor, list[Window]]]:
    """Windows by the tensor that holds their states, in order of appearance, and by place within."""
    sources: dict[int, tuple[Tensor, list[Window]]] = {}
    for window in windows:
        sources.setdefault(id(window.states.tensor), (window.states.tensor, []))[1].append(window)
    for _, members in sources.values():
        members.sort(key=lambda window: window.states.start)
    return list(sources.values())


def _places(windows: Sequence[Window], whole: int) -> NDArray[np.int32]:
    """Of all their tokens in the tensor that holds them; none where that is the whole tensor."""
    lengths = np.asarray([window.length for window in windows])
    total = int(lengths.sum())
    if total == whole:
        return np.empty(0, np.int32)
    starts = np.asarray([window.states.start for window in windows])
    before = np.cumsum(lengths) - lengths
    return (np.repeat(starts - before, lengths) + np.arange(total)).astype(np.int32)


def _gathered(tensors: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    parts = [
        tensor.index_select(0, wanted) if len(wanted) else tensor
        for tensor, wanted in zip(tensors, places, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
