"""Passes of a model over sequences, in packed batches, on the artifacts in use."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.layers import VERSION, Awake, activate
from zerocost.errors import ShapeError
from zerocost.services.active import Active, own_key, recall, remember
from zerocost.services.attending import attention_of
from zerocost.services.encoder import Hidden, Linear, Projection, mean_of_sequences
from zerocost.services.fingerprint import Fingerprints
from zerocost.services.model import Model
from zerocost.services.packing import Packed

__all__ = ["BATCH_TOKENS", "Passes", "SequenceResult", "Sequences"]

Floats = npt.NDArray[np.float32]
Sequences = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""The ids and the positions of each sequence."""

BATCH_TOKENS = 2048
"""Tokens that go through the layers at once: their states stay in the second and third level of cache."""


@dataclass
class SequenceResult:
    """One sequence: its states ``[n, width]``, its pooled vector, and its weights ``[heads, n, n]`` by layer."""

    states: Floats
    pooled: Floats
    weights: list[Floats] | None = None


class Passes:
    """Runs a model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.fingerprints = Fingerprints()

    def run(
        self, sequences: Sequences, active: Mapping[str, Active], *, output_attentions: bool = False
    ) -> tuple[list[SequenceResult], dict[str, float]]:
        """The result of each sequence, and the timings."""
        start = time.perf_counter()
        timings = {"seconds": 0.0, "attention_seconds": 0.0, "tokens": 0, "remembered": 0}
        timings["tokens"] = sum(len(ids) for ids, _ in sequences)
        memory = None if output_attentions else active.get("memory")
        keys: list[Hashable | None] = [None] * len(sequences)
        results: list[SequenceResult | None] = [None] * len(sequences)
        if memory is not None:
            keys = self._keys(sequences, active)
            for index, key in enumerate(keys):
                stored = None if key is None else recall(memory, key)
                if stored is not None:
                    results[index] = SequenceResult(stored[:-1], stored[-1])
                    timings["remembered"] += 1
        missing = [index for index, result in enumerate(results) if result is None]
        for chunk in _chunks(missing, sequences):
            packed = Packed.of([sequences[index] for index in chunk])
            with Awake():
                forwarded = self._forward(packed, active, timings, output_attentions=output_attentions)
            for place, result in forwarded:
                index = chunk[place]
                results[index] = result
                if memory is not None and keys[index] is not None:
                    row = np.concatenate([result.states, result.pooled[None]])
                    row.flags.writeable = False
                    remember(memory, keys[index], row)
        timings["seconds"] = time.perf_counter() - start
        return [result for result in results if result is not None], timings

    def _forward(
        self, packed: Packed, active: Mapping[str, Active], timings: dict[str, float], *, output_attentions: bool
    ) -> list[tuple[int, SequenceResult]]:
        encoder = self._model.encoder
        weights: dict[tuple[int, int], Floats] | None = {} if output_attentions else None
        attention = attention_of(active.get("attention"), weights)
        hidden = encoder.embed(packed)
        parallel = active.get("parallel")
        if parallel is None:
            encoder.run(packed, hidden, attention)
        elif "weight" in parallel.spec.ports.inputs:
            encoder.run(packed, hidden, attention, _sharded(parallel))
        else:
            self._staged(parallel, packed, hidden, attention)
        timings["attention_seconds"] += hidden.attention_seconds
        states, offsets = hidden.states, packed.offsets
        pooled = mean_of_sequences(packed, states) if self._model.pooling == "mean" else states[offsets[:-1]].copy()
        return [
            (
                int(place),
                SequenceResult(
                    states[offsets[row] : offsets[row + 1]],
                    pooled[row],
                    None if weights is None else [weights[layer, row] for layer in range(encoder.architecture.layers)],
                ),
            )
            for row, place in enumerate(packed.order)
        ]

    def _staged(self, parallel: Active, packed: Packed, hidden: Hidden, attention: Any) -> None:
        """The layers as stages, the sequences as what is cut into micro-batches. States are changed where they are."""
        encoder = self._model.encoder
        declared = parallel.spec.ports.inputs.get("num_stages", {})
        count = int(parallel.params.get("num_stages") or declared.get("default") or 1)
        cuts = [index * encoder.architecture.layers // count for index in range(count + 1)]

        def stage(layers: range) -> Any:
            def run(sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
                if len(sequences):
                    among = range(int(sequences[0]), int(sequences[-1]) + 1)
                    encoder.run(packed, hidden, attention, layers=layers, sequences=among)
                return sequences

            return run

        stages = [stage(range(first, last)) for first, last in itertools.pairwise(cuts)]
        parallel.call(np.arange(len(packed.order)), stages=stages)

    def _keys(self, sequences: Sequences, active: Mapping[str, Active]) -> list[Hashable | None]:
        """The key of each sequence in a memory artifact; None where an active artifact cannot stand in a key."""
        parts = [self.fingerprints.of(active[name]) for name in ("attention", "parallel") if name in active]
        if any(part is None for part in parts):
            return [None] * len(sequences)
        prefix = f"{VERSION} {self._model.identity} {parts}".encode()
        return [own_key("forward", prefix, ids.tobytes(), positions.tobytes()) for ids, positions in sequences]


def _sharded(parallel: Active) -> Projection:
    """The linear layers through a parallel artifact that takes a weight; bias and activation come after."""

    def project(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
        product = parallel.call(tensor, weight=linear.weight)
        if isinstance(product, list | tuple):  # shards that were left apart
            product = np.concatenate(product, axis=-1)
        if np.shape(product) != out.shape:
            raise ShapeError(
                f"artifact {parallel.spec.name!r} returned shape {list(np.shape(product))}, {list(out.shape)} is needed"
            )
        out[...] = product
        activate(out, linear.bias, activation)

    return project


def _chunks(indexes: list[int], sequences: Sequences) -> list[list[int]]:
    """The sequences in groups of at most :data:`BATCH_TOKENS` tokens (or one sequence), similar lengths together."""
    chunks: list[list[int]] = []
    room = 0
    for index in sorted(indexes, key=lambda index: len(sequences[index][0])):
        length = len(sequences[index][0])
        if length > room:
            chunks.append([])
            room = BATCH_TOKENS
        chunks[-1].append(index)
        room -= length
    return chunks
