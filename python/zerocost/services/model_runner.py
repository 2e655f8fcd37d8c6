"""Passes of a model over sequences, in packed batches, on the artifacts in use."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact
from zerocost.core.arrays import is_finite
from zerocost.errors import DeadlineExceeded, InvalidInput, InvalidModel
from zerocost.models.encoder import mean_of_sequences
from zerocost.models.layers import VERSION, Awake
from zerocost.models.model import Model
from zerocost.models.packing import Packed
from zerocost.services.active import Active, deadline_now, own_key, recall, remember
from zerocost.services.attending import attention_of
from zerocost.services.fingerprint import Fingerprints
from zerocost.services.splitting import run_in_stages, sharded

logger = logging.getLogger("zerocost.services")

__all__ = ["BATCH_TOKENS", "Passes", "SequenceResult", "Sequences", "awake_for"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Sequences = list[tuple[Ints, Ints]]
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
        self._fingerprints = Fingerprints()
        self._warned = False

    def run(
        self, sequences: Sequences, active: Mapping[str, Active], *, output_attentions: bool = False
    ) -> tuple[list[SequenceResult], dict[str, float], dict[str, int]]:
        """The result of each sequence, the timings and the usage; see :class:`~zerocost.ModelOutput`.

        Raises:
            DeadlineExceeded: the deadline passed that holds here; it is looked at before every packed batch.
        """
        _check_deadline()
        start = time.perf_counter()
        timings = {"seconds": 0.0, "attention_seconds": 0.0}
        usage = {"tokens": sum(len(ids) for ids, _ in sequences), "remembered": 0}
        memory = None if output_attentions else active.get("memory")
        keys: list[Hashable] = []
        results: list[SequenceResult | None] = [None] * len(sequences)
        prefix = None if memory is None else self._prefix(active)
        if memory is not None and prefix is not None:
            keys = [_key(prefix, sequence) for sequence in sequences]
            for index, key in enumerate(keys):
                stored = recall(memory, key)
                if stored is not None:
                    results[index] = self._recalled(memory, stored, len(sequences[index][0]))
                    usage["remembered"] += 1
        missing = [index for index, result in enumerate(results) if result is None]
        for chunk in _chunks(missing, sequences):
            _check_deadline()
            packed = Packed.of([sequences[index] for index in chunk])
            with awake_for(active):
                forwarded = self._forward(packed, active, timings, output_attentions=output_attentions)
            # What an artifact gave while its attributes changed has no key.
            has_key = memory is not None and prefix is not None and self._prefix(active) == prefix
            for place, result in forwarded:
                index = chunk[place]
                results[index] = result
                if memory is not None and has_key:
                    row = np.concatenate([result.states, result.pooled[None]])
                    row.flags.writeable = False
                    if is_finite(row):
                        remember(memory, keys[index], row)
        timings["seconds"] = time.perf_counter() - start
        return [result for result in results if result is not None], timings, usage

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
            encoder.run(packed, hidden, attention, sharded(parallel))
        else:
            run_in_stages(parallel, encoder, packed, hidden, attention)
        timings["attention_seconds"] += sum(hidden.attention_seconds)
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

    def _recalled(self, memory: Active, stored: Any, tokens: int) -> SequenceResult:
        """What a memory artifact had: the states of a sequence, and below them its pooled vector."""
        shape = (tokens + 1, self._model.encoder.architecture.width)
        fits = isinstance(stored, np.ndarray) and stored.dtype == np.float32 and stored.shape == shape
        if not fits or not is_finite(stored):
            raise InvalidInput(
                f"artifact {memory.spec.name!r} remembered something else than the finite float32 {list(shape)} that "
                "was put"
            )
        return SequenceResult(stored[:-1], stored[-1])

    def _prefix(self, active: Mapping[str, Active]) -> bytes | None:
        """What the keys of all sequences begin with; None where an active artifact, or the model, has none."""
        parts = [self._fingerprints.of(active[name]) for name in ("attention", "parallel") if name in active]
        if None in parts:
            return None
        try:
            identity = self._model.identity
        except InvalidModel as error:
            if not self._warned:
                self._warned = True
                logger.warning("results are not remembered any more: %s", error)
            return None
        return f"{VERSION} {identity} {parts}".encode()


def awake_for(active: Mapping[str, Active]) -> AbstractContextManager[None]:
    """Keeps the kernels' threads awake during a pass, unless somebody else computes in it.

    A stranger's artifact has threads of its own (NumPy's products have), and so have the processes of an executor; they
    would share the cores with threads that only wait.
    """
    ours = all(_computes_here(active[name]) for name in ("attention", "parallel") if name in active)
    return Awake() if ours else nullcontext()


def _computes_here(active: Active) -> bool:
    artifact = active.spec.implementation
    shards_elsewhere = isinstance(artifact, TensorParallelArtifact) and artifact.executor is not None
    return active.is_built_in and not shards_elsewhere


def _check_deadline() -> None:
    deadline = deadline_now()
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceeded("the deadline passed before the model was through with the request")


def _key(prefix: bytes, sequence: tuple[Ints, Ints]) -> Hashable:
    ids, positions = sequence
    return own_key("forward", prefix, ids.tobytes(), positions.tobytes())


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
