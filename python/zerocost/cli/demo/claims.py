"""The claims of the demo, each checked on the spot: nothing was copied, and both ways give the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["Claim", "claims_about_copies", "claims_about_equality", "recording"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Claim:
    """A statement, and whether it is true."""

    text: str
    holds: bool


class RecordingArtifact(Artifact):
    """Wraps an artifact and records its last input and its last output."""

    def __init__(self, implementation: Artifact) -> None:
        self.implementation = implementation
        self.given: dict[str, Any] = {}
        self.returned: dict[str, Any] = {}

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Executes the artifact and records input and output."""
        self.given = input_data
        self.returned = self.implementation.execute(input_data, context)
        return self.returned

    def get_schema(self) -> dict[str, Any]:
        """The schema of the wrapped artifact."""
        return self.implementation.get_schema()


def recording(registry: ArtifactRegistry, names: list[str]) -> tuple[ArtifactRegistry, list[RecordingArtifact]]:
    """A registry with the named artifacts, each of which records its input and output."""
    copy = ArtifactRegistry()
    recorders = []
    for name in names:
        recorder = RecordingArtifact(registry[name].implementation)
        copy.register_artifact(name, recorder, registry[name].interface)
        recorders.append(recorder)
    return copy, recorders


def claims_about_copies(registry: ArtifactRegistry, pipeline: list[dict[str, Any]], matrix: Array) -> list[Claim]:
    """Runs ``sparse_attention → tensor_parallel`` on recording artifacts and checks what was copied.

    Args:
        registry: holds the two artifacts.
        pipeline: the two steps.
        matrix: the chain's ``attention_matrix``.
    """
    before = matrix.tobytes()
    observed, (first, second) = recording(registry, [step["artifact"] for step in pipeline])
    run = ArtifactCommunicationService(observed).run_chain(pipeline, {"attention_matrix": matrix})
    between, shards = first.returned["processed_attention"], run.result["result"]
    copied = sum(step.bytes_copied for step in run.trace)
    return [
        Claim(
            "the first artifact got the caller's array itself: the same object", _is(first, "attention_matrix", matrix)
        ),
        Claim("the second artifact got the result of the first: the same object", _is(second, "tensor", between)),
        Claim(
            f"the {len(shards)} shards are views of that result: they share its memory",
            bool(shards) and all(np.shares_memory(shard, between) for shard in shards),
        ),
        Claim(
            "joined, the shards are equal to that result, and no two overlap",
            np.array_equal(np.concatenate(shards), between)
            and not any(np.shares_memory(*pair) for pair in pairwise(shards)),
        ),
        Claim(f"bytes copied on the way into the kernels, as counted by the trace: {copied}", copied == 0),
        Claim("the caller's array is unchanged", matrix.tobytes() == before),
    ]


def claims_about_equality(here: list[Array], there: list[Array]) -> list[Claim]:
    """Compares the shards from this process with those from HTTP, bit by bit."""
    kinds = [[(shard.dtype, shard.shape) for shard in shards] for shards in (here, there)]
    bits = [[shard.tobytes() for shard in shards] for shards in (here, there)]
    return [
        Claim("both results have the same number of shards, with the same dtypes and shapes", kinds[0] == kinds[1]),
        Claim("both results are equal to the last bit", bits[0] == bits[1]),
    ]


def _is(recorder: RecordingArtifact, name: str, expected: object) -> bool:
    return recorder.given.get(name) is expected
