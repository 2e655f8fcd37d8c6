"""The Open Inference Protocol v2, with Triton's extensions for binary tensors, statistics and the repository."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import TYPE_CHECKING, Any

from starlette.routing import Route
from starlette.types import Receive, Scope

from zerocost._kernels import __version__
from zerocost.api.answer import Answer, Endpoint, json_answer
from zerocost.api.chunks import Chunks, aside
from zerocost.api.guard import header, is_administrator, refuse_several_workers
from zerocost.api.inference_body import InferenceRequest, refuse_length
from zerocost.api.inference_values import inputs_of, metadata_tensors, render
from zerocost.api.problems import Refused
from zerocost.core.artifact_registry import ArtifactSpec
from zerocost.errors import ShapeError

if TYPE_CHECKING:
    from zerocost.api.routes import Routes

__all__ = ["OpenInference"]

_EXTENSIONS = [
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "statistics",
    "parameters",
]

_COMPRESS_BYTES = 1024
"""Answers below this size are never compressed."""


class OpenInference:
    """The routes under ``/v2``. Every artifact, chains too, is a model."""

    def __init__(self, native: Routes) -> None:
        self.native = native
        self.registry = native.registry
        self.settings = native.settings
        self._unloaded: dict[str, ArtifactSpec] = {}

    def table(self) -> list[Route]:
        """The list of routes; what is more specific comes first."""
        routes: list[tuple[str, str, Any]] = [
            ("GET", "/v2", self.server),
            ("GET", "/v2/", self.server),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", self.ready),
            ("GET", "/v2/models/stats", self.statistics),
            ("POST", "/v2/repository/index", self.index),
            ("POST", "/v2/repository/models/{name}/load", self.load),
            ("POST", "/v2/repository/models/{name}/unload", self.unload),
            ("GET", "/v2/trace/setting", self.trace),
            ("GET", "/v2/models/{name}/trace/setting", self.trace),
            ("POST", "/v2/trace/setting", self.unsupported),
            ("POST", "/v2/models/{name}/trace/setting", self.unsupported),
            ("GET", "/v2/logging", self.logging),
            ("POST", "/v2/logging", self.unsupported),
        ]
        for kind in ("systemsharedmemory", "cudasharedmemory"):
            routes += [
                ("GET", f"/v2/{kind}/status", self.no_regions),
                ("GET", f"/v2/{kind}/region/{{name}}/status", self.no_regions),
                ("POST", f"/v2/{kind}/unregister", self.nothing),
                ("POST", f"/v2/{kind}/region/{{name}}/unregister", self.nothing),
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
        by_path: dict[str, dict[str, Any]] = {}
        for method, path, function in routes:
            by_path.setdefault(path, {})[method] = function
        return [
            Route(path, Endpoint(_by_method(functions)), methods=list(functions)) for path, functions in by_path.items()
        ]

    async def server(self, scope: Scope, receive: Receive) -> Answer:
        """Server metadata."""
        return json_answer({"name": "zerocost", "version": __version__, "extensions": _EXTENSIONS})

    async def live(self, scope: Scope, receive: Receive) -> Answer:
        """Whether the server answers."""
        return json_answer({"live": True})

    async def ready(self, scope: Scope, receive: Receive) -> Answer:
        """Whether the server takes requests."""
        return await self.native.ready(scope, receive)

    async def model(self, scope: Scope, receive: Receive) -> Answer:
        """Model metadata."""
        spec = self._spec(scope)
        inputs, outputs = metadata_tensors(spec.ports)
        return json_answer(
            {
                "name": spec.name,
                "versions": [version_of(spec)],
                "platform": "zerocost_artifact",
                "inputs": inputs,
                "outputs": outputs,
            }
        )

    async def model_ready(self, scope: Scope, receive: Receive) -> Answer:
        """Whether the model takes requests."""
        spec = self._spec(scope)
        await self.native.ready(scope, receive)
        return json_answer({"name": spec.name, "ready": True})

    async def config(self, scope: Scope, receive: Receive) -> Answer:
        """The model's configuration, as far as Triton's has a meaning here; the schema is at the native route."""
        spec = self._spec(scope)
        inputs, outputs = metadata_tensors(spec.ports)
        required = set(spec.ports.required)
        return json_answer(
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

    async def statistics(self, scope: Scope, receive: Receive) -> Answer:
        """How often each model, or one, was used, and how long it took."""
        specs = [self._spec(scope)] if "name" in scope["path_params"] else self.registry.list_artifacts()
        shared = self.native.workers
        seen = (await asyncio.to_thread(self.native.figures)).observations if shared else self.native.observations
        return json_answer({"model_stats": [seen.of_model(spec.name, version_of(spec)) for spec in specs]})

    async def index(self, scope: Scope, receive: Receive) -> Answer:
        """Every model with its state."""
        body = await self.native.body(scope, receive)
        content = await aside(len(body), lambda: self.native.small_json(body)) if body else {}
        only_ready = content.get("ready", False) if isinstance(content, dict) else None
        if not isinstance(only_ready, bool):
            raise Refused(400, "invalid_input", "an object is needed, in which 'ready' is true or false")
        loaded = [
            {"name": spec.name, "version": version_of(spec), "state": "READY", "reason": ""}
            for spec in self.registry.list_artifacts()
        ]
        unloaded = [
            {"name": spec.name, "version": version_of(spec), "state": "UNAVAILABLE", "reason": "unloaded"}
            for spec in self._unloaded.values()
        ]
        return json_answer(loaded if only_ready else loaded + unloaded)

    async def load(self, scope: Scope, receive: Receive) -> Answer:
        """Brings an unloaded model back. No code and no path is ever taken from a request."""
        name = scope["path_params"]["name"]
        self._check_administrator(scope, f"failed to load {name[:200]!r}")
        parameters = await self._parameters(scope, receive)
        if parameters:
            raise Refused(400, "invalid_input", f"failed to load {name[:200]!r}: parameters are not taken")
        if self.registry.get_artifact(name) is None:
            spec = self._unloaded.pop(name, None)
            if spec is None:
                raise Refused(400, "unknown_artifact", f"failed to load {name[:200]!r}: there is no such model")
            self.registry.register_artifact(spec.name, spec.implementation, spec.interface, spec.metadata)
        return json_answer({})

    async def unload(self, scope: Scope, receive: Receive) -> Answer:
        """Takes a model away, with ``unload_dependents`` also the chains that use it."""
        name = scope["path_params"]["name"]
        self._check_administrator(scope, f"failed to unload {name[:200]!r}")
        parameters = await self._parameters(scope, receive)
        self._spec(scope)
        names = [name]
        if parameters.get("unload_dependents") is True:
            names += [spec.name for spec in self.registry.list_artifacts() if name in spec.implementation.uses]
        for unloaded in names:
            self._unloaded[unloaded] = self.registry.unregister_artifact(unloaded)
        return json_answer({})

    async def trace(self, scope: Scope, receive: Receive) -> Answer:
        """Trace settings: Triton's tracing is not offered."""
        return json_answer({"trace_level": ["OFF"]})

    async def logging(self, scope: Scope, receive: Receive) -> Answer:
        """Log settings: what cannot be changed over the network."""
        return json_answer({"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0})

    async def no_regions(self, scope: Scope, receive: Receive) -> Answer:
        """Shared memory is not offered, so there are no regions."""
        return json_answer([])

    async def nothing(self, scope: Scope, receive: Receive) -> Answer:
        """Unregistering what is not there."""
        return json_answer({})

    async def unsupported(self, scope: Scope, receive: Receive) -> Answer:
        """What this server does not offer."""
        raise Refused(501, "unsupported", "this is not offered")

    async def infer(self, scope: Scope, receive: Receive) -> Answer:
        """Runs a model: JSON, JSON and binary tensors, or one raw tensor."""
        spec = self._spec(scope)
        accepted = header(scope, b"accept-encoding")
        length = refuse_length(header(scope, b"inference-header-content-length"))
        metadata = self.native.metadata(scope)
        stages = self.native.observations.begin(spec.name, scope)
        body: bytes | bytearray = b""
        request: InferenceRequest | None = None
        start = time.perf_counter()
        if length is None:
            body = await self.native.body(scope, receive)
            if b'"timeout"' in body:
                # It says how long the client waits, also for its turn: it must be known before.
                request = await aside(len(body), lambda: InferenceRequest.from_json(body, spec.ports, self.settings))
        else:
            request = await self.native.overdue.watch(self._read_binary(scope, receive, spec, length))
        stages.add("read", start)
        size = len(body) if length is None or request is None else length + request.binary_size
        if request is not None and request.timeout is not None:
            until = scope["zerocost.began"] + request.timeout
            metadata["deadline"] = min(until, metadata.get("deadline", until))

        def compute() -> Answer:
            start = time.perf_counter()
            parsed = request or InferenceRequest.from_json(body, spec.ports, self.settings)
            if parsed.binary_size and length is None:
                raise ShapeError("there are binary tensors, but no Inference-Header-Content-Length")
            parsed.take_bytes()
            inputs = inputs_of(parsed, spec.ports)
            start = stages.add("read", start)
            stages.copied = 0 if length is None else parsed.binary_size
            outputs = self.native.compute(spec, inputs, metadata, stages)
            start = stages.add("compute", start)
            answer = _answer(*render(outputs, parsed, spec.name, version_of(spec)), accepted)
            stages.add("write", start)
            return answer

        return await self.native.run(spec, compute, size, receive, metadata, stages)

    async def _read_binary(self, scope: Scope, receive: Receive, spec: ArtifactSpec, length: int) -> InferenceRequest:
        chunks = Chunks(scope, receive, self.settings)
        chunks.open()
        if chunks.length is not None and length > chunks.length:
            raise ShapeError("Inference-Header-Content-Length is larger than the body")
        if length > self.settings.max_body:
            raise ShapeError("Inference-Header-Content-Length is larger than a body may be")
        if length == 0:
            return await self._read_raw(chunks, spec)
        text = await chunks.read(length)
        if text is None:
            raise ShapeError("Inference-Header-Content-Length is larger than the body")
        request = await aside(length, lambda: InferenceRequest.from_json(text, spec.ports, self.settings))
        size = length + request.binary_size
        if chunks.length is not None and chunks.length != size:
            raise ShapeError(f"unexpected size: the body has {chunks.length} bytes, its JSON announces {size}")
        if size > self.settings.max_body:
            raise ShapeError(f"unexpected size: the JSON announces {size} bytes")
        await request.read_binary(chunks)
        return request

    async def _read_raw(self, chunks: Chunks, spec: ArtifactSpec) -> InferenceRequest:
        if chunks.length is not None:
            request = InferenceRequest.raw(spec.ports, chunks.length)
            await request.read_binary(chunks)
            return request
        # Chunked or compressed: the shape follows from a size that is only known at the end.
        data = await chunks.rest()
        request = InferenceRequest.raw(spec.ports, len(data))
        await request.read_binary(Chunks.of(data, self.settings))
        return request

    def _spec(self, scope: Scope) -> ArtifactSpec:
        name = scope["path_params"]["name"]
        version = scope["path_params"].get("version")
        spec = self.registry.get_artifact(name)
        if spec is None or version not in (None, version_of(spec)):
            shown = repr(name[:200]) + ("" if version is None else f" version {version[:50]!r}")
            raise Refused(404, "unknown_artifact", f"Request for unknown model: {shown} is not found")
        return spec

    def _check_administrator(self, scope: Scope, what: str) -> None:
        if not self.settings.model_control:
            raise Refused(403, "forbidden", f"{what}: loading and unloading models is switched off")
        refuse_several_workers(self.settings, what)
        if self.settings.has_token and not is_administrator(scope, self.settings):
            raise Refused(403, "forbidden", f"{what}: the administrator's token is needed")

    async def _parameters(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        body = await self.native.body(scope, receive)
        content = await aside(len(body), lambda: self.native.small_json(body)) if body else {}
        parameters = content.get("parameters", {}) if isinstance(content, dict) else {}
        if not isinstance(parameters, dict):
            raise Refused(400, "invalid_input", "parameters must be an object")
        return parameters


def version_of(spec: ArtifactSpec) -> str:
    """The version that an artifact's metadata states, ``"1"`` by default."""
    return str(spec.metadata.get("version", "1"))


def _by_method(functions: dict[str, Any]) -> Any:
    async def dispatch(scope: Scope, receive: Receive) -> Answer:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        answer: Answer = await functions[method](scope, receive)
        return answer

    return dispatch


def _config_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    datatype = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
    return {"name": tensor["name"], "data_type": f"TYPE_{datatype}", "dims": tensor["shape"]}


def _answer(text: bytes, blocks: list[memoryview], accepted: str | None) -> Answer:
    has_binary = any(len(block) for block in blocks)
    headers = [(b"content-type", b"application/octet-stream" if has_binary else b"application/json")]
    if has_binary:
        headers.append((b"inference-header-content-length", b"%d" % len(text)))
    body: list[bytes | memoryview] = [text, *(block for block in blocks if len(block))]
    encoding = _encoding(accepted, has_binary=has_binary)
    if encoding is not None and sum(len(piece) for piece in body) >= _COMPRESS_BYTES:
        deflate = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
        body = [b"".join([*(deflate.compress(piece) for piece in body), deflate.flush()])]
        headers += [(b"content-encoding", encoding.encode()), (b"vary", b"Accept-Encoding")]
    return Answer(200, body, headers)


def _encoding(accepted: str | None, *, has_binary: bool) -> str | None:
    """The coding to use. Binary data is compressed only for a client that names one coding and nothing else."""
    codings = [part.strip() for part in (accepted or "").split(",")]
    named = [coding.partition(";")[0].strip() for coding in codings if not coding.replace(" ", "").endswith(";q=0")]
    if has_binary and len(codings) != 1:
        return None
    return next((coding for coding in named if coding in ("gzip", "deflate")), None)
