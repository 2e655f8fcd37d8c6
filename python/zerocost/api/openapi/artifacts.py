"""Artifacts and chains: one operation for each artifact, made from its schema."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import orjson

from zerocost._kernels import write_json
from zerocost.api.openapi.parts import TEXT, Schema, get, list_of, object_of, post, reference
from zerocost.api.settings import Settings
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.artifact_validation import ArtifactValidator
from zerocost.core.chain_plan import plan_chain
from zerocost.core.ports import Ports
from zerocost.errors import ZerocostError

__all__ = ["example_of", "first_line", "paths"]


def paths(registry: ArtifactRegistry, settings: Settings) -> dict[str, Any]:
    """The paths of artifacts and chains."""
    summary: Schema = object_of(
        ["name", "interface", "description", "metadata"],
        name=TEXT,
        interface=TEXT,
        description=TEXT,
        metadata={"type": "object"},
    )
    listed: Schema = object_of(["artifacts"], artifacts=list_of(summary))
    described: dict[str, Any] = {"/artifacts": get("list_artifacts", "Every artifact.", listed)}
    specs = registry.list_artifacts()
    for spec in specs:
        path = f"/artifacts/{spec.name}"
        named = {"name": {"const": spec.name}, "schema": {"type": "object"}}
        whole = {**summary, "properties": {**summary["properties"], **named}, "required": ["name", "schema"]}
        schema = {"properties": {"artifact": {"const": spec.name}, "schema": {"type": "object"}}}
        described[path] = get(f"describe_{spec.name}", f"{spec.name} and its schema.", whole)
        described[f"{path}/schema"] = get(
            f"schema_{spec.name}",
            f"The schema of {spec.name}.",
            {"type": "object", **schema, "required": ["artifact", "schema"]},
        )
        described[f"{path}/execute"] = post(
            f"execute_{spec.name}",
            first_line(spec),
            inputs_schema(spec.ports, settings),
            _success(_outputs_schema(spec.ports)),
            example=as_json(example_of(spec)),
        )
    chain = _chain_schema([spec.name for spec in specs])
    example = _chain_example(registry)
    planned: Schema = object_of(["steps"], steps={"type": "array"})
    described["/chains/plan"] = post(
        "plan_chain", "The wiring of a chain, without running it.", chain, planned, "404", example=example
    )
    described["/chains/execute"] = post(
        "execute_chain",
        "Runs a chain.",
        chain,
        _success({"type": "object"}, trace=list_of({"type": "object"})),
        "404",
        example=example,
    )
    return described


def first_line(spec: ArtifactSpec) -> str:
    """What an artifact does, in one line."""
    return (spec.implementation.get_description().strip().splitlines() or [spec.name])[0]


def inputs_schema(ports: Ports, settings: Settings) -> Schema:
    """The published schema, with tensors in their JSON form; examples of arrays are at the operation."""
    schema = copy.deepcopy({key: value for key, value in ports.published.items() if not key.startswith("x-")})
    schema.pop("examples", None)
    for name, subschema in schema.get("properties", {}).items():
        if not isinstance(subschema, dict):
            continue
        if name in ports.parts:
            subschema["maximum"] = min(settings.max_parts, subschema.get("maximum", settings.max_parts))
            subschema.pop("x-parts", None)
        if not ports.is_tensor(name):
            continue
        tensor = subschema.pop("x-tensor")
        subschema.pop("default", None)
        datatypes = ", ".join(tensor.get("datatypes") or ["any datatype"])
        shape = ", ".join(map(str, tensor.get("shape") or ["..."]))
        subschema["description"] = f"{subschema.get('description', '')} [{shape}] of {datatypes}".strip()
        subschema["anyOf"] = [
            reference("NestedList"),
            reference("TypedTensor"),
            *([{"type": "null"}] if name not in ports.required else []),
        ]
    return schema


def _outputs_schema(ports: Ports) -> Schema:
    outputs = {
        name: reference("Tensor")
        if "x-tensor" in subschema
        else {key: value for key, value in subschema.items() if not key.startswith("x-")}
        for name, subschema in (ports.outputs or {}).items()
    }
    return {"type": "object", "properties": outputs} if outputs else {"type": "object"}


def _success(data: Schema, **more: Any) -> Schema:
    return object_of(["status", "data"], status={"const": "success"}, data=data, **more)


def example_of(spec: ArtifactSpec) -> dict[str, Any] | None:
    """An input that fits the artifact's schema; None if none can be generated."""
    try:
        generated = ArtifactValidator().generate_test_input(spec.ports.schema)
    except ZerocostError:
        return None
    return {key: np.round(value, 2) if _is_floating(value) else value for key, value in generated.items()}


def as_json(inputs: dict[str, Any] | None) -> Any:
    """Inputs in their JSON form; None if they have none."""
    try:
        return None if inputs is None else orjson.loads(write_json(inputs))
    except (ZerocostError, TypeError):
        return None


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _chain_example(registry: ArtifactRegistry) -> Any:
    """A chain of two artifacts that fit each other, or of one if none do."""
    examples = {spec.name: as_json(example_of(spec)) for spec in registry.list_artifacts()}
    known = [name for name, example in examples.items() if example]
    for first, second in itertools.permutations(known, 2):
        if registry[first].interface != "attention" or registry[second].interface == "memory":
            continue
        pipeline = [{"artifact": first}, {"artifact": second}]
        try:
            plan_chain(registry, pipeline, list(examples[first]))
        except ZerocostError:
            continue
        return {"pipeline": pipeline, "initial_input": examples[first], "trace": True}
    return {"pipeline": [{"artifact": known[0]}], "initial_input": examples[known[0]]} if known else None


def _chain_schema(names: list[str]) -> Schema:
    step: Schema = object_of(
        ["artifact"],
        is_closed=True,
        artifact={"enum": names} if names else TEXT,
        params={"type": ["object", "null"]},
        inputs={"type": ["object", "null"], "additionalProperties": TEXT},
        id={"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        after=list_of(TEXT),
        each={"type": ["string", "boolean", "null"]},
    )
    return object_of(
        ["pipeline"],
        is_closed=True,
        pipeline={"type": "array", "minItems": 1, "items": step},
        initial_input={"type": "object"},
        initial_input_names=list_of(TEXT),
        trace={"type": "boolean"},
    )
