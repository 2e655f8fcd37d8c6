"""A chain in a JSON file: the body of ``POST /chains/execute``, or the list of steps alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerocost.cli.files import read_json
from zerocost.cli.values import JsonText, members, with_arrays
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.ports import closest
from zerocost.errors import InvalidInput

__all__ = ["ChainFile", "read_chain"]

_KEYS = ("pipeline", "input", "initial_input", "trace")
"""``input`` is short for ``initial_input``."""


@dataclass(frozen=True)
class ChainFile:
    """The chain of a file. The values of the initial input are still text."""

    pipeline: list[dict[str, Any]]
    initial_input: dict[str, JsonText]
    trace: bool


def read_chain(file: Path, registry: ArtifactRegistry) -> ChainFile:
    """Reads a chain. Tensors in the parameters of a step become arrays; the wiring is checked by the plan.

    Raises:
        FileError: the file cannot be read or is not JSON.
        InvalidInput: the file holds something other than a chain.
    """
    body = read_json(file)
    if isinstance(body, list):
        return ChainFile([_step(step, registry) for step in body], {}, False)
    if not isinstance(body, dict) or "pipeline" not in body:
        raise InvalidInput(f'{file}: {{"pipeline": [steps], "input": {{…}}}} or a list of steps is needed', "pipeline")
    for name in body:
        if name not in _KEYS:
            raise InvalidInput(f"{file}: unknown key {name!r}; {closest(name, _KEYS)}", name)
    if "input" in body and "initial_input" in body:
        raise InvalidInput(f"{file}: 'input' and 'initial_input' are the same; give one of them", "input")
    key = "initial_input" if "initial_input" in body else "input"
    initial = members(body[key].text, key) if key in body else {}
    if not isinstance(initial, dict):
        raise InvalidInput(f"{file}: {key}: an object is needed", key)
    trace = body["trace"].read() if "trace" in body else False
    if not isinstance(trace, bool):
        raise InvalidInput(f"{file}: trace: true or false is needed", "trace")
    steps = members(body["pipeline"].text, "pipeline")
    pipeline = [_step(step, registry) for step in steps] if isinstance(steps, list) else body["pipeline"].read()
    return ChainFile(pipeline, initial, trace)


def _step(text: JsonText, registry: ArtifactRegistry) -> Any:
    step = members(text.text, "step")
    if not isinstance(step, dict):
        return text.read()
    values = {name: value.read() for name, value in step.items() if name != "params"}
    if "params" in step:
        name = values.get("artifact")
        spec = registry.get_artifact(name) if isinstance(name, str) else None
        parameters = members(step["params"].text, "params")
        if spec is not None and isinstance(parameters, dict):
            values["params"] = with_arrays(parameters, spec.ports)
        else:
            values["params"] = step["params"].read()
    return values
