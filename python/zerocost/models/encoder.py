"""A transformer encoder of the BERT family (Devlin et al. 2018, arXiv:1810.04805) over packed batches, float32.

The embedding tables stay views of the mapped file. The matrices of the layers are laid out for the kernels once, with
query, key and value side by side: with few tokens a forward pass takes as long as reading them, so they must be read
from front to back.

Linear layers run over all tokens of the batch at once; attention runs for each sequence.
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
from zerocost.models.packing import Bucket, Packed

__all__ = ["Attention", "Encoder", "Hidden", "Linear", "Projection", "WeightSource"]

Floats = npt.NDArray[np.float32]


class WeightSource(Protocol):
    """The source of weights: a checkpoint, or a generator."""

    def tensor(self, name: str, shape: tuple[int, ...], *, is_table: bool = False) -> Floats:
        """The tensor ``name`` of that shape. Single rows of a table are read later; other tensors are read whole."""

    def __contains__(self, name: str) -> bool: ...

    def release(self) -> None:
        """Tells that all tensors so far have been read, so their pages may be released."""


class Linear:
    """A linear layer, or several layers of the same input side by side.

    Args:
        where: the names of the layers, for messages.
        load: returns the layers' weights ``[d_out, d_in]`` and biases ``[d_out]``, as they are in the file.
    """

    def __init__(self, where: str, load: Callable[[], list[tuple[Floats, Floats]]]) -> None:
        self.where = where
        self._load = load
        loaded = load()
        self.bias = np.concatenate([bias for _, bias in loaded])
        self._kernel = layers.Linear(np.concatenate([weight for weight, _ in loaded]).T, self.bias)

    @cached_property
    def weight(self) -> Floats:
        """``[d_in, d_out]``, for artifacts that multiply. It is made on first use.

        Its memory is ``bytes``, which nobody can change, so an executor sends it once and not with every call.
        """
        joined = np.concatenate([weight for weight, _ in self._load()]).T
        return np.ndarray(joined.shape, np.float32, buffer=joined.tobytes())

    def __call__(self, tensor: Floats, activation: str, out: Floats) -> None:
        """Writes ``activation(tensor @ weight + bias)``."""
        self._kernel(tensor, activation, out=out)


@dataclass(frozen=True)
class Norm:
    """A layer norm: ``weight`` and ``bias``, both ``[width]``."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Layer:
    """The weights of one layer, in the order of their use."""

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
width]``; ``first`` is the index of the first of these packed sequences."""


def plain_projection(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
    """The projection of the kernels."""
    linear(tensor, activation, out)


@dataclass
class Hidden:
    """The state of a forward pass. Rows are the tokens of a packed batch.

    Attributes:
        states: ``[tokens, width]``; every layer overwrites it with its result.
        attention_seconds: the time of attention, one number for each layer and part of the batch. It is a list because
            stages add to it from several threads.
    """

    states: Floats
    attention_seconds: list[float] = field(default_factory=list)


class Encoder:
    """The weights of an encoder, and the forward pass.

    Args:
        architecture: the shapes.
        weights: the weights under Hugging Face's names, with or without the prefix of the family.

    Raises:
        InvalidModel: a tensor is missing, or has another shape or dtype.
    """

    def __init__(self, architecture: Architecture, weights: WeightSource) -> None:
        self.architecture = architecture
        width, inner = architecture.width, architecture.inner_width
        word = "embeddings.word_embeddings.weight"
        prefix = next((name for name in ("", "bert.", "roberta.") if name + word in weights), "")

        def load(name: str, *shape: int, is_table: bool = False) -> Floats:
            return weights.tensor(prefix + name, shape, is_table=is_table)

        def linear(layer: int, d_in: int, d_out: int, *names: str) -> Linear:
            at = f"encoder.layer.{layer}"
            return Linear(
                f"layer {layer} ({', '.join(names)})",
                lambda: [
                    (load(f"{at}.{name}.weight", d_out, d_in), load(f"{at}.{name}.bias", d_out)) for name in names
                ],
            )

        def norm(name: str) -> Norm:
            # Files that were converted from TensorFlow use its names of layer norms.
            is_old = f"{prefix}{name}.weight" not in weights and f"{prefix}{name}.gamma" in weights
            weight, bias = ("gamma", "beta") if is_old else ("weight", "bias")
            return Norm(load(f"{name}.{weight}", width).copy(), load(f"{name}.{bias}", width).copy())

        self._words = load(word, architecture.vocabulary, width, is_table=True)
        table = architecture.positions + (0 if architecture.padding is None else architecture.padding + 1)
        positions = load("embeddings.position_embeddings.weight", table, width)
        types = load("embeddings.token_type_embeddings.weight", architecture.types, width)
        # Every token has the first type.
        self._positions = positions + types[0]
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
            weights.release()

    def embed(self, packed: Packed) -> Hidden:
        """The states before the first layer: the sum of word, position and type, normalized."""
        words = self._words[packed.ids]
        norm = self._embedding_norm
        positions = self._positions[packed.positions]
        layer_norm(words, positions, norm.weight, norm.bias, self.architecture.epsilon, out=words)
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
        """Runs layers on the states.

        Args:
            packed: the batch of the states.
            hidden: the states; those of ``sequences`` are overwritten.
            attention: computes attention.
            project: computes linear layers.
            layers: the layers to run, all by default.
            sequences: the packed sequences to run them on, all by default.
        """
        layers = range(len(self._layers)) if layers is None else layers
        sequences = range(len(packed.order)) if sequences is None else sequences
        buckets = list(packed.buckets(sequences.start, sequences.stop))
        if not buckets:
            return
        first, last = buckets[0].start, buckets[-1].stop
        states = hidden.states[first:last]
        width, count = self.architecture.width, last - first
        mixed = np.empty((count, 3 * width), np.float32)
        attended = np.empty((count, width), np.float32)
        inner = np.empty((count, self.architecture.inner_width), np.float32)
        # The result of a block reuses the memory of the projections, which are no longer needed then.
        result = mixed.reshape(-1)[: count * width].reshape(count, width)
        heads = []
        for bucket in buckets:
            rows = slice(bucket.start - first, bucket.stop - first)
            query, key, value = self._heads(mixed[rows], bucket)
            (out,) = self._heads(attended[rows], bucket)
            heads.append((bucket.first, query, key, value, out))
        for index in layers:
            layer = self._layers[index]
            project(states, layer.projections, "none", mixed)
            start = time.perf_counter()
            for sequence, query, key, value, out in heads:
                attention(index, sequence, query, key, value, out)
            hidden.attention_seconds.append(time.perf_counter() - start)
            project(attended, layer.attended, "none", result)
            self._add_and_normalize(result, states, layer.attended_norm)
            project(states, layer.inner, self.architecture.activation, inner)
            project(inner, layer.outer, "none", result)
            self._add_and_normalize(result, states, layer.outer_norm)

    def _add_and_normalize(self, result: Floats, states: Floats, norm: Norm) -> None:
        layer_norm(result, states, norm.weight, norm.bias, self.architecture.epsilon, out=states)

    def _heads(self, rows: Floats, bucket: Bucket) -> Floats:
        """``[count * length, parts * width]``, contiguous, as a view ``[parts, count, heads, length, head width]``."""
        architecture = self.architecture
        width = architecture.width // architecture.heads
        return rows.reshape(bucket.count, bucket.length, -1, architecture.heads, width).transpose(2, 0, 3, 1, 4)
