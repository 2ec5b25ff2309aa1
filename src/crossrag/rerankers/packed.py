"""The progressive cross-encoder in torch, for reading alone: pairs lie one behind the other, without padding.

Products and norms see one long row of tokens, whatever pairs they belong to. Attention stays within each
pair: on a GPU by `torch.nn.attention.varlen`, which takes the places where pairs begin; elsewhere each pair
is laid into a row of its own for the attention alone. Nothing here waits for the device.

Weights are those of `training.network` by the same names; a test holds the two together.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from crossrag.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAR = 1e4
"""Further below every similarity than any of them is."""


class Pack(NamedTuple):
    """Where n pairs of t tokens in all lie in the long row; all on the device."""

    starts: Tensor
    """int32[n + 1]: where each pair begins, and t."""
    positions: Tensor
    """int64[t]: of each token within its pair."""
    types: Tensor
    """int64[t]: 0 in the question, 1 in the passage."""
    question: Tensor
    """int64[n, q]: places of the question's tokens, `[CLS]` and `[SEP]` too; then others of the pair."""
    in_question: Tensor
    """float32[n, q]: 1 where there is one."""
    passage: Tensor
    """int64[n, p]: the same of the passage."""
    in_passage: Tensor
    """float32[n, p]: the same of the passage."""
    rows: Tensor | None
    """int64[n, longest]: places of all tokens, each pair a row; None where the attention needs none."""
    in_rows: Tensor | None
    """bool[n, 1, 1, longest]: where there is one; None where all are of one length."""
    back: Tensor | None
    """int64[t]: places of the tokens in these rows, flattened."""
    longest: int


def lay_out(
    starts: Tensor, questions: Tensor, lengths: Sequence[int], of_question: Sequence[int], *, rows: bool
) -> Pack:
    """Work out a `Pack` on the device.

    Args:
        starts: int32[n + 1].
        questions: int32[n]: tokens of each question.
        lengths: Of the pairs, as the host knows them, so that nobody has to ask the device.
        of_question: The same of the questions.
        rows: Whether the attention needs the pairs in rows.
    """
    count, total, longest = len(lengths), sum(lengths), max(lengths)
    most_question = max(of_question)
    most_passage = max(1, *(whole - own for whole, own in zip(lengths, of_question, strict=True)))
    device = starts.device
    begins, ends, own = starts[:-1].long(), starts[1:].long(), questions.long()
    whole = starts.diff().long()
    pair = torch.repeat_interleave(torch.arange(count, device=device), whole, output_size=total)
    positions = torch.arange(total, device=device) - begins[pair]

    def places(first: Tensor, tokens: Tensor, most: int) -> tuple[Tensor, Tensor]:
        # What is too much stays within the pair: not even a NaN may come from another one.
        steps = torch.arange(most, device=device)
        inside = steps < tokens.unsqueeze(1)
        return (first.unsqueeze(1) + steps).minimum(ends.unsqueeze(1) - 1), inside

    question, in_question = places(begins, own, most_question)
    passage, in_passage = places(begins + own, whole - own, most_passage)
    laid, inside = places(begins, whole, longest) if rows else (None, None)
    return Pack(
        starts,
        positions,
        (positions >= own[pair]).long(),
        question,
        in_question.float(),
        passage,
        in_passage.float(),
        laid,
        inside[:, None, None] if inside is not None and min(lengths) < longest else None,
        pair * longest + positions if rows else None,
        longest,
    )


