"""What the demo claims, each proven on the spot: nothing was copied, and both ways give the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["Claim", "claims_about_copies", "claims_about_equality", "watched"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Claim:
    """A sentence, and whether it is true."""

    text: str
    holds: bool


class Watched(Artifact):
    """An artifact as it is, with the last dict that it was given and the last one that it returned."""

    def __init__(self, implementation: Artifact) -> None:
        self.implementation = implementation
        self.given: dict[str, Any] = {}
        self.returned: dict[str, Any] = {}

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Executes the artifact and remembers what went in and what came out."""
        self.given = input_data
        self.returned = self.implementation.execute(input_data, context)
        return self.returned

    def get_schema(self) -> dict[str, Any]:
        """The artifact's own."""
        return self.implementation.get_schema()


def watched(registry: ArtifactRegistry, names: list[str]) -> tuple[ArtifactRegistry, list[Watched]]:
    """A registry with the named artifacts, each of which remembers what it was given and what it returned."""
    copy = ArtifactRegistry()
    witnesses = []
    for name in names:
        witness = Watched(registry[name].implementation)
        copy.register_artifact(name, witness, registry[name].interface)
        witnesses.append(witness)
    return copy, witnesses


def claims_about_copies(registry: ArtifactRegistry, pipeline: list[dict[str, Any]], matrix: Array) -> list[Claim]:
    """Runs ``sparse_attention → tensor_parallel`` on watched artifacts and says what was and was not copied.

    Args:
        registry: where the two artifacts are.
        pipeline: the two steps.
        matrix: the chain's ``attention_matrix``.
    """
    before = matrix.tobytes()
    observed, (first, second) = watched(registry, [step["artifact"] for step in pipeline])
    run = ArtifactCommunicationService(observed).run_chain(pipeline, {"attention_matrix": matrix})
    between, shards = first.returned["processed_attention"], run.result["result"]
    copied = sum(step.bytes_copied for step in run.trace)
    return [
        Claim("the first artifact got the caller's own array: the same object", _is(first, "attention_matrix", matrix)),
        Claim("the second got the first one's result: the same object", _is(second, "tensor", between)),
        Claim(
            f"the {len(shards)} shards are views of that result: they share its memory",
            bool(shards) and all(np.shares_memory(shard, between) for shard in shards),
        ),
        Claim(
            "put together the shards are that result, and no two overlap",
            np.array_equal(np.concatenate(shards), between)
            and not any(np.shares_memory(*pair) for pair in pairwise(shards)),
        ),
        Claim(f"bytes copied on the way into the kernels, as the trace counts them: {copied}", copied == 0),
        Claim("the caller's array is as it was", matrix.tobytes() == before),
    ]


def claims_about_equality(here: list[Array], there: list[Array]) -> list[Claim]:
    """Compares the shards from this process with those that came over HTTP, bit by bit."""
    kinds = [[(shard.dtype, shard.shape) for shard in shards] for shards in (here, there)]
    bits = [[shard.tobytes() for shard in shards] for shards in (here, there)]
    return [
        Claim("both results have the same number of shards, dtypes and shapes", kinds[0] == kinds[1]),
        Claim("both results are equal to the last bit", bits[0] == bits[1]),
    ]


def _is(witness: Watched, name: str, expected: object) -> bool:
    return witness.given.get(name) is expected
