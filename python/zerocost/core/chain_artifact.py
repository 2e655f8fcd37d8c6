"""A chain as an artifact: it can be registered, served, validated and used in other chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.chain_plan import plan_chain
from zerocost.core.chain_run import params_of, run_plan
from zerocost.core.chain_wiring import Plan, Source
from zerocost.core.ports.schema import ANNOTATIONS
from zerocost.errors import PlanError

__all__ = ["ChainArtifact"]


class ChainArtifact(Artifact):
    """A chain as one artifact: its inputs are the chain's unbound ports, its outputs those of the last step.

    The inputs are all inputs of the first step, the names that steps take as ``$.name``, and required inputs of later
    steps that are bound to nothing else. Optional inputs of later steps keep their defaults unless ``params`` or
    ``inputs`` set them; to make one an input of the chain, map it (``"inputs": {"window_size": "$.window_size"}``).
    """

    interface: ClassVar[str] = "chain"

    def __init__(
        self, pipeline: Sequence[dict[str, Any]], registry: ArtifactRegistry, description: str | None = None
    ) -> None:
        """Plans the chain; see :func:`zerocost.core.chain_plan.plan_chain` for the steps and the errors.

        Args:
            pipeline: the steps. They are copied, but not the arrays in their parameters.
            registry: where the steps' artifacts are looked up, now and whenever the registry has changed.
            description: what the chain does, in words.
        """
        self._version = registry.version
        self._plan = plan_chain(registry, pipeline, None)
        params = params_of(self._plan, pipeline)
        self._pipeline = [{**step, "params": bound} for step, bound in zip(pipeline, params, strict=True)]
        self._schema = _schema_of(self._plan)
        self._registry = registry
        self._description = description
        self.uses = tuple(step.spec.name for step in self._plan.steps)

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the chain; see :func:`zerocost.core.chain_run.run_plan`.

        Raises:
            PlanError: the registry has changed, and the chain would have other inputs or outputs: make it anew.
        """
        plan = self._current_plan()
        bound = self._ports.bind(input_data)
        return run_plan(plan, self._pipeline, bound, context, is_inner=True).result

    def get_schema(self) -> dict[str, Any]:
        """The subschemas of the unbound ports and of the last step's outputs, fixed when the chain was made."""
        return self._schema

    def get_description(self) -> str:
        """The given description, otherwise the names of the steps."""
        return self._description or f"Chain: {' → '.join(self.uses)}"

    @property
    def waits(self) -> bool:  # type: ignore[override]  # it depends on the steps
        """Whether any of the steps, as they are registered now, waits for something outside of this process."""
        specs = map(self._registry.get_artifact, self.uses)
        return any(spec is not None and spec.implementation.waits for spec in specs)

    @property
    def pipeline(self) -> list[dict[str, Any]]:
        """A copy of the steps."""
        return [dict(step) for step in self._pipeline]

    def _current_plan(self) -> Plan:
        version = self._registry.version
        if version != self._version:
            plan = plan_chain(self._registry, self._pipeline, None)
            if _essence(_schema_of(plan)) != _essence(self._schema):
                raise PlanError(
                    f"chain {' → '.join(self.uses)}: the registry has changed, and its inputs or outputs would be "
                    "others; make the chain anew"
                )
            params_of(plan, self._pipeline)
            self._plan, self._version = plan, version
        return self._plan


def _essence(schema: Any) -> Any:
    """A schema without its annotations."""
    if isinstance(schema, list):
        return [_essence(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _essence(sub) for name, sub in value.items()} if key in _NAMED else _essence(value)
        for key, value in schema.items()
        if key not in ANNOTATIONS
    }


_NAMED = ("properties", "x-outputs", "$defs")
"""Keywords whose members are named freely: the names are not keywords."""


def _schema_of(plan: Plan) -> dict[str, Any]:
    first, last = plan.steps[0], plan.steps[-1]
    outputs = last.spec.ports.outputs
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: _input_schema(plan, name) for name in plan.initial},
        "required": [name for name in plan.initial if name in plan.required],
        "additionalProperties": any(step.receives_all and step.follows == -1 for step in plan.steps),
    }
    main: dict[str, str] = {}
    source = first.bindings.get(first.spec.ports.main_input or "")
    if source is not None and source.kind == "initial" and source.port is not None:
        main["input"] = source.port
    if outputs is not None:
        schema["x-outputs"] = {name: _listed(sub, last.each is not None) for name, sub in outputs.items()}
        if last.spec.ports.main_output is not None:
            main["output"] = last.spec.ports.main_output
    return {**schema, "x-main": main}


def _input_schema(plan: Plan, name: str) -> dict[str, Any]:
    """The subschema of the first input that takes the chain's input ``name``."""
    for step in plan.steps:
        for port, source in step.bindings.items():
            if source == Source("initial", port=name, optional=source.optional):
                return _listed(step.spec.ports.inputs.get(port, {}), step.each == port)
    return {}


def _listed(subschema: dict[str, Any], is_list: bool) -> dict[str, Any]:
    if not is_list:
        return subschema
    described = {key: subschema[key] for key in ("description",) if key in subschema}
    return {"type": "array", **described}
