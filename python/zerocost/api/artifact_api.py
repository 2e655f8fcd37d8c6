"""Artifacts over HTTP: what the routes call, and the coroutines that the specification asks for."""

from __future__ import annotations

import os
import uuid
from typing import Any

import numpy as np

from zerocost.api.settings import Settings
from zerocost.api.thread_pool import ThreadPool
from zerocost.api.wire.problems import artifact_errors
from zerocost.api.wire.stages import Stages
from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry, ArtifactSpec
from zerocost.core.copies import counting_copies
from zerocost.core.entry import Entry
from zerocost.core.limits import count_elements
from zerocost.core.results import checked_outputs
from zerocost.errors import LimitExceeded, UnknownArtifact

__all__ = ["ArtifactRESTAPI"]


class ArtifactRESTAPI:
    """RESTful API wrapper for artifacts. The HTTP routes and the coroutines share :meth:`run`."""

    def __init__(self, registry: ArtifactRegistry, settings: Settings | None = None) -> None:
        self.registry = registry
        self.settings = settings or Settings()
        self.plans = ArtifactCommunicationService(registry).artifact_cache
        self.limits = self.settings.limits
        self.model_limits = self.settings.model_limits
        self._threads = ThreadPool(self.settings.slots or os.cpu_count() or 1, "zerocost-api")

    async def execute_artifact(self, artifact_name: str, request_data: dict[str, Any]) -> dict[str, Any]:
        """Execute artifact via REST.

        Returns:
            ``{"status": "success", "data": outputs}``, arrays as arrays, or ``{"error": message}``.
        """
        try:
            result = await self._threads.run(lambda: self.run(artifact_name, request_data))
        except UnknownArtifact:
            return {"error": "Artifact not found"}
        except Exception as error:  # the specification reports every error to the caller
            return {"error": str(error)}
        return {"status": "success", "data": result}

    async def get_artifact_schema(self, artifact_name: str) -> dict[str, Any]:
        """Get artifact schema for validation: ``{"artifact": name, "schema": schema}`` or ``{"error": message}``."""
        spec = self.registry.get_artifact(artifact_name)
        if spec is None:
            return {"error": "Artifact not found"}
        return {"artifact": artifact_name, "schema": spec.ports.published}

    def run(
        self, artifact_name: str, request_data: dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Binds the inputs within this server's limits and executes the artifact.

        Args:
            artifact_name: the artifact's name.
            request_data: every input by name.
            metadata: for the execution context: ``request_id``, ``deadline``, …

        Raises:
            UnknownArtifact: no artifact has that name.
            InvalidInput: the inputs break the schema, or the artifact raised a ValueError or TypeError.
            LimitExceeded: the outputs are, or would be, beyond the limit.
            Exception: whatever else the artifact raises.
        """
        given = {"request_id": str(uuid.uuid4()), "limits": self.limits, **(metadata or {})}
        return self._execute(self.registry[artifact_name], request_data, given)

    def compute(
        self, spec: ArtifactSpec, inputs: dict[str, Any], metadata: dict[str, Any], stages: Stages
    ) -> dict[str, Any]:
        """As :meth:`run`, with a span of its own; counts the bytes that were copied on the way into the kernel."""
        with counting_copies() as copied:
            if "span" in metadata:
                with metadata["span"](f"execute {spec.name}", {"zerocost.artifact": spec.name}) as traceparent:
                    outputs = self._execute(spec, inputs, {**metadata, "traceparent": traceparent})
            else:
                outputs = self._execute(spec, inputs, metadata)
        stages.copied += copied.bytes
        return outputs

    def _execute(self, spec: ArtifactSpec, inputs: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
        context = ExecutionContext(spec.name, spec.interface, "restful", metadata)
        with artifact_errors:
            outputs = spec.implementation.execute(spec.ports.bind(inputs, metadata["limits"]), context)
        if type(outputs) is not dict:
            checked_outputs(outputs, spec.name)
        return self.check_outputs(outputs, spec)

    def check_outputs(self, outputs: dict[str, Any], spec: ArtifactSpec | None = None) -> dict[str, Any]:
        """The outputs, with raw entries of a memory artifact replaced by the values that they hold.

        Raises:
            LimitExceeded: the outputs are beyond the limit.
            NotAcceptable: a raw entry that holds nothing but bytes.
        """
        elements = 0
        for name, value in outputs.items():
            kind = type(value)
            if kind is np.ndarray and value.size:
                elements += value.size
            elif kind is bytes:
                opened = Entry.unpack(value)
                if opened is not value:
                    outputs = {**outputs, name: opened.open()}
                    elements += count_elements(outputs[name])
            elif value is None:
                if spec is not None and "x-tensor" in (spec.ports.outputs or {}).get(name, ()):
                    raise RuntimeError(f"artifact {spec.name}: output {name!r} is declared as a tensor, but is None")
            elif kind is not str:
                elements += count_elements(value)
        if elements > self.limits.elements:
            raise LimitExceeded(f"the outputs have {elements} elements, {self.limits.elements} are allowed")
        return outputs
