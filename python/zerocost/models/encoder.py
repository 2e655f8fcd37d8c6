"""A transformer encoder of the BERT family (Devlin et al. 2018, arXiv:1810.04805) over packed batches, float32.

The embedding tables stay views of the mapped file. The matrices of the layers are laid out for the kernels once, query,
key and value side by side: with few tokens a forward pass takes as long as it takes to read them, so they must be read
from front to back.

All linear layers run over all tokens of the batch at once; attention runs for each sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zerocost.models import layers
from zerocost.models.architecture import Architecture
from zerocost.models.layers import layer_norm
from zerocost.models.packing import Packed, Run

__all__ = ["Attention", "Encoder", "Hidden", "Linear", "Projection", "Tensors"]

Floats = npt.NDArray[np.float32]


class Tensors(Protocol):
    """Where weights come from: a checkpoint, or a generator."""

    def tensor(self, name: str, shape: tuple[int, ...], *, is_table: bool = False) -> Floats:
        """The tensor ``name``, of that shape; of a table single rows are read, of anything else everything."""

    def __contains__(self, name: str) -> bool: ...

    def release(self) -> None:
        """Everything that was given so far has been read."""


class Linear:
    """A linear layer, or several that read the same tensor, side by side.

    Args:
        where: which layers these are, for messages.
        take: gives the layers' weights ``[d_out, d_in]`` and biases ``[d_out]``, as the file has them.
    """

    def __init__(self, where: str, take: Callable[[], list[tuple[Floats, Floats]]]) -> None:
        self.where = where
        self._take = take
        taken = take()
        self.bias = np.concatenate([bias for _, bias in taken])
        self._laid_out = layers.Linear(np.concatenate([weight for weight, _ in taken]).T, self.bias)

    @cached_property
    def weight(self) -> Floats:
        """``[d_in, d_out]``, for artifacts that multiply themselves. Laid out when it is first asked for.

        It stands in ``bytes``, which nobody can change: an executor sends it once and not at every call.
        """
        joined = np.concatenate([weight for weight, _ in self._take()]).T
        return np.ndarray(joined.shape, np.float32, buffer=joined.tobytes())

    def __call__(self, tensor: Floats, activation: str, out: Floats) -> None:
        """Writes ``activation(tensor @ weight + bias)``."""
        self._laid_out(tensor, activation, out=out)


@dataclass(frozen=True)
class Norm:
    """``weight`` and ``bias`` of a layer norm, both ``[width]``."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Layer:
    """The weights of one layer, in the order in which they are used."""

    projections: Linear
    attended: Linear
    attended_norm: Norm
    inner: Linear
    outer: Linear
    outer_norm: Norm


Projection = Callable[[Floats, Linear, str, Floats], object]
"""``(tensor, linear, activation, out)``: writes ``activation(tensor @ weight + bias)``."""

Attention = Callable[[int, int, Floats, Floats, Floats, Floats], object]
"""``(layer, first, query, key, value, out)``: writes attention to ``out``. The arrays are ``[count, heads, n, head
width]``; ``first`` is the first of these packed sequences."""


