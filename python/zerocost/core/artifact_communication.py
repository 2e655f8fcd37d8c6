"""Calling artifacts, alone and in chains, in the same process at no cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.chain_plan import Plan, plan_chain
from zerocost.core.chain_run import ChainRun, run_plan
from zerocost.errors import DatatypeError

__all__ = ["ArtifactCommunicationService"]


class ArtifactCommunicationService:
    """Zero-cost communication between the artifacts of a registry."""

    def __init__(self, registry: ArtifactRegistry) -> None:
        self.registry = registry

    def call_artifact(
        self, artifact_name: str, input_data: dict[str, Any], context: ExecutionContext
    ) -> dict[str, Any]:
        """Calls an artifact by name: a look-up and a function call, nothing is copied or serialised.

        Raises:
            UnknownArtifact: there is none of that name.
        """
        spec = self.registry.get_artifact(artifact_name)
        if spec is None:
            raise self.registry.unknown(artifact_name)
        return spec.implementation.execute(input_data, context)

    def plan(self, pipeline: Sequence[dict[str, Any]], initial_input_names: Iterable[str]) -> Plan:
        """Wires a chain without running anything. See :func:`zerocost.core.chain_plan.plan_chain`."""
        return plan_chain(self.registry, pipeline, initial_input_names)

    def chain_artifacts(
        self,
        pipeline: Sequence[dict[str, Any]],
        initial_input: dict[str, Any],
        context: ExecutionContext | None = None,
    ) -> dict[str, Any]:
        """Runs a chain and returns the last step's outputs. A chain that cannot work fails before its first step.

        Args:
            pipeline: the steps; see :func:`zerocost.core.chain_plan.plan_chain`.
            initial_input: the running result that the first step sees.
            context: handed on to every step; its deadline holds for the whole chain.

        Raises:
            PlanError: the chain cannot work; nothing was run.
            DeadlineExceeded: the deadline passed between two steps.
            Exception: whatever a step raises, with a note that says which step it was.
        """
        return self._run(pipeline, initial_input, context, traced=False).result

    def run_chain(
        self,
        pipeline: Sequence[dict[str, Any]],
        initial_input: dict[str, Any],
        context: ExecutionContext | None = None,
    ) -> ChainRun:
        """As :meth:`chain_artifacts`, but returns every step's outputs and a trace."""
        return self._run(pipeline, initial_input, context, traced=True)

    def _run(
        self,
        pipeline: Sequence[dict[str, Any]],
        initial_input: dict[str, Any],
        context: ExecutionContext | None,
        *,
        traced: bool,
    ) -> ChainRun:
        if not isinstance(initial_input, Mapping):
            kind = type(initial_input).__name__
            raise DatatypeError(f"initial_input: {kind} was given, a dict is needed", "initial_input")
        return run_plan(self.plan(pipeline, initial_input), initial_input, context, traced=traced)
