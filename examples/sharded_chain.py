"""An array cut into shards, every shard processed on its own, and put together again: one chain.

``tensor_parallel`` gives views, ``"each"`` runs a step once per shard and in parallel, and a small artifact around
``zerocost.gather`` joins what comes out. Where a step returns a view of its shard, nothing is copied on the whole way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import zerocost
from zerocost.core.chain_run import ChainRun


class Gather(zerocost.ParallelArtifact):
    """Joins shards: a view where they are neighbours, otherwise a copy."""

    def process_parallel(self, tensor: Sequence[Any], axis: int = -1) -> Any:
        """Joins shards.

        Args:
            tensor: the shards.
            axis: along which they were cut.
        """
        return zerocost.gather(tensor, axis)


class Softcap(zerocost.ParallelArtifact):
    """Caps scores softly, each for itself: cap · tanh(x / cap)."""

    def process_parallel(self, tensor: np.ndarray, cap: float = 2.0) -> np.ndarray:
        """Caps scores.

        Args:
            tensor: scores of any shape.
            cap: what no score exceeds.
        """
        return cap * np.tanh(tensor / cap)


class Latest(zerocost.ParallelArtifact):
    """Keeps the latest queries: a view, so the shards stay parts of one array, and nobody's data is changed."""

    def process_parallel(self, tensor: np.ndarray, count: int = 1) -> np.ndarray:
        """Keeps the last rows.

        Args:
            tensor: scores, ``[queries, keys]``.
            count: how many queries are kept.
        """
        return tensor[-count:]


def main() -> None:
    """Runs both chains and says what was copied."""
    registry = zerocost.default_registry()
    for name, artifact in (("gather", Gather()), ("softcap", Softcap()), ("latest", Latest())):
        registry.register_artifact(name, artifact, "parallel")
    service = zerocost.ArtifactCommunicationService(registry)
    scores = np.random.default_rng(0).standard_normal((512, 2048), dtype=np.float32) * 3

    def chain(step: str) -> ChainRun:
        pipeline = [
            {"artifact": "tensor_parallel", "params": {"num_splits": 4}},
            {"artifact": step, "each": True, "inputs": {"tensor": "0.result"}},
            {"artifact": "gather", "inputs": {"tensor": "1.result"}},
        ]
        return service.run_chain(pipeline, {"tensor": scores})

    capped = chain("softcap")
    assert np.array_equal(capped.result["result"], 2 * np.tanh(scores / 2))
    print(f"softcap: {sum(step.bytes_copied for step in capped.trace):,} bytes copied, to join the shards' results")

    latest = chain("latest")
    assert np.array_equal(latest.result["result"], scores[-1:])
    assert np.shares_memory(latest.result["result"], scores)
    print(
        f"latest: {sum(step.bytes_copied for step in latest.trace):,} bytes copied, the result is a view of the tensor"
    )


if __name__ == "__main__":
    main()
