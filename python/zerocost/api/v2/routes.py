"""The Open Inference Protocol v2, with Triton's extensions for binary tensors, statistics and the repository."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route

from zerocost._kernels import __version__
from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import OFFLOAD_BYTES, Calls
from zerocost.api.edge.authentication import is_administrator, refuse_several_workers
from zerocost.api.routing import EndpointFunction, constant, route
from zerocost.api.server_metrics import ServerMetrics
from zerocost.api.v2.body import InferenceRequest, read_binary_request
from zerocost.api.v2.values import inputs_of, metadata_tensors, write_outputs
from zerocost.api.wire.json import read_document
from zerocost.api.wire.problems import HTTPError
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Response, json_response
from zerocost.api.wire.stages import COMPUTE, READ, WRITE
from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.errors import ShapeError

__all__ = ["OpenInferenceRoutes"]

_EXTENSIONS = [
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "statistics",
    "parameters",
]

_COMPRESS_BYTES = 1024
"""Responses below this size are never compressed."""


class OpenInferenceRoutes:
    """The endpoints under ``/v2``. Every artifact is a model, chains too."""

    def __init__(self, api: ArtifactRESTAPI, calls: Calls, metrics: ServerMetrics) -> None:
        self.api = api
        self.calls = calls
        self.metrics = metrics
        self.registry = api.registry
        self.settings = api.settings
        self._unloaded: dict[str, ArtifactSpec] = {}

    def table(self) -> list[Route]:
        """The list of routes; the more specific ones come first."""
        server = constant(json_response({"name": "zerocost", "version": __version__, "extensions": _EXTENSIONS}))
        # Triton's tracing is not offered, its log settings cannot be changed, and there are no shared memory regions.
        trace = constant(json_response({"trace_level": ["OFF"]}))
        log = {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0}
        regions, nothing = constant(json_response([])), constant(json_response({}))
        routes: list[tuple[str, str, EndpointFunction]] = [
            ("GET", "/v2", server),
            ("GET", "/v2/", server),
            ("GET", "/v2/health/live", constant(json_response({"live": True}))),
            ("GET", "/v2/health/ready", self.ready),
            ("GET", "/v2/models/stats", self.statistics),
            ("POST", "/v2/repository/index", self.index),
            ("POST", "/v2/repository/models/{name}/load", self.load),
            ("POST", "/v2/repository/models/{name}/unload", self.unload),
            ("GET", "/v2/trace/setting", trace),
            ("GET", "/v2/models/{name}/trace/setting", trace),
            ("POST", "/v2/trace/setting", self.unsupported),
            ("POST", "/v2/models/{name}/trace/setting", self.unsupported),
            ("GET", "/v2/logging", constant(json_response(log))),
            ("POST", "/v2/logging", self.unsupported),
        ]
        for kind in ("systemsharedmemory", "cudasharedmemory"):
            routes += [
                ("GET", f"/v2/{kind}/status", regions),
                ("GET", f"/v2/{kind}/region/{{name}}/status", regions),
                ("POST", f"/v2/{kind}/unregister", nothing),
                ("POST", f"/v2/{kind}/region/{{name}}/unregister", nothing),
                ("POST", f"/v2/{kind}/region/{{name}}/register", self.unsupported),
            ]
        for prefix in ("/v2/models/{name}/versions/{version}", "/v2/models/{name}"):
            routes.insert(0, ("POST", f"{prefix}/infer", self.infer))
            routes += [
                ("GET", prefix, self.model),
                ("GET", f"{prefix}/ready", self.model_ready),
                ("GET", f"{prefix}/config", self.config),
                ("GET", f"{prefix}/stats", self.statistics),
            ]
        by_path: dict[str, dict[str, EndpointFunction]] = {}
        for method, path, function in routes:
            by_path.setdefault(path, {})[method] = function
        return [route(path, functions) for path, functions in by_path.items()]

    async def ready(self, request: Request) -> Response:
        """Whether the server accepts requests."""
        self.calls.check_ready()
        return json_response({"ready": True})

    async def model(self, request: Request) -> Response:
        """Model metadata."""
        spec = self._spec(request)
        inputs, outputs = metadata_tensors(spec.ports)
        return json_response(
            {
                "name": spec.name,
                "versions": [version_of(spec)],
                "platform": "zerocost_artifact",
                "inputs": inputs,
                "outputs": outputs,
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Whether the model accepts requests."""
        spec = self._spec(request)
        self.calls.check_ready()
        return json_response({"name": spec.name, "ready": True})

    async def config(self, request: Request) -> Response:
        """The model's configuration, as far as Triton's applies here; the schema is at the native route."""
        spec = self._spec(request)
        inputs, outputs = metadata_tensors(spec.ports)
        required = set(spec.ports.required)
        return json_response(
            {
                "name": spec.name,
                "platform": "zerocost_artifact",
                "backend": "zerocost",
                "max_batch_size": 0,
                "input": [{**_config_tensor(tensor), "optional": tensor["name"] not in required} for tensor in inputs],
                "output": [_config_tensor(tensor) for tensor in outputs],
                "parameters": {"schema": {"string_value": f"/artifacts/{spec.name}/schema"}},
            }
        )

    async def statistics(self, request: Request) -> Response:
        """How often each model, or one, was used, and how long it took."""
        specs = [self._spec(request)] if "name" in request.path_params else self.registry.list_artifacts()
        observations = (await self.metrics.snapshot()).observations
        statistics = [observations.model_statistics(spec.name, version_of(spec)) for spec in specs]
        return json_response({"model_stats": statistics})

    async def index(self, request: Request) -> Response:
        """Every model with its state."""
        content = await self._content(request)
        only_ready = content.get("ready", False) if isinstance(content, dict) else None
        if not isinstance(only_ready, bool):
            raise HTTPError(400, "invalid_input", "the body must be an object whose 'ready' is true or false")
        loaded = [
            {"name": spec.name, "version": version_of(spec), "state": "READY", "reason": ""}
            for spec in self.registry.list_artifacts()
        ]
        unloaded = [
            {"name": spec.name, "version": version_of(spec), "state": "UNAVAILABLE", "reason": "unloaded"}
            for spec in self._unloaded.values()
        ]
        return json_response(loaded if only_ready else loaded + unloaded)

    async def load(self, request: Request) -> Response:
        """Brings back an unloaded model. A request can give neither code nor a path."""
        name = request.path_params["name"]
        self._check_administrator(request, f"failed to load {name[:200]!r}")
        parameters = await self._parameters(request)
        if parameters:
            raise HTTPError(400, "invalid_input", f"failed to load {name[:200]!r}: parameters are not accepted")
        if self.registry.get_artifact(name) is None:
            spec = self._unloaded.pop(name, None)
            if spec is None:
                raise HTTPError(400, "unknown_artifact", f"failed to load {name[:200]!r}: there is no such model")
            self.registry.register_artifact(spec.name, spec.implementation, spec.interface, spec.metadata)
        return json_response({})

    async def unload(self, request: Request) -> Response:
        """Removes a model, and with ``unload_dependents`` also the chains that use it."""
        name = request.path_params["name"]
        self._check_administrator(request, f"failed to unload {name[:200]!r}")
        parameters = await self._parameters(request)
        self._spec(request)
        names = [name]
        if parameters.get("unload_dependents") is True:
            names += [spec.name for spec in self.registry.list_artifacts() if name in spec.implementation.uses]
        for unloaded in names:
            self._unloaded[unloaded] = self.registry.unregister_artifact(unloaded)
        return json_response({})

    async def unsupported(self, request: Request) -> Response:
        """Refuses what this server does not offer."""
        raise HTTPError(501, "unsupported", "this is not offered")

    async def infer(self, request: Request) -> Response:
        """Runs a model: JSON, JSON and binary tensors, or one raw tensor."""
        spec, calls, settings = self._spec(request), self.calls, self.settings
        accepted = request.header(b"accept-encoding")
        length = request.whole_number("Inference-Header-Content-Length")
        stages, metadata = calls.begin(request, spec.name)
        body: bytes | bytearray = b""
        inference: InferenceRequest | None = None

        def parse() -> InferenceRequest:
            return InferenceRequest.from_json(body, spec.ports, settings)

        if length is None:
            body = await calls.bodies.read_whole(request)
            if b'"timeout"' in body:
                # The time-out includes the wait for a turn, so it must be known before.
                parsing = calls.offload(len(body), parse)
                is_long = len(body) > OFFLOAD_BYTES
                inference = await (calls.admit(request, parsing, metadata.get("deadline")) if is_long else parsing)
            size = len(body)
        else:
            reading = read_binary_request(request, length, spec.ports, settings, calls.offload_if_room)
            inference = await calls.bodies.within_deadline(request, reading)
            size = length + inference.binary_size
        if inference is not None and inference.timeout is not None:
            until = request.began + inference.timeout
            metadata["deadline"] = min(until, metadata.get("deadline", until))

        def compute() -> Response:
            parsed = inference or parse()
            if parsed.binary_size and length is None:
                raise ShapeError("there are binary tensors, but no Inference-Header-Content-Length")
            parsed.decode_bytes()
            inputs = inputs_of(parsed, spec.ports)
            stages.end(READ)
            stages.copied = 0 if length is None else parsed.binary_size
            outputs = self.api.compute(spec, inputs, metadata, stages)
            stages.end(COMPUTE)
            response = _response(*write_outputs(outputs, parsed, spec.name, version_of(spec)), accepted)
            stages.end(WRITE)
            return response

        return await calls.run(request, spec.implementation, compute, size, metadata)

    def _spec(self, request: Request) -> ArtifactSpec:
        name, version = request.path_params["name"], request.path_params.get("version")
        spec = self.registry.get_artifact(name)
        if spec is None or version not in (None, version_of(spec)):
            shown = repr(name[:200]) + ("" if version is None else f" version {version[:50]!r}")
            raise HTTPError(404, "unknown_artifact", f"Request for unknown model: {shown} is not found")
        return spec

    def _check_administrator(self, request: Request, what: str) -> None:
        if not self.settings.model_control:
            raise HTTPError(403, "forbidden", f"{what}: loading and unloading models is switched off")
        refuse_several_workers(self.settings, what)
        if self.settings.has_token and not is_administrator(request, self.settings):
            raise HTTPError(403, "forbidden", f"{what}: the administrator's token is needed")

    async def _content(self, request: Request) -> Any:
        body = await self.calls.bodies.read_whole(request)
        return await self.calls.offload_if_room(len(body), lambda: read_document(body, self.settings)) if body else {}

    async def _parameters(self, request: Request) -> dict[str, Any]:
        content = await self._content(request)
        parameters = content.get("parameters", {}) if isinstance(content, dict) else {}
        if not isinstance(parameters, dict):
            raise HTTPError(400, "invalid_input", "parameters must be an object")
        return parameters