def plain_projection(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
    """The projection as the kernels do it."""
    linear(tensor, activation, out)


@dataclass
class Hidden:
    """What one pass through the layers works on. Rows are the tokens of a packed batch.

    Attributes:
        states: ``[tokens, width]``; every layer leaves its result here.
        attention_seconds: how long attention took, one number for each layer and part of the batch. A list, because
            stages add to it from several threads.
    """

    states: Floats
    attention_seconds: list[float] = field(default_factory=list)


class Encoder:
    """The weights of an encoder, and the pass through them.

    Args:
        architecture: the shapes.
        tensors: the weights, under Hugging Face's names, with or without the name of the family in front.

    Raises:
        InvalidModel: a tensor is missing, or has another shape or dtype.
    """

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        self.architecture = architecture
        width, inner = architecture.width, architecture.inner_width
        word = "embeddings.word_embeddings.weight"
        prefix = next((name for name in ("", "bert.", "roberta.") if name + word in tensors), "")

        def take(name: str, *shape: int, is_table: bool = False) -> Floats:
            return tensors.tensor(prefix + name, shape, is_table=is_table)

        def linear(layer: int, d_in: int, d_out: int, *names: str) -> Linear:
            at = f"encoder.layer.{layer}"
            return Linear(
                f"layer {layer} ({', '.join(names)})",
                lambda: [
                    (take(f"{at}.{name}.weight", d_out, d_in), take(f"{at}.{name}.bias", d_out)) for name in names
                ],
            )

        def norm(name: str) -> Norm:
            # Files that were converted from TensorFlow's have the names of its layer norms.
            is_old = f"{prefix}{name}.weight" not in tensors and f"{prefix}{name}.gamma" in tensors
            weight, bias = ("gamma", "beta") if is_old else ("weight", "bias")
            return Norm(take(f"{name}.{weight}", width).copy(), take(f"{name}.{bias}", width).copy())

        self._words = take(word, architecture.vocabulary, width, is_table=True)
        table = architecture.positions + (0 if architecture.padding is None else architecture.padding + 1)
        positions = take("embeddings.position_embeddings.weight", table, width)
        types = take("embeddings.token_type_embeddings.weight", architecture.types, width)
        # Every token is of the first type.
        self._places = positions + types[0]
        self._embedding_norm = norm("embeddings.LayerNorm")
        self._layers = []
        for index in range(architecture.layers):
            at = f"encoder.layer.{index}"
            names = [f"attention.self.{part}" for part in ("query", "key", "value")]
            self._layers.append(
                Layer(
                    projections=linear(index, width, width, *names),
                    attended=linear(index, width, width, "attention.output.dense"),
                    attended_norm=norm(f"{at}.attention.output.LayerNorm"),
                    inner=linear(index, width, inner, "intermediate.dense"),
                    outer=linear(index, inner, width, "output.dense"),
                    outer_norm=norm(f"{at}.output.LayerNorm"),
                )
            )
            tensors.release()

    def embed(self, packed: Packed) -> Hidden:
        """The states before the first layer: word, position and type, normalised."""
        words = self._words[packed.ids]
        norm = self._embedding_norm
        places = self._places[packed.positions]
        layer_norm(words, places, norm.weight, norm.bias, self.architecture.epsilon, out=words)
        return Hidden(words)

    def run(
        self,
        packed: Packed,
        hidden: Hidden,
        attention: Attention,
        project: Projection = plain_projection,
        *,
        layers: range | None = None,
        sequences: range | None = None,
    ) -> None:
        """Takes the states through layers.

        Args:
            packed: the batch that the states belong to.
            hidden: the states; those of the given sequences are overwritten.
            attention: what attends.
            project: what multiplies.
            layers: which layers, all of them by default.
            sequences: which of the packed sequences, all of them by default.
        """
        chosen = range(len(self._layers)) if layers is None else layers
        among = range(len(packed.order)) if sequences is None else sequences
        runs = list(packed.runs(among.start, among.stop))
        if not runs:
            return
        first, last = runs[0].start, runs[-1].stop
        states = hidden.states[first:last]
        width, count = self.architecture.width, last - first
        mixed = np.empty((count, 3 * width), np.float32)
        attended = np.empty((count, width), np.float32)
        inner = np.empty((count, self.architecture.inner_width), np.float32)
        # The projections are no longer needed when the result of a block is, so it takes their place.
        result = mixed.reshape(-1)[: count * width].reshape(count, width)
        heads = []
        for run in runs:
            rows = slice(run.start - first, run.stop - first)
            query, key, value = self._heads(mixed[rows], run)
            (out,) = self._heads(attended[rows], run)
            heads.append((run.first, query, key, value, out))
        for index in chosen:
            layer = self._layers[index]
            project(states, layer.projections, "none", mixed)
            start = time.perf_counter()
            for sequence, query, key, value, out in heads:
                attention(index, sequence, query, key, value, out)
            hidden.attention_seconds.append(time.perf_counter() - start)
            project(attended, layer.attended, "none", result)
            self._add(result, states, layer.attended_norm)
            project(states, layer.inner, self.architecture.activation, inner)
            project(inner, layer.outer, "none", result)
            self._add(result, states, layer.outer_norm)

    def _add(self, result: Floats, states: Floats, norm: Norm) -> None:
        layer_norm(result, states, norm.weight, norm.bias, self.architecture.epsilon, out=states)

    def _heads(self, rows: Floats, run: Run) -> Floats:
        """``[count * length, parts * width]``, contiguous, as a view ``[parts, count, heads, length, head width]``."""
        architecture = self.architecture
        width = architecture.width // architecture.heads
        return rows.reshape(run.count, run.length, -1, architecture.heads, width).transpose(2, 0, 3, 1, 4)
