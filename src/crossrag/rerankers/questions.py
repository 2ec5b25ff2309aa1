"""How a progressive model reads a question: cut, in windows, with the share of the first stage.

Knows no network: whoever runs one begins with this, so that every backend reads the same tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crossrag.blocks import TOKENIZED, in_blocks, is_over
from crossrag.calibration import Calibration
from crossrag.errors import ModelError
from crossrag.inference import beginning, counted_by, cut_question
from crossrag.residual import first_stage_share

from .reading import Reading, Rules, Window

if TYPE_CHECKING:
    from tokenizers import Encoding

    from crossrag.inference import ModelFolder
    from crossrag.types import Scores

_MOST_WINDOWS = 16


class Questions:
    """Question and texts -> a `Reading` of pairs `[CLS] question [SEP] passage [SEP]`.

    Args:
        folder: Of a progressive model; see `progressive` for what its `config.json` says.

    Raises:
        ModelError: The folder is damaged or holds another kind of model.
    """

    def __init__(self, folder: ModelFolder) -> None:
        if folder.config.get("kind") != "progressive":
            raise ModelError(
                f"{folder.directory} is no progressive reranker",
                hint=f"For other cross-encoders write onnx:{folder.directory}",
            )
        try:
            self._configure(folder.config)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder.directory / 'config.json'} is incomplete: {error!r}",
                hint="Copy or train the model again",
            ) from None
        self._folder = folder
        # Truncation is a state of the tokenizer: two threads must not set it at once.
        self._tokenizing = threading.Lock()

    def _configure(self, config: Mapping[str, Any]) -> None:
        self._rules = Rules(
            exits=tuple(int(exit_) for exit_ in config["exits"]),
            margins=(*map(float, config["margins"]), 0.0),
            forecasts=tuple((float(slope), float(intercept)) for slope, intercept in config["forecasts"]),
            calibration=Calibration(**config["calibration"]),
            wanted=int(config.get("wanted", 10)),
        )
        self._rules_alone = replace(self._rules, calibration=Calibration(**config["alone"]))
        self._max_tokens = int(config["max_tokens"])
        self._max_query_tokens = int(config["max_query_tokens"])
        self._weights: Mapping[str, Any] = config["first_stage"]
        self.biases = tuple(map(float, config["biases"]))
        """What is added to the network's own logit at each exit."""

    def begin(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None,
        top_k: int | None,
        batched: Callable[[Sequence[int]], Iterator[list[int]]],
        deadline: float | None = None,
    ) -> Reading:
        """Begin to read; there must be a text.

        Args:
            query: The question.
            texts: Longer ones are read in windows.
            first_stage: One per text; None where the network's own logit is what counts.
            top_k: How many of the best matter.
            batched: Lengths to positions of windows that are read together.
            deadline: `time.monotonic()` value; where it passes before all is prepared, nothing is read.

        Raises:
            ModelError: There are not as many first-stage scores as texts.
        """
        shares = self._shares(query, first_stage, len(texts))
        windows, truncated, query_truncated = self._windows(query, texts, deadline)
        for window in windows:
            window.share = shares[window.text]
        reading = Reading(
            windows,
            len(texts),
            self._rules if first_stage is not None else self._rules_alone,
            top_k=top_k,
            batched=batched,
            truncated=truncated + [False] * (len(texts) - len(truncated)),
            query_truncated=query_truncated,
        )
        if len(truncated) < len(texts):
            reading.stop()
        return reading

    def _shares(self, query: str, first_stage: Sequence[Scores] | None, count: int) -> list[float]:
        if first_stage is None:
            return [0.0] * count
        if len(first_stage) != count:
            raise ModelError(
                f"Got first-stage scores for {len(first_stage)} of {count} texts",
                hint="Pass one Scores per text, or first_stage=None",
            )
        return first_stage_share(self._weights, query, first_stage)

    def _windows(
        self, query: str, texts: Sequence[str], deadline: float | None
    ) -> tuple[list[Window], list[bool], bool]:
        """Pairs in which the question is kept; of a long passage several, overlapping by a quarter.

        Only of the first texts where the deadline passes meanwhile.
        """
        windows: list[Window] = []
        truncated: list[bool] = []
        if is_over(deadline):
            return windows, truncated, False
        with self._tokenizing:
            query, count = cut_question(self._folder.tokenizer, query, self._max_query_tokens)
        room = self._max_tokens - min(count, self._max_query_tokens) - 3
        for block in in_blocks(texts, TOKENIZED):
            encodings = self._encoded(query, block, room, deadline)
            # What took too long to prepare may also be only the beginning of what was to be read.
            if is_over(deadline):
                break
            for encoding in encodings:
                number, more = len(truncated), encoding.overflowing
                truncated.append(len(more) >= _MOST_WINDOWS)
                if more:
                    windows += [_part(number, part) for part in [encoding, *more][:_MOST_WINDOWS]]
                else:
                    windows.append(Window(number, encoding))
        return windows, truncated, count > self._max_query_tokens

    def _encoded(self, query: str, texts: Sequence[str], room: int, deadline: float | None) -> list[Encoding]:
        """Pairs; nothing is lost of a text but what no window would hold."""
        with self._tokenizing:
            tokenizer = self._folder.tokenizer
            count = counted_by(tokenizer)
            parts = [beginning(text, _MOST_WINDOWS * room, count, deadline=deadline) for text in texts]
            tokenizer.enable_truncation(self._max_tokens, stride=room // 4, strategy="only_second")
            encodings: list[Encoding] = tokenizer.encode_batch([(query, part) for part in parts])
            tokenizer.no_truncation()
        return encodings


def _part(text: int, encoding: Encoding) -> Window:
    spans = [span for span, kind in zip(encoding.offsets, encoding.sequence_ids, strict=True) if kind == 1]
    start, end = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    return Window(text, encoding, start=start, end=end)
