"""The artifacts of one call to the model: the field ``artifacts``, and which artifacts can run a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from zerocost.errors import InvalidInput, RangeError
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.service import ARTIFACT_NAME, pointers_below

__all__ = ["INTERFACES", "Artifacts", "check_usable", "select"]

INTERFACES = ("attention", "parallel", "memory")
RESERVED = frozenset(
    {"attention_matrix", "query", "key", "value", "normalization", "out", "tensor", "weight", "bias", "stages"}
)
"""Inputs that the service itself gives to artifacts."""

_CHOICE = {
    "type": ["object", "null"],
    "properties": {"artifact": ARTIFACT_NAME, "params": {"type": "object"}},
    "required": ["artifact"],
    "additionalProperties": False,
}

Artifacts = Annotated[
    Mapping[str, Mapping[str, Any] | None] | None,
    {
        "type": ["object", "null"],
        "properties": dict.fromkeys(INTERFACES, _CHOICE),
        "additionalProperties": False,
    },
]
"""``{interface: {"artifact": name, "params": {…}}}``; None for a value means no artifact."""


def check_usable(active: ActiveArtifact, params: Mapping[str, Any]) -> None:
    """Raises InvalidInput unless the artifact can run a model with these parameters."""
    name = active.spec.name
    taken = sorted(RESERVED & params.keys())
    if taken:
        raise InvalidInput(f"artifact {name!r}: {', '.join(taken)} comes from the model and cannot be set", taken[0])
    if active.spec.interface == "parallel" and not {"weight", "stages"} & active.spec.ports.inputs.keys():
        raise InvalidInput(
            f"artifact {name!r} declares neither 'weight' (linear layers in shards) nor 'stages' (layers in stages), "
            "so it cannot run a model"
        )


def select(
    current: Mapping[str, ActiveArtifact],
    artifacts: Artifacts,
    find: Callable[[str, dict[str, Any]], ActiveArtifact],
) -> Mapping[str, ActiveArtifact]:
    """The artifacts by interface: the current ones, with those of one call in their place.

    Args:
        current: the active artifacts.
        artifacts: those of the call.
        find: looks up an artifact by name, with parameters.

    Raises:
        InvalidInput, RangeError: ``artifacts`` is malformed, or names an artifact of another interface.
    """
    selected = dict(current)
    if artifacts is None:
        return selected
    if not isinstance(artifacts, Mapping):
        raise InvalidInput("artifacts: {interface: {artifact, params}} is needed", "artifacts")
    for interface, choice in artifacts.items():
        if interface not in INTERFACES:
            allowed = ", ".join(INTERFACES)
            raise RangeError(f"artifacts: the interface {interface!r} was given, {allowed} are allowed", "artifacts")
        if choice is None:
            selected.pop(interface, None)
            continue
        if not isinstance(choice, Mapping) or not isinstance(choice.get("artifact"), str):
            raise InvalidInput(f"artifacts: {interface} needs the name of an artifact", "artifacts")
        name, params = choice["artifact"], choice.get("params") or {}
        if choice.keys() - {"artifact", "params"} or not isinstance(params, Mapping):
            raise InvalidInput(f"artifacts: {interface} takes 'artifact' and the object 'params'", "artifacts")
        with pointers_below("artifacts", interface, "params"):
            active = find(name, dict(params))
        if active.spec.interface != interface:
            raise RangeError(
                f"artifacts: {name!r} has the interface {active.spec.interface!r}, not {interface!r}", "artifacts"
            )
        selected[interface] = active
    return selected
