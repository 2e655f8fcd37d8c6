"""The services over HTTP: each route translates and calls the service's own ``post_`` method, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import orjson
from starlette.routing import Route
from starlette.types import Receive, Scope

from zerocost._kernels import write_json
from zerocost.api.answer import Answer, Endpoint
from zerocost.api.body import media_type
from zerocost.api.guard import header, is_administrator, refuse_several_workers
from zerocost.api.json_body import wants_typed_tensors
from zerocost.api.limiter import answered
from zerocost.api.problems import Refused, as_input_error
from zerocost.api.routes import Routes, require_json
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import (
    DatatypeError,
    InvalidInput,
    LimitExceeded,
    RangeError,
    ZerocostError,
)
from zerocost.services.active import until
from zerocost.services.memory_service import Entry, MemoryService
from zerocost.services.model_service import SimplifiedModelService
from zerocost.services.service import Service

__all__ = ["ServiceRoutes"]

_JSON = (b"content-type", b"application/json")
_ENTRY_TYPES = ("application/json", "application/octet-stream", "application/vnd.safetensors")
_LONGEST_KEY = 1000
_INLINE_BYTES = 1 << 16
"""Bodies up to this size are read on the event loop."""

Call = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]


class ServiceRoutes:
    """The handlers of the services.

    Args:
        routes: the native routes, whose ways of reading a request these share.
        model: the model service.
    """

    def __init__(self, routes: Routes, model: SimplifiedModelService) -> None:
        self._routes = routes
        self._settings = routes.settings
        self._registry: ArtifactRegistry = routes.registry
        self._model = model
        self._memory: MemoryService | None = None
        self._pending = 0

    def table(self) -> list[Route]:
        """The list of routes."""
        tokenizer = self._model.tokenizer
        calls: dict[str, Call] = {
            "model/forward": self._forward,
            "model/embed": self._embed,
            "tokenizer/encode": tokenizer.post_encode,
            "tokenizer/decode": tokenizer.post_decode,
            "tokenizer/count": tokenizer.post_count,
            **{
                f"memory/{name}": self._of_memory(f"post_{name}")
                for name in ("get", "put", "delete", "clear", "stats", "active_artifacts")
            },
        }
        changes: dict[str, Call] = {
            "memory/use_artifact": self._use(None),
            "memory/stop_artifact": self._of_memory("post_stop_artifact"),
        }
        for name, service in (("model", self._model), ("tokenizer", tokenizer)):
            calls[f"{name}/active_artifacts"] = service.post_active_artifacts
            changes[f"{name}/use_artifact"] = self._use(service)
            changes[f"{name}/stop_artifact"] = service.post_stop_artifact
        entry = "/services/memory/entries/{key:path}"
        entries = {
            "GET": self._get_entry,
            "HEAD": self._get_entry,
            "PUT": self._put_entry,
            "DELETE": self._delete_entry,
        }
        return [
            *(Route(f"/services/{path}", self._endpoint(path, call), methods=["POST"]) for path, call in calls.items()),
            *(
                Route(f"/services/{path}", self._endpoint(path, call, changes_server=True), methods=["POST"])
                for path, call in changes.items()
            ),
            Route(entry, self._entry(entries), methods=list(entries)),
        ]

    def _endpoint(self, path: str, call: Call, *, changes_server: bool = False) -> Endpoint:
        async def handle(scope: Scope, receive: Receive) -> Answer:
            if changes_server:
                self._require_administrator(scope)
            require_json(scope)
            typed = wants_typed_tensors(header(scope, b"accept"))
            metadata = self._routes.metadata(scope)
            stages = self._routes.observations.begin(f"services/{path}", scope)
            start = time.perf_counter()
            body = await self._routes.body(scope, receive)
            data = await _apart(len(body), self._routes.small_json, body)
            if not isinstance(data, dict):
                raise DatatypeError("the body: an object is needed")
            start = stages.add("read", start)
            answer = await self._bounded(call(data), receive, metadata.get("deadline"))
            start = stages.add("compute", start)
            content = await asyncio.to_thread(write_json, answer, typed=typed)
            stages.add("write", start)
            return Answer(200, [content], [_JSON])

        return Endpoint(handle)

    def _entry(self, functions: Mapping[str, Callable[[Scope, Receive], Awaitable[Answer]]]) -> Endpoint:
        async def handle(scope: Scope, receive: Receive) -> Answer:
            stages = self._routes.observations.begin("services/memory/entries", scope)
            start = time.perf_counter()
            with until(self._routes.metadata(scope).get("deadline")):
                answer = await functions[scope["method"]](scope, receive)
            stages.add("compute", start)
            return answer

        return Endpoint(handle)

    async def _bounded(
        self, answer: Coroutine[Any, Any, dict[str, Any]], receive: Receive, deadline: float | None
    ) -> dict[str, Any]:
        """Waits for an answer while the client and the deadline do; turns requests away while too many wait."""
        if self._pending >= self._settings.max_waiting:
            answer.close()
            raise Refused(429, "overloaded", "the server has too much to do; try again later", {"retry-after": "1"})
        self._pending += 1
        try:
            with until(deadline):
                task = asyncio.ensure_future(answer)
            return await answered(task, receive, deadline)
        except ZerocostError:
            raise
        except (ValueError, TypeError) as error:  # of a third-party artifact
            raise as_input_error(error) from error
        finally:
            self._pending -= 1

    async def _forward(self, data: dict[str, Any]) -> dict[str, Any]:
        self._check_artifacts(data)
        return await self._model.post_forward(data, self._routes.api.model_limits)

    async def _embed(self, data: dict[str, Any]) -> dict[str, Any]:
        self._check_artifacts(data)
        return await self._model.post_embed(data, self._routes.api.model_limits)

    def _check_artifacts(self, data: dict[str, Any]) -> None:
        """Refuses parameters that have no meaning over a network; the service checks everything else."""
        artifacts = data.get("artifacts")
        for choice in artifacts.values() if isinstance(artifacts, dict) else ():
            if isinstance(choice, dict) and isinstance(choice.get("artifact"), str):
                self._refuse_in_process(choice["artifact"], choice.get("params"))

    def _refuse_in_process(self, name: str, params: Any) -> None:
        spec = self._registry.get_artifact(name)
        if spec is not None and isinstance(params, dict):
            hidden = [key for key in params if key in spec.ports.in_process]
            if hidden:
                raise InvalidInput(
                    f"artifacts: {', '.join(hidden)} is for callers in the same process only", "artifacts"
                )

    def _use(self, service: Service | None) -> Call:
        """``use_artifact`` of a service; None: of the memory."""

        async def call(data: dict[str, Any]) -> dict[str, Any]:
            name = data.get("artifact_name")
            if isinstance(name, str):
                self._refuse_in_process(name, data.get("params"))
            return await (service or self._memory_service()).post_use_artifact(data)

        return call

    def _require_administrator(self, scope: Scope) -> None:
        if not is_administrator(scope, self._settings):
            raise Refused(403, "forbidden", "changing what the server uses needs the token of the administrator")
        refuse_several_workers(self._settings, "send the artifacts with each request")

    def _of_memory(self, name: str) -> Call:
        async def call(data: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = await getattr(self._memory_service(), name)(data)
            return answer

        return call

    def _memory_service(self) -> MemoryService:
        if self._memory is None:
            self._memory = MemoryService(self._registry)
        return self._memory

    async def _get_entry(self, scope: Scope, receive: Receive) -> Answer:
        value = await asyncio.to_thread(self._memory_service().get, _key(scope))
        entry = value if isinstance(value, Entry) else _as_entry(value)
        tag = f'"{entry.tag}"'
        headers = [(b"etag", tag.encode()), (b"content-type", entry.media_type.encode())]
        asked = header(scope, b"if-none-match")
        known = [one.strip().removeprefix("W/") for one in (asked or "").split(",")]
        if tag in known or "*" in known:
            return Answer(304, [], headers[:1])
        return Answer(200, [entry.body], headers)

    async def _put_entry(self, scope: Scope, receive: Receive) -> Answer:
        key, kind = _key(scope), media_type(scope)
        if kind not in _ENTRY_TYPES:
            allowed = ", ".join(_ENTRY_TYPES)
            raise Refused(
                415, "unsupported_media_type", f"Content-Type: {kind[:100]!r} was given, {allowed} are allowed"
            )
        ttl = _seconds(header(scope, b"zerocost-ttl"))
        entry = Entry(kind, bytes(await self._routes.body(scope, receive)))
        if not await asyncio.to_thread(self._memory_service().put, key, entry, ttl=ttl):
            raise LimitExceeded(f"{len(entry.body)} bytes are more than the memory holds")
        return Answer(204, [], [(b"etag", f'"{entry.tag}"'.encode())])

    async def _delete_entry(self, scope: Scope, receive: Receive) -> Answer:
        await asyncio.to_thread(self._memory_service().delete, _key(scope))
        return Answer(204, [])


async def _apart(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function whose work grows with ``size``: here if it is small, else in another thread."""
    return function(*arguments) if size <= _INLINE_BYTES else await asyncio.to_thread(function, *arguments)


def _key(scope: Scope) -> str:
    key: str = scope["path_params"]["key"]
    if "\ufffd" in key and b"%ef%bf%bd" not in scope.get("raw_path", b"").lower():
        # The server decodes what is no UTF-8 to this character: different keys would be one.
        raise RangeError("key: the path is not UTF-8", "key")
    if not 0 < len(key) <= _LONGEST_KEY:
        raise RangeError(f"key: {len(key)} characters were given, 1 to {_LONGEST_KEY} are allowed", "key")
    return key


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refused(400, "bad_request", "Zerocost-TTL must be a number of seconds") from None


def _as_entry(value: Any) -> Entry:
    """What was put in the process, for a client: bytes as they are, everything else as JSON."""
    if isinstance(value, bytes):
        return Entry("application/octet-stream", value)
    try:
        return Entry("application/json", orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError:
        raise InvalidInput(f"key: a {type(value).__name__} is stored there, which cannot be sent", "key") from None