def version_of(spec: ArtifactSpec) -> str:
    """The version in an artifact's metadata, ``"1"`` by default."""
    return str(spec.metadata.get("version", "1"))


def _config_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    datatype = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
    return {"name": tensor["name"], "data_type": f"TYPE_{datatype}", "dims": tensor["shape"]}


def _response(text: bytes, blocks: list[memoryview], accepted: str | None) -> Response:
    has_binary = any(len(block) for block in blocks)
    headers = [(b"content-type", b"application/octet-stream" if has_binary else b"application/json")]
    if has_binary:
        headers.append((b"inference-header-content-length", b"%d" % len(text)))
    response = Response(200, [text, *(block for block in blocks if len(block))], headers)
    encoding = _encoding(accepted, has_binary=has_binary)
    if encoding is not None and sum(map(len, response.body)) >= _COMPRESS_BYTES:
        response.compress(encoding)
    return response


def _encoding(accepted: str | None, *, has_binary: bool) -> str | None:
    """The coding to use, None for none. Binary data is compressed only for a client that accepts exactly one coding."""
    codings = [part.strip() for part in (accepted or "").split(",")]
    named = [coding.partition(";")[0].strip() for coding in codings if not coding.replace(" ", "").endswith(";q=0")]
    if has_binary and len(codings) != 1:
        return None
    return next((coding for coding in named if coding in ("gzip", "deflate")), None)
