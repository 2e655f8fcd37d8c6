"""Where parallel artifacts run their shards and stages: on threads of this process, or elsewhere.

A composition root makes an executor and passes it to the artifacts, which do not know the engine behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from zerocost.core.artifact_base import ExecutionContext

__all__ = ["Executor", "PipelineStage"]


class PipelineStage(Protocol):
    """A stage as an executor sees it. It can be pickled if its function or artifact can."""

    @property
    def index(self) -> int:
        """Its position in the pipeline."""

    @property
    def name(self) -> str:
        """The name in errors."""

    def __call__(self, batch: npt.NDArray[Any], micro_batch: int, axis: int, context: ExecutionContext) -> Any:
        """The micro-batch of the next stage."""


class Executor(Protocol):
    """Runs shards and stages somewhere."""

    is_local: bool = False
    """Whether they run in this process and share its memory."""

    def shards(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], context: ExecutionContext
    ) -> list[Any]:
        """``function(*call)`` of every call, at the same time; the results in order.

        An array that is in several calls is sent once to each machine.

        Args:
            function: of one shard.
            calls: the arguments of each shard.
            context: of the call; its deadline holds for all shards.

        Raises:
            DeadlineExceeded: the deadline passed before all were done. An executor stops those that still run, if it
                can.
            ServiceUnavailable: a shard was lost and could not be run again; the message names it.
            LimitExceeded: an array that does not fit.
            Exception: whatever the function raises, with a note that names the shard.
        """

    def pipeline(
        self,
        stages: Sequence[PipelineStage],
        batches: Sequence[npt.NDArray[Any]],
        axis: int,
        schedule: str,
        context: ExecutionContext,
    ) -> list[Any]:
        """Every micro-batch through every stage, in order; see :class:`zerocost.core.threads.ThreadExecutor`."""
