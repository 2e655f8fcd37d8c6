"""Forward passes over sequences, in packed batches, on the active artifacts."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.arrays import is_finite
from zerocost.errors import DeadlineExceeded, InvalidInput, InvalidModel
from zerocost.models.layers import VERSION, Awake
from zerocost.models.model import Model
from zerocost.models.packing import Packed
from zerocost.models.pooling import pool
from zerocost.services import result_cache
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.attention import attention_function
from zerocost.services.fingerprint import Fingerprints
from zerocost.services.parallel_layers import run_in_stages, sharded_projection
from zerocost.services.request_context import current_deadline

logger = logging.getLogger("zerocost.services")

__all__ = ["PASS_TOKENS", "ModelRunner", "SequenceResult", "Sequences", "awake_threads", "group_by_tokens"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Sequences = list[tuple[Ints, Ints]]
"""The token ids and the positions of each sequence."""

PASS_TOKENS = 2048
"""Tokens that pass through the layers at once. Their states stay in the second and third level of cache."""


@dataclass
class SequenceResult:
    """One sequence: states ``[n, width]``, pooled vector ``[width]``, attention weights ``[heads, n, n]`` by layer."""

    states: Floats
    pooled: Floats
    weights: list[Floats] | None = None


class ModelRunner:
    """Runs a model on the active artifacts.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._fingerprints = Fingerprints()
        self._warned = False

    def run(
        self, sequences: Sequences, active: Mapping[str, ActiveArtifact], *, output_attentions: bool = False
    ) -> tuple[list[SequenceResult], dict[str, float], dict[str, int]]:
        """The result of each sequence, and timings and usage as in :class:`zerocost.ModelOutput`.

        Raises:
            DeadlineExceeded: the current deadline has passed; it is checked before every packed batch.
        """
        _check_deadline()
        start = time.perf_counter()
        lengths = [len(ids) for ids, _ in sequences]
        timings, usage = {"seconds": 0.0, "attention_seconds": 0.0}, {"tokens": sum(lengths), "cached": 0}
        memory = None if output_attentions else active.get("memory")
        keys: list[Hashable] = []
        results: list[SequenceResult | None] = [None] * len(sequences)
        prefix = None if memory is None else self._prefix(active)
        if memory is not None and prefix is not None:
            keys = [_key(prefix, sequence) for sequence in sequences]
            for index, key in enumerate(keys):
                stored = result_cache.load(memory, key)
                if stored is not None:
                    results[index] = self._cached(memory, stored, lengths[index])
                    usage["cached"] += 1
        missing = [index for index, result in enumerate(results) if result is None]
        for group in group_by_tokens(missing, lengths, PASS_TOKENS):
            _check_deadline()
            packed = Packed.of([sequences[index] for index in group])
            with awake_threads(active):
                forwarded = self._forward(packed, active, timings, output_attentions=output_attentions)
            # A result that was computed while an artifact's attributes changed has no key.
            has_key = memory is not None and prefix is not None and self._prefix(active) == prefix
            for place, result in forwarded:
                index = group[place]
                results[index] = result
                if memory is not None and has_key:
                    row = np.concatenate([result.states, result.pooled[None]])
                    row.flags.writeable = False
                    if is_finite(row):
                        result_cache.store(memory, keys[index], row)
        timings["seconds"] = time.perf_counter() - start
        return [result for result in results if result is not None], timings, usage

    def _forward(
        self,
        packed: Packed,
        active: Mapping[str, ActiveArtifact],
        timings: dict[str, float],
        *,
        output_attentions: bool,
    ) -> list[tuple[int, SequenceResult]]:
        encoder = self._model.encoder
        weights: dict[tuple[int, int], Floats] | None = {} if output_attentions else None
        attention = attention_function(active.get("attention"), weights)
        hidden = encoder.embed(packed)
        parallel = active.get("parallel")
        if parallel is None:
            encoder.run(packed, hidden, attention)
        elif "weight" in parallel.spec.ports.inputs:
            encoder.run(packed, hidden, attention, sharded_projection(parallel))
        else:
            run_in_stages(parallel, encoder, packed, hidden, attention)
        timings["attention_seconds"] += sum(hidden.attention_seconds)
        states, offsets = hidden.states, packed.offsets
        pooled = pool(self._model.pooling, packed, states)
        results = []
        for row, place in enumerate(packed.order):
            layers = range(encoder.architecture.layers)
            attentions = None if weights is None else [weights[layer, row] for layer in layers]
            result = SequenceResult(states[offsets[row] : offsets[row + 1]], pooled[row], attentions)
            results.append((int(place), result))
        return results

    def _cached(self, memory: ActiveArtifact, stored: Any, tokens: int) -> SequenceResult:
        """A result from a memory artifact: the states of a sequence, and in the last row its pooled vector."""
        shape = (tokens + 1, self._model.encoder.architecture.width)
        fits = isinstance(stored, np.ndarray) and stored.dtype == np.float32 and stored.shape == shape
        if not fits or not is_finite(stored):
            raise InvalidInput(
                f"artifact {memory.spec.name!r} returned something other than the finite float32 {list(shape)} it was "
                "given"
            )
        return SequenceResult(stored[:-1], stored[-1])

    def _prefix(self, active: Mapping[str, ActiveArtifact]) -> bytes | None:
        """The part of the key that all sequences share; None if the model or an active artifact has no fingerprint."""
        parts = [self._fingerprints.of(active[name]) for name in ("attention", "parallel") if name in active]
        if None in parts:
            return None
        try:
            identity = self._model.identity
        except InvalidModel as error:
            if not self._warned:
                self._warned = True
                logger.warning("results are no longer cached: %s", error)
            return None
        return f"{VERSION} {identity} {parts}".encode()


def awake_threads(active: Mapping[str, ActiveArtifact]) -> AbstractContextManager[None]:
    """Keeps the kernels' threads awake during a pass, if only the kernels compute in it.

    A third-party artifact has threads of its own (NumPy's products do), and so have the processes of an executor. They
    would share the cores with threads that only wait.
    """
    only_kernels = all(_runs_on_kernels(active[name]) for name in ("attention", "parallel") if name in active)
    return Awake() if only_kernels else nullcontext()


def _runs_on_kernels(active: ActiveArtifact) -> bool:
    # Stages of layers always run in this process, unlike shards.
    return active.is_built_in and ("weight" not in active.spec.ports.inputs or active.here() is active)


def _check_deadline() -> None:
    deadline = current_deadline()
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceeded("the deadline passed before the model had finished the request")


def _key(prefix: bytes, sequence: tuple[Ints, Ints]) -> Hashable:
    ids, positions = sequence
    return result_cache.cache_key("forward", prefix, ids.tobytes(), positions.tobytes())


def group_by_tokens(
    indexes: Iterable[int], lengths: Sequence[int], max_tokens: int, *, longest_first: bool = False
) -> list[list[int]]:
    """The indexes in groups of at most ``max_tokens`` tokens (or one sequence), with similar lengths together."""
    groups: list[list[int]] = []
    room = 0
    for index in sorted(indexes, key=lambda index: -lengths[index] if longest_first else lengths[index]):
        if lengths[index] > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= lengths[index]
    return groups
