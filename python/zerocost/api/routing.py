"""From a request to the function that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Response

__all__ = ["REQUEST", "Endpoint", "RouteCache", "route", "route_template"]

REQUEST = "zerocost.request"
"""Where the scope has the :class:`Request` while the router looks for its endpoint."""

_KNOWN = 1024
"""Paths that are remembered with the endpoint that they lead to."""

EndpointFunction = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """An ASGI app from a coroutine function. It leaves the answer with the request; the front sends it."""

    def __init__(self, path: str, function: EndpointFunction) -> None:
        self.route = path
        """The template of the path that leads here."""
        self.function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request: Request = scope[REQUEST]
        request.response = await self.function(request)


def route(path: str, functions: dict[str, EndpointFunction]) -> Route:
    """The route of a path, with the function of each method; what answers GET answers HEAD."""
    if len(functions) == 1:
        ((method, function),) = functions.items()
        return Route(path, Endpoint(path, function), methods=[method])

    async def dispatch(request: Request) -> Response:
        method = request.method
        return await functions["GET" if method == "HEAD" and method not in functions else method](request)

    return Route(path, Endpoint(path, dispatch), methods=list(functions))


def route_template(scope: Scope) -> str | None:
    """The template of the path (``/artifacts/{name}/execute``): unlike the path it holds nothing of a client's."""
    route: str | None = getattr(scope.get("endpoint"), "route", None)
    return route


class RouteCache:
    """POST routes with a name in their middle, found at once: trying patterns costs more than a small kernel does."""

    def __init__(self, routes: Sequence[BaseRoute], paths: Sequence[str]) -> None:
        """Takes all routes, and the paths of those that are called most, with ``{name}``."""
        endpoints: list[object] = [route.endpoint for route in routes if isinstance(route, Route)]
        known = {endpoint.route: endpoint for endpoint in endpoints if isinstance(endpoint, Endpoint)}
        self._found: list[tuple[str, str, Endpoint]] = []
        for path in paths:
            start, _, end = path.partition("{name}")
            self._found.append((start, end, known[path]))
        self._known: dict[str, tuple[Endpoint, str]] = {}

    def find(self, scope: Scope) -> Endpoint | None:
        """The endpoint of a request, which the scope then names; None: the router must look for it."""
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        found = self._known.get(scope["path"]) or self._look(scope["path"])
        if found is None:
            return None
        scope["endpoint"], name = found
        scope["path_params"] = {"name": name}
        return found[0]

    def _look(self, path: str) -> tuple[Endpoint, str] | None:
        for start, end, endpoint in self._found:
            if path.startswith(start) and path.endswith(end):
                name = path[len(start) : -len(end)]
                if name and "/" not in name:
                    if len(self._known) >= _KNOWN:
                        self._known.clear()
                    self._known[path] = endpoint, name
                    return endpoint, name
        return None
