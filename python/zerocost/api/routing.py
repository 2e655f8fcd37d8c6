"""From a request to the function that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from zerocost.api.wire.request import Request
from zerocost.api.wire.responses import Response

__all__ = ["REQUEST", "EndpointFunction", "RouteApp", "RouteCache", "constant", "route", "route_template"]

REQUEST = "zerocost.request"
"""The key of the scope under which :class:`RouteApp` finds the :class:`Request`."""

_CACHED_PATHS = 1024

EndpointFunction = Callable[[Request], Awaitable[Response]]


class RouteApp:
    """An ASGI app from a coroutine function. It leaves the response with the request; the edge sends it."""

    def __init__(self, path: str, function: EndpointFunction) -> None:
        self.route = path
        """The template of the path that leads here."""
        self.function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request: Request = scope[REQUEST]
        request.response = await self.function(request)


def constant(response: Response) -> EndpointFunction:
    """An endpoint that always gives the same response."""

    async def respond(request: Request) -> Response:
        return response

    return respond


def route(path: str, functions: dict[str, EndpointFunction]) -> Route:
    """The route of a path, with the function of each method; that of GET also answers HEAD."""
    if len(functions) == 1:
        ((method, function),) = functions.items()
        return Route(path, RouteApp(path, function), methods=[method])

    async def dispatch(request: Request) -> Response:
        method = request.method
        return await functions["GET" if method == "HEAD" and method not in functions else method](request)

    return Route(path, RouteApp(path, dispatch), methods=list(functions))


def route_template(scope: Scope) -> str | None:
    """The template of the path (``/artifacts/{name}/execute``); unlike the path it repeats nothing of the client's."""
    template: str | None = getattr(scope.get("endpoint"), "route", None)
    return template


class RouteCache:
    """Finds the busiest POST routes without a search: matching patterns costs more than a small kernel."""

    def __init__(self, routes: Sequence[BaseRoute], paths: Sequence[str]) -> None:
        """Takes all routes, and the paths of the busiest, each with ``{name}`` in its middle."""
        endpoints: list[object] = [route.endpoint for route in routes if isinstance(route, Route)]
        by_path = {endpoint.route: endpoint for endpoint in endpoints if isinstance(endpoint, RouteApp)}
        self._patterns: list[tuple[str, str, RouteApp]] = []
        for path in paths:
            start, _, end = path.partition("{name}")
            self._patterns.append((start, end, by_path[path]))
        self._cached: dict[str, tuple[RouteApp, str]] = {}

    def find(self, scope: Scope) -> RouteApp | None:
        """The endpoint of a request, which it also puts into the scope; None: the router must look for it."""
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        found = self._cached.get(scope["path"]) or self._match(scope["path"])
        if found is None:
            return None
        scope["endpoint"], name = found
        scope["path_params"] = {"name": name}
        return found[0]

    def _match(self, path: str) -> tuple[RouteApp, str] | None:
        for start, end, endpoint in self._patterns:
            if path.startswith(start) and path.endswith(end):
                name = path[len(start) : -len(end)]
                if name and "/" not in name:
                    if len(self._cached) >= _CACHED_PATHS:
                        self._cached.clear()
                    self._cached[path] = endpoint, name
                    return endpoint, name
        return None
