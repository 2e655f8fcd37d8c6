"""The stages of a pipeline: what each runs, and how it is called with a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.core.arrays import as_tensor
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import limits_of
from zerocost.core.ports import Ports, closest
from zerocost.core.results import checked_outputs
from zerocost.errors import DatatypeError, InvalidInput, InvalidOutput, MissingInput, Place, RangeError, ShapeError

__all__ = ["Stage", "resolve_stages"]

_STEP_KEYS = ("artifact", "params")


@dataclass(frozen=True)
class Stage:
    """One stage. It is called with a micro-batch and returns the micro-batch of the next stage.

    Attributes:
        index: its position in the pipeline.
        name: its name in errors.
        function: a callable of one array, or None for an artifact.
        artifact: the artifact, or None for a callable.
        main_input: the artifact's input that takes the micro-batch.
        main_output: the artifact's output that is the result; None for its first output.
        params: the artifact's other inputs.
    """

    index: int
    name: str
    function: Callable[[Any], Any] | None = None
    artifact: Artifact | None = None
    main_input: str = ""
    main_output: str | None = None
    params: dict[str, Any] = field(default_factory=dict)

    def __call__(self, batch: npt.NDArray[Any], micro_batch: int, axis: int, context: ExecutionContext) -> Any:
        """Runs the stage.

        Args:
            batch: the micro-batch.
            micro_batch: its number.
            axis: the axis along which the tensor was cut.
            context: of the pipeline; an artifact gets its own with ``stage`` and ``micro_batch`` in the metadata.

        Raises:
            ShapeError: the result does not have as many slices along ``axis`` as the micro-batch.
            BaseException: whatever the stage raises, with a note that names the stage and the micro-batch.
        """
        try:
            result = self._run(batch, micro_batch, context)
            if not isinstance(result, np.ndarray):
                result = as_tensor(result, "result")
            if result.ndim <= (axis if axis >= 0 else -axis - 1) or result.shape[axis] != batch.shape[axis]:
                raise ShapeError(
                    f"stages: a micro-batch of shape {list(batch.shape)} became one of shape {list(result.shape)}; "
                    f"a stage must keep the {batch.shape[axis]} slices along axis {axis}",
                    "stages",
                )
        except BaseException as error:
            error.add_note(Place(f"in stage {self.index} ({self.name}) of the pipeline, micro-batch {micro_batch}"))
            raise
        return result

    def _run(self, batch: npt.NDArray[Any], micro_batch: int, context: ExecutionContext) -> Any:
        if self.function is not None:
            return self.function(batch)
        assert self.artifact is not None  # noqa: S101 (resolve_stages sets one of the two)
        metadata = {**context.metadata, "stage": self.index, "micro_batch": micro_batch}
        inner = ExecutionContext(self.name, context.interface, context.mode, metadata)
        bound = self.artifact._ports.bind({self.main_input: batch, **self.params}, limits_of(metadata))
        outputs = checked_outputs(self.artifact.execute(bound, inner), self.name)
        if not outputs:
            raise InvalidOutput(f"artifact {self.name!r}: execute returned an empty dict, an output is needed")
        port = self.main_output if self.main_output is not None else next(iter(outputs))
        return outputs[port]


def resolve_stages(stages: Any, num_stages: int, registry: ArtifactRegistry | None) -> list[Stage]:
    """The given stages, each checked as far as possible without running it.

    Args:
        stages: a list of artifacts' names, chain steps (``{"artifact": name, "params": {}}``), artifacts, or callables
            of one array.
        num_stages: how many there must be.
        registry: where names are looked up.

    Raises:
        DatatypeError: no list, or something else in it.
        RangeError: another number of stages.
        UnknownArtifact: a name that is not registered.
        InvalidInput: parameters that an artifact does not take.
        MissingInput: an artifact that needs more than its main input and its parameters.
    """
    if not isinstance(stages, list | tuple):
        raise DatatypeError(f"stages: {type(stages).__name__} was given, a list is needed", "stages")
    if len(stages) != num_stages:
        raise RangeError(
            f"stages: {len(stages)} were given, {num_stages} (num_stages) are needed; give both the same number",
            "stages",
        )
    return [_resolve(index, stage, registry) for index, stage in enumerate(stages)]


def _resolve(index: int, stage: Any, registry: ArtifactRegistry | None) -> Stage:
    where = f"stages[{index}]"
    if isinstance(stage, Artifact):
        return _bind(index, type(stage).__name__, stage, stage._ports, {})
    if isinstance(stage, str):
        stage = {"artifact": stage}
    if isinstance(stage, Mapping):
        for key in stage:
            if key not in _STEP_KEYS:
                raise InvalidInput(f"{where}: unknown key {key!r}; {closest(str(key), _STEP_KEYS)}", "stages")
        name, params = stage.get("artifact"), stage.get("params") or {}
        if not isinstance(name, str) or not isinstance(params, Mapping):
            raise DatatypeError(f"{where}: a step has an 'artifact' that is a name and 'params' by name", "stages")
        if registry is None:
            raise InvalidInput(f"{where}: {name!r} was named, but this artifact was made without a registry", "stages")
        try:
            spec = registry[name]
        except KeyError as error:
            error.add_note(Place(f"in {where}"))
            raise
        return _bind(index, name, spec.implementation, spec.ports, dict(params))
    if callable(stage) and not isinstance(stage, type):
        return Stage(index, getattr(stage, "__name__", type(stage).__name__), function=stage)
    kind = stage.__name__ if isinstance(stage, type) else type(stage).__name__
    raise DatatypeError(
        f"{where}: {kind} was given; an artifact's name, a chain step, an artifact or a callable is needed", "stages"
    )


def _bind(index: int, name: str, artifact: Artifact, ports: Ports, params: dict[str, Any]) -> Stage:
    where = f"stages[{index}] ({name})"
    try:
        params = ports.bind_partial(params)
    except InvalidInput as error:
        raise type(error)(f"{where}: params: {error}", "stages") from error
    main = ports.main_input
    if main is None or main in params:
        problem = "the artifact has no main input" if main is None else f"{main!r} is what the micro-batch is bound to"
        raise InvalidInput(f"{where}: {problem}", "stages")
    missing = [needed for needed in ports.required if needed != main and needed not in params]
    if missing:
        raise MissingInput(f"{where}: {', '.join(missing)} required; a stage gets its main input alone", "stages")
    return Stage(index, name, artifact=artifact, main_input=main, main_output=ports.main_output, params=params)
