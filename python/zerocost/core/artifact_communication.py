"""Calling artifacts by name, alone and in chains, in the same process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.chain_cache import PlanCache
from zerocost.core.chain_run import ChainRun, params_of, run_plan
from zerocost.core.chain_wiring import Plan
from zerocost.core.results import checked_outputs
from zerocost.errors import DatatypeError

__all__ = ["ArtifactCommunicationService"]


class ArtifactCommunicationService:
    """Zero-cost communication between the artifacts of a registry.

    Attributes:
        registry: where names are looked up.
        artifact_cache: the plans of earlier chains; see :class:`zerocost.core.chain_cache.PlanCache`.
    """

    def __init__(self, registry: ArtifactRegistry) -> None:
        self.registry = registry
        self.artifact_cache = PlanCache(registry)

    def call_artifact(
        self, artifact_name: str, input_data: dict[str, Any], context: ExecutionContext
    ) -> dict[str, Any]:
        """Calls an artifact by name: a look-up, a bind and a function call; nothing is serialised.

        Raises:
            UnknownArtifact: no artifact has that name.
            InvalidInput: whatever :meth:`zerocost.core.ports.Ports.bind` refuses.
            InvalidOutput: the artifact returned something else than a dict.
        """
        spec = self.registry.get_artifact(artifact_name)
        if spec is None:
            raise self.registry.unknown(artifact_name)
        outputs = spec.implementation.execute(spec.ports.bind(input_data), context)
        return outputs if type(outputs) is dict else checked_outputs(outputs, artifact_name)

    def plan(self, pipeline: Sequence[dict[str, Any]], initial_input_names: Iterable[str]) -> Plan:
        """Wires a chain without running anything, and checks its parameters.

        See :func:`zerocost.core.chain_plan.plan_chain`.
        """
        plan = self.artifact_cache.plan(pipeline, initial_input_names)
        params_of(plan, pipeline)
        return plan

    def chain_artifacts(
        self, pipeline: Sequence[dict[str, Any]], initial_input: dict[str, Any], context: ExecutionContext | None = None
    ) -> dict[str, Any]:
        """Runs a chain and returns the last step's outputs. A chain that cannot be wired fails before its first step.

        Args:
            pipeline: the steps; see :func:`zerocost.core.chain_plan.plan_chain`.
            initial_input: the running result that the first step sees.
            context: passed to every step; its deadline holds for the whole chain.

        Raises:
            PlanError: the chain cannot be wired; nothing was run.
            InvalidInput: a parameter or an initial input that no step takes, or that its step refuses: pointers begin
                with ``/pipeline/i/params`` or ``/initial_input``, and nothing was run. Or a step refuses the output of
                another.
            DeadlineExceeded: the deadline passed between two steps.
            Exception: whatever a step raises, with a note that names the step.
        """
        return self._run(pipeline, initial_input, context, traced=False).result

    def run_chain(
        self, pipeline: Sequence[dict[str, Any]], initial_input: dict[str, Any], context: ExecutionContext | None = None
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
        plan = self.artifact_cache.plan(pipeline, initial_input)
        return run_plan(plan, pipeline, initial_input, context, traced=traced)