class PackedNetwork:
    """Layers and heads; a head after every exit.

    Args:
        weights: By torch's names, as `exported.read_weights` gives them.
        config: What `config.json` says of the network: `bert` and `exits`.
        device: Where it runs.
        dtype: Of states and weights; the heads are float32.
        compiled: Whether torch compiles it, once for all lengths.

    Raises:
        ModelError: A weight is missing.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[np.float32]],
        config: Mapping[str, Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool = False,
    ) -> None:
        self._weights, self._device, self._dtype = weights, device, dtype
        self.exits: tuple[int, ...] = tuple(config["exits"])
        self._attention_heads = int(config["bert"]["num_attention_heads"])
        self._epsilon = float(config["bert"]["layer_norm_eps"])
        self.width = int(config["bert"]["hidden_size"])
        try:
            self._embeddings = self._taken_embeddings()
            self._layers = [self._layer_weights(number) for number in range(self.exits[-1])]
            self._heads = [self._head_weights(number) for number in range(len(self.exits))]
        except KeyError as error:
            raise ModelError(f"The exported model lacks {error}", hint="Export or copy it again") from None
        self._weights = {}
        head_width = self.width // self._attention_heads
        self.rows = not _has_varlen(device, dtype, head_width)
        """Whether the attention needs pairs in rows; see `lay_out`."""
        self._run = torch.compile(self._segment, dynamic=True, fullgraph=True) if compiled else self._segment

    def embed(self, ids: Tensor, pack: Pack) -> Tensor:
        """int[t] to the states before the first layer, [t, d]."""
        words, types, positions, norm = self._embeddings
        embedded = words[ids] + types[pack.types] + positions[pack.positions]
        return self._norm(embedded, norm)

    def read(self, number: int, states: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """States [t, d] before the layers of an exit to corrections float32[n] and states after them."""
        corrections, after = self._run(number, states, pack)
        return corrections, after

    def _segment(self, number: int, states: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        first = self.exits[number - 1] if number else 0
        for layer in self._layers[first : self.exits[number]]:
            states = self._layer(layer, states, pack)
        return self._head(self._heads[number], states, pack), states

    def _layer(self, layer: Mapping[str, Any], states: Tensor, pack: Pack) -> Tensor:
        total = states.shape[0]
        together = F.linear(states, *layer["together"]).view(total, 3, self._attention_heads, -1)
        query, key, value = together.unbind(1)
        attended = self._attention(query, key, value, pack).reshape(total, self.width)
        middle = self._norm(F.linear(attended, *layer["projected"]) + states, layer["middle"])
        wide = F.gelu(F.linear(middle, *layer["wide"]))
        return self._norm(F.linear(wide, *layer["narrow"]) + middle, layer["last"])

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, pack: Pack) -> Tensor:
        """[t, h, d / h] each to the same."""
        if pack.rows is None or pack.back is None:
            return _varlen()(query, key, value, pack.starts, pack.starts, pack.longest, pack.longest)
        query, key, value = (part[pack.rows].transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=pack.in_rows)
        return attended.transpose(1, 2).flatten(0, 1)[pack.back]

    def _head(self, head: Mapping[str, Any], states: Tensor, pack: Pack) -> Tensor:
        """See `training.network.Head`; the best match is only looked for from the question's side."""
        states = states.float()
        question, passage = states[pack.question], states[pack.passage]
        of_question = F.normalize(_mean(question, pack.in_question), dim=1)
        of_passage = F.normalize(_mean(passage, pack.in_passage), dim=1)
        words = F.normalize(question, dim=2)
        similarity = words @ F.normalize(passage, dim=2).transpose(1, 2)
        best = (similarity + (pack.in_passage.unsqueeze(1) - 1.0) * _FAR).amax(2)
        importance = F.linear(question, *head["importance"]).squeeze(2)
        shares = torch.softmax(importance + (pack.in_question - 1.0) * _FAR, dim=1)
        root = self.width**0.5
        meeting, apart = of_question * of_passage, (of_question - of_passage).abs()
        views = torch.cat([meeting * root * root, apart * root, words[:, 0] * root], dim=1)
        learned = F.linear(F.gelu(F.linear(views, *head["inner"])), *head["outer"]).squeeze(1)
        matched = (shares * best).sum(1)
        return head["mean_weight"] * meeting.sum(1) + head["match_weight"] * matched + learned

    def _norm(self, values: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(values, (self.width,), *norm, self._epsilon)

    # --- weights

    def _taken(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.array(self._weights[name])).to(self._device, dtype or self._dtype)

    def _pair(self, prefix: str, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        return self._taken(f"{prefix}.weight", dtype), self._taken(f"{prefix}.bias", dtype)

    def _taken_embeddings(self) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        words, types, positions = (
            self._taken(f"bert.embeddings.{name}_embeddings.weight")
            for name in ("word", "token_type", "position")
        )
        return words, types, positions, self._pair("bert.embeddings.LayerNorm")

    def _layer_weights(self, number: int) -> dict[str, tuple[Tensor, Tensor]]:
        prefix = f"bert.encoder.layer.{number}"
        parts = [self._pair(f"{prefix}.attention.self.{part}") for part in ("query", "key", "value")]
        weights, biases = zip(*parts, strict=True)
        return {
            "together": (torch.cat(weights), torch.cat(biases)),
            "projected": self._pair(f"{prefix}.attention.output.dense"),
            "middle": self._pair(f"{prefix}.attention.output.LayerNorm"),
            "wide": self._pair(f"{prefix}.intermediate.dense"),
            "narrow": self._pair(f"{prefix}.output.dense"),
            "last": self._pair(f"{prefix}.output.LayerNorm"),
        }

    def _head_weights(self, number: int) -> dict[str, Any]:
        prefix = f"heads.{number}"
        linear = {
            name: self._pair(f"{prefix}.{name}", torch.float32) for name in ("importance", "inner", "outer")
        }
        numbers = {
            name: self._taken(f"{prefix}.{name}", torch.float32) for name in ("mean_weight", "match_weight")
        }
        return {**linear, **numbers}


def _mean(states: Tensor, inside: Tensor) -> Tensor:
    return (states * inside.unsqueeze(2)).sum(1) / inside.sum(1, keepdim=True).clamp(min=1.0)


def _has_varlen(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Flash attention by places: from torch 2.10 on, from Ampere on, in half precision."""
    if device.type != "cuda" or dtype not in {torch.bfloat16, torch.float16} or head_width % 8:
        return False
    try:
        _varlen()
    except ImportError:
        return False
    major: int = torch.cuda.get_device_capability(device)[0]
    return major >= 8


@cache
def _varlen() -> Any:
    from torch.nn.attention.varlen import varlen_attn

    # With one split, what a pair gets does not depend on how long the others are.
    if "num_splits" in inspect.signature(varlen_attn).parameters:
        return partial(varlen_attn, num_splits=1)
    return varlen_attn
