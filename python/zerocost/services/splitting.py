"""How a parallel artifact runs the layers of a model: each linear layer in shards, or the layers as stages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.parallel.pipeline_parallel import PipelineParallelArtifact
from zerocost.core.arrays import is_finite
from zerocost.errors import InvalidInput, ShapeError
from zerocost.models.encoder import Attention, Encoder, Hidden, Linear, Projection
from zerocost.models.layers import activate
from zerocost.models.packing import Packed
from zerocost.services.active import Active
from zerocost.services.results import as_numbers, blamed

__all__ = ["run_in_stages", "sharded"]

Floats = npt.NDArray[np.float32]
Stage = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]


def sharded(parallel: Active) -> Projection:
    """The linear layers through a parallel artifact that takes a weight; bias and activation come after."""

    def project(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
        with blamed(parallel, linear.where):
            product = parallel.call(tensor, weight=linear.weight)
            # Shards may be left apart.
            parts = product if isinstance(product, list | tuple) else [product]
            shards = [as_numbers(parallel, part, "f") for part in parts]
            shapes = [shard.shape for shard in shards]
            rows, columns = out.shape
            widths = [shape[1] for shape in shapes if len(shape) == 2 and shape[0] == rows]
            if len(widths) != len(shapes) or sum(widths) != columns:
                given = ", ".join(str(list(shape)) for shape in shapes) or "nothing"
                raise ShapeError(
                    f"artifact {parallel.spec.name!r} returned shape {given}, {[rows, columns]} is needed, or its "
                    "columns in parts"
                )
            np.concatenate(shards, axis=1, out=out, casting="same_kind")
            if not is_finite(out) and is_finite(tensor):
                raise InvalidInput(f"artifact {parallel.spec.name!r} gave NaN or infinity for finite numbers")
        activate(out, linear.bias, activation)

    return project


def run_in_stages(parallel: Active, encoder: Encoder, packed: Packed, hidden: Hidden, attention: Attention) -> None:
    """The layers as stages, the sequences as what is cut into micro-batches. States are changed where they are.

    So the stages of this package's own artifact always run in this process, whatever executor it has.

    Raises:
        InvalidInput: the artifact did not take every sequence through every stage, once and in their order, or returned
            something else than the sequences.
    """
    layers, name = encoder.architecture.layers, parallel.spec.name
    declared = parallel.spec.ports.inputs.get("num_stages", {})
    count = int(parallel.params.get("num_stages") or declared.get("default") or 1)
    cuts = [index * layers // count for index in range(count + 1)]
    every = np.arange(len(packed.order))
    passed = np.zeros(len(every), np.int64)
    """How many layers each sequence has been through."""

    def stage(first: int, last: int) -> Stage:
        def run(sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            for begin, end in _ranges(sequences, len(every), name):
                early = begin + np.flatnonzero(passed[begin:end] != first)
                if len(early):
                    index = int(early[0])
                    raise InvalidInput(
                        f"artifact {name!r} took sequence {index} to layer {first} after {passed[index]} layers"
                    )
                encoder.run(packed, hidden, attention, layers=range(first, last), sequences=range(begin, end))
                passed[begin:end] = last
            return sequences

        return run

    with blamed(parallel, "stages"):
        result = _here(parallel).call(every, stages=[stage(first, last) for first, last in itertools.pairwise(cuts)])
        missing = np.flatnonzero(passed != layers)
        if len(missing):
            index = int(missing[0])
            raise InvalidInput(f"artifact {name!r} took sequence {index} through {passed[index]} of {layers} layers")
        if not isinstance(result, np.ndarray) or not np.array_equal(result, every):
            raise InvalidInput(f"artifact {name!r} returned something else than what came out of its last stage")


def _here(parallel: Active) -> Active:
    artifact = parallel.spec.implementation
    if not isinstance(artifact, PipelineParallelArtifact) or artifact.here() is artifact:
        return parallel
    return replace(parallel, spec=replace(parallel.spec, implementation=artifact.here()))


def _ranges(sequences: Any, count: int, name: str) -> list[tuple[int, int]]:
    """The packed sequences that a stage gets, as ranges without gaps."""
    fits = isinstance(sequences, np.ndarray) and sequences.ndim == 1 and sequences.dtype == np.int64
    if not fits or np.any((sequences < 0) | (sequences >= count)):
        raise InvalidInput(f"artifact {name!r} gave a stage something else than sequences of its tensor")
    cuts = np.flatnonzero(np.diff(sequences) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(sequences, cuts) if len(part)]
