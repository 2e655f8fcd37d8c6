"""The services over HTTP: each route reads a request, calls an endpoint of a service, and writes the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.routing import Route

from zerocost._kernels import write_json
from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.calls import Calls
from zerocost.api.edge.authentication import is_administrator, refuse_several_workers
from zerocost.api.routing import EndpointFunction, route
from zerocost.api.wire.json import read_document
from zerocost.api.wire.preconditions import Preconditions
from zerocost.api.wire.problems import HTTPError, artifact_errors
from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import JSON, Response, wants_typed_tensors
from zerocost.api.wire.stages import COMPUTE, READ, WRITE
from zerocost.core.entry import Entry
from zerocost.errors import DatatypeError, InvalidInput, LimitExceeded, PreconditionFailed, RangeError
from zerocost.services.endpoints import Endpoint
from zerocost.services.memory_service import ABSENT, ENTRY_TYPES, MemoryService
from zerocost.services.model_service import SimplifiedModelService
from zerocost.services.request_context import request_context
from zerocost.services.service import Service

__all__ = ["ServiceRoutes"]

Result = TypeVar("Result")

_ENTRIES = "services/memory/entries"
_LONGEST_KEY = 1000


class ServiceRoutes:
    """The routes under ``/services``.

    Args:
        api: the settings, the registry and the limits of the server.
        calls: reads and answers requests.
        model: the model service.
    """

    def __init__(self, api: ArtifactRESTAPI, calls: Calls, model: SimplifiedModelService) -> None:
        self._api = api
        self._calls = calls
        self._settings = api.settings
        self._registry = api.registry
        self._services: dict[str, Service] = {"model": model, "tokenizer": model.tokenizer}
        self._memory: MemoryService | None = None
        self.kinds: dict[str, type[Service]] = {
            **{name: type(service) for name, service in self._services.items()},
            "memory": MemoryService,
        }
        """The class of each service, by its name."""

    def table(self) -> list[Route]:
        """The list of routes."""
        routes = [
            route(f"/services/{name}/{endpoint.name}", {"POST": self._handler(name, endpoint)})
            for name, kind in self.kinds.items()
            for endpoint in kind.endpoints().values()
        ]
        entries: dict[str, EndpointFunction] = {
            "GET": self._get_entry,
            "PUT": self._put_entry,
            "DELETE": self._delete_entry,
        }
        return [*routes, route(f"/{_ENTRIES}/{{key:path}}", entries)]

    def _handler(self, name: str, endpoint: Endpoint) -> EndpointFunction:
        calls, settings = self._calls, self._settings
        # A memory artifact waits more than it computes if it is on another server.
        pool = calls.io_pool if name == "memory" else calls.compute_pool

        async def handle(request: Request) -> Response:
            if endpoint.is_administrative:
                self._require_administrator(request)
            request.check_json()
            typed = wants_typed_tensors(request.header(b"accept"))
            stages, metadata = calls.begin(request, f"services/{name}/{endpoint.name}")
            body = await calls.bodies.read_whole(request)

            async def work() -> Response:
                data = await calls.offload(len(body), lambda: read_document(body, settings))
                if not isinstance(data, dict):
                    raise DatatypeError("the body: an object is needed")
                stages.end(READ)
                with artifact_errors:
                    service = self._memory_service() if name == "memory" else self._services[name]
                    result = await endpoint(service, data, self._api.model_limits)
                stages.end(COMPUTE)
                content = await pool.run(lambda: write_json(result, typed=typed))
                stages.end(WRITE)
                return Response(200, [content], [JSON])

            deadline = metadata.get("deadline")
            with request_context(deadline, pool.run):
                return await calls.admit(request, work(), deadline)

        return handle

    def _require_administrator(self, request: Request) -> None:
        if not is_administrator(request, self._settings):
            raise HTTPError(403, "forbidden", "changing what the server uses needs the token of the administrator")
        refuse_several_workers(self._settings, "send the artifacts with each request")

    def _memory_service(self) -> MemoryService:
        if self._memory is None:
            self._memory = MemoryService(self._registry)
        return self._memory

    # Raw entries of the memory service

    async def _get_entry(self, request: Request) -> Response:
        _, metadata = self._calls.begin(request, _ENTRIES)
        key, conditions, memory = _key(request), Preconditions(request), self._memory_service()

        def get() -> tuple[Entry, str]:
            entry = _as_entry(memory.get(key))
            if not conditions.matches(entry.tag):
                raise PreconditionFailed("If-Match: something else is stored there")
            return entry, entry.tag

        entry, tag = await self._run(request, metadata, get)
        headers = [_etag(tag), (b"content-type", entry.media_type.encode())]
        return Response(200, [entry.body], headers) if conditions.is_new(tag) else Response(304, [], headers[:1])

    async def _put_entry(self, request: Request) -> Response:
        stages, metadata = self._calls.begin(request, _ENTRIES)
        key, kind, conditions = _key(request), request.media_type, Preconditions(request)
        if kind not in ENTRY_TYPES:
            allowed = ", ".join(ENTRY_TYPES)
            raise HTTPError(
                415, "unsupported_media_type", f"Content-Type: {kind[:100]!r} was given, {allowed} are allowed"
            )
        ttl, memory = request.seconds("Zerocost-TTL"), self._memory_service()
        body = await self._calls.bodies.read_whole(request)
        stages.end(READ)

        def put() -> str:
            entry = Entry(kind, bytes(body))
            if not memory.put(key, entry, ttl=ttl, when=_when(conditions)):
                raise LimitExceeded(f"{len(entry.body)} bytes are more than the memory holds")
            return entry.tag

        return Response(204, [], [_etag(await self._run(request, metadata, put))])

    async def _delete_entry(self, request: Request) -> Response:
        _, metadata = self._calls.begin(request, _ENTRIES)
        key, conditions, memory = _key(request), Preconditions(request), self._memory_service()
        await self._run(request, metadata, lambda: memory.delete(key, when=_when(conditions)))
        return Response(204, [])

    async def _run(self, request: Request, metadata: dict[str, Any], job: Callable[[], Result]) -> Result:
        calls, stages, deadline = self._calls, request.stages, metadata.get("deadline")

        def work() -> Result:
            result = job()
            if stages is not None:
                stages.end(COMPUTE)
            return result

        with request_context(deadline):
            return await calls.admit(request, calls.run_in(request, calls.io_pool, work), deadline)


def _when(conditions: Preconditions) -> Callable[[Any], bool] | None:
    """The condition for changing an entry; None without preconditions."""
    if not conditions:
        return None
    return lambda stored: conditions.holds(None if stored is ABSENT else _as_entry(stored).tag)


def _etag(tag: str) -> tuple[bytes, bytes]:
    return b"etag", f'"{tag}"'.encode()


def _key(request: Request) -> str:
    key = request.path_params["key"]
    if "\ufffd" in key and b"%ef%bf%bd" not in request.scope.get("raw_path", b"").lower():
        # The server decodes every invalid byte to this character, so different keys would become one.
        raise RangeError("key: the path is not UTF-8", "key")
    if not 0 < len(key) <= _LONGEST_KEY:
        raise RangeError(f"key: {len(key)} characters were given, 1 to {_LONGEST_KEY} are allowed", "key")
    return key


def _as_entry(value: Any) -> Entry:
    """A stored value for a client: a raw entry as it was put, bytes as they are, everything else as JSON."""
    if isinstance(value, Entry):
        return value
    if isinstance(value, bytes):
        return Entry("application/octet-stream", value)
    try:
        return Entry("application/json", orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError:
        raise InvalidInput(f"key: a {type(value).__name__} is stored there, which cannot be sent", "key") from None
