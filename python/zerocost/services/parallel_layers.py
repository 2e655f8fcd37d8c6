"""A model's layers through the active parallel artifact: each linear layer in shards, or the layers as stages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.errors import InvalidInput, ShapeError
from zerocost.models.encoder import Attention, Encoder, Hidden, Linear, Projection
from zerocost.models.layers import activate
from zerocost.models.packing import Packed
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.artifact_output import as_numbers, check_finite, error_note

__all__ = ["run_in_stages", "sharded_projection"]

Floats = npt.NDArray[np.float32]
Stage = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]


def sharded_projection(parallel: ActiveArtifact) -> Projection:
    """Linear layers through a parallel artifact that takes a weight. Bias and activation are added afterwards."""

    def project(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
        with error_note(f"in {linear.where}, through the parallel artifact {parallel.spec.name!r}"):
            product = parallel.call(tensor, weight=linear.weight)
            # The artifact may return the shards without joining them.
            parts = product if isinstance(product, list | tuple) else [product]
            shards = [as_numbers(parallel, part, "f") for part in parts]
            shapes = [shard.shape for shard in shards]
            rows, columns = out.shape
            widths = [shape[1] for shape in shapes if len(shape) == 2 and shape[0] == rows]
            if len(widths) != len(shapes) or sum(widths) != columns:
                given = ", ".join(str(list(shape)) for shape in shapes) or "nothing"
                raise ShapeError(
                    f"artifact {parallel.spec.name!r} returned shape {given}, {[rows, columns]} is needed, whole or in "
                    "column shards"
                )
            np.concatenate(shards, axis=1, out=out, casting="same_kind")
            check_finite(parallel, out, tensor)
        activate(out, linear.bias, activation)

    return project


def run_in_stages(
    parallel: ActiveArtifact, encoder: Encoder, packed: Packed, hidden: Hidden, attention: Attention
) -> None:
    """Runs the layers as stages; micro-batches are groups of sequences. The states are changed in place.

    Therefore the stages of ``pipeline_parallel`` run in this process, whatever its executor.

    Raises:
        InvalidInput: the artifact did not run every sequence once through every stage in order, or it returned
            something other than the sequences.
    """
    layers, name = encoder.architecture.layers, parallel.spec.name
    declared = parallel.spec.ports.inputs.get("num_stages", {})
    count = int(parallel.params.get("num_stages") or declared.get("default") or 1)
    cuts = [index * layers // count for index in range(count + 1)]
    sequences = np.arange(len(packed.order))
    done = np.zeros(len(sequences), np.int64)
    """How many layers each sequence has passed."""

    def stage(first: int, last: int) -> Stage:
        def run(micro_batch: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            for begin, end in _ranges(micro_batch, len(sequences), name):
                wrong = begin + np.flatnonzero(done[begin:end] != first)
                if len(wrong):
                    index = int(wrong[0])
                    raise InvalidInput(
                        f"artifact {name!r} ran sequence {index} through layer {first} after {done[index]} layers"
                    )
                encoder.run(packed, hidden, attention, layers=range(first, last), sequences=range(begin, end))
                done[begin:end] = last
            return micro_batch

        return run

    with error_note(f"in stages, through the parallel artifact {name!r}"):
        stages = [stage(first, last) for first, last in itertools.pairwise(cuts)]
        result = parallel.here().call(sequences, stages=stages)
        missing = np.flatnonzero(done != layers)
        if len(missing):
            index = int(missing[0])
            raise InvalidInput(f"artifact {name!r} ran sequence {index} through {done[index]} of {layers} layers")
        if not isinstance(result, np.ndarray) or not np.array_equal(result, sequences):
            raise InvalidInput(f"artifact {name!r} returned something other than the output of its last stage")


def _ranges(micro_batch: Any, count: int, name: str) -> list[tuple[int, int]]:
    """The packed sequences of a micro-batch, as contiguous ranges."""
    fits = isinstance(micro_batch, np.ndarray) and micro_batch.ndim == 1 and micro_batch.dtype == np.int64
    if not fits or np.any((micro_batch < 0) | (micro_batch >= count)):
        raise InvalidInput(f"artifact {name!r} gave a stage something other than sequences of its tensor")
    cuts = np.flatnonzero(np.diff(micro_batch) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(micro_batch, cuts) if len(part)]
