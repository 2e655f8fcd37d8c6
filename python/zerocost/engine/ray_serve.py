"""An ASGI app on Ray Serve: the same app as under uvicorn, in one process or more on any node of the cluster.

Ray's proxy hands requests with their whole scope to the replicas, so tokens, the loopback rule, limits and errors are
the app's own. State of a process is each replica's own: metrics, statistics, the content of ``lru_cache``, and which
artifacts an administrator has unloaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from zerocost._kernels import positive
from zerocost.engine.cluster import connect
from zerocost.engine.placement import Nodes, set_num_threads, threads_for
from zerocost.errors import PluginError, ServiceUnavailable

__all__ = ["deployed", "serve"]

_NAME = "zerocost"
_ONGOING = 100_000
"""Ray sends a replica every request at once: the app itself decides how many compute, wait or are rejected."""
_DRAIN_SECONDS = 120.0
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""For Ray's own log; requests are in the app's."""


def serve(
    make_app: Callable[[], Any],
    host: str = "127.0.0.1",
    port: int = 8000,
    num_replicas: int = 1,
    *,
    address: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; running requests finish first. Errors are :func:`deployed`'s.

    Args:
        make_app: see :func:`deployed`, as for the next four.
        host: the address.
        port: the port.
        num_replicas: how many processes answer.
        address: of the cluster.
        on_ready: called with the URL once the replicas answer.
    """
    stop = threading.Event()
    with _signals(stop) as install, deployed(make_app, host, port, num_replicas, address=address) as url:
        install()  # starting Ray replaced these handlers
        if on_ready is not None:
            on_ready(url)
        while not stop.wait(1.0):  # on some systems a wait without timeout takes no signals
            pass


@contextlib.contextmanager
def deployed(
    make_app: Callable[[], Any],
    host: str = "127.0.0.1",
    port: int = 8000,
    num_replicas: int = 1,
    *,
    address: str | None = None,
) -> Iterator[str]:
    """An app on Ray Serve while the block runs; afterwards running requests finish and Serve is shut down.

    A replica reserves no CPUs: shards and stages of its requests need them. The replicas of a node share its cores;
    ``ZEROCOST_NUM_THREADS``, if set, is passed on instead.

    Args:
        make_app: makes the app; every replica calls it. Ray sends it with cloudpickle.
        host: the address that Ray's proxy listens on, on the head node of the cluster.
        port: its port; 0 takes a free one.
        num_replicas: how many processes answer, at least 1.
        address: of the cluster; see :func:`zerocost.engine.cluster.connect`.

    Yields:
        The URL, once every replica answers.

    Raises:
        DatatypeError: ``num_replicas`` is not an integer.
        RangeError: ``num_replicas`` below 1.
        PluginError: Ray Serve is not installed.
        ServiceUnavailable: no cluster at the address, Serve runs there already, or the app did not start.
        OSError: the address is taken, or is not this machine's.
    """
    num_replicas = positive(num_replicas, "num_replicas")
    ray, ours = connect(address), False
    try:
        from ray import serve as ray_serve
    except ImportError as error:
        raise PluginError("Ray Serve is not installed; pip install 'zerocost[ray]' brings it") from error
    try:
        with contextlib.suppress(ValueError):
            ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            raise ServiceUnavailable("Ray Serve runs on this cluster already; it has one address and one owner")
        port = _free(host, port)
        ours = True
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=_QUIET)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # starting Serve has reset it
        deploy(make_app, num_replicas)
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        if ours:
            try:
                # The app first, so that running requests finish while their proxy lives.
                with contextlib.suppress(Exception):
                    ray_serve.delete(_NAME)
            finally:
                ray_serve.shutdown()


def deploy(make_app: Callable[[], Any], num_replicas: int) -> None:
    """Deploys the app on a running Serve. It replaces an earlier one.

    Raises:
        ServiceUnavailable: it did not start.
    """
    from ray import serve as ray_serve

    threads = _threads(num_replicas)

    def build() -> Any:
        set_num_threads(threads)  # the environment would also reach shards on other nodes
        return _BehindProxy(make_app())

    deployment = ray_serve.deployment(
        ray_serve.ingress(build)(type("Zerocost", (), {})),
        name=_NAME,
        num_replicas=num_replicas,
        max_ongoing_requests=_ONGOING,
        logging_config=_QUIET,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": _environment()}},
    )
    try:
        ray_serve.run(deployment.bind(), name=_NAME, route_prefix="/")
    except RuntimeError as error:
        raise ServiceUnavailable(f"the app did not start on Ray Serve: {_reason() or error}") from error


def _reason() -> str:
    """The last line of a replica's traceback, which Serve keeps as the status message."""
    from ray import serve as ray_serve

    found = ray_serve.status().applications.get(_NAME)
    messages = [] if found is None else [deployment.message for deployment in found.deployments.values()]
    lines = [line for message in messages for line in message.strip().splitlines()]
    return lines[-1].strip() if lines else ""


class _BehindProxy:
    """Makes responses that Ray's proxy accepts.

    The proxy adds ``x-request-id`` to the response itself, as it did to the request. Bodies must be bytes: views of
    arrays cannot be sent to another process.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            elif not isinstance(message.get("body", b""), bytes):
                message["body"] = bytes(message["body"])
            await send(message)

        await self._app(scope, receive, send_on)


def _threads(num_replicas: int) -> int:
    """A replica's share of its node's cores: Ray would give it one thread."""
    import ray

    nodes = Nodes(ray).current()
    on_one_node = -(-num_replicas // max(1, len(nodes)))
    return threads_for(min((node.cpus for node in nodes), default=1), on_one_node)


def _environment() -> dict[str, str]:
    """The variables that replicas need from here: a running cluster has an environment of its own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("OTEL_") or (name == "ZEROCOST_NUM_THREADS" and value)
    }


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0. Ray's proxy reports a taken port only in a log file."""
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Yields a function that makes SIGINT and SIGTERM set ``stop``. A second signal does not wait for requests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    def install() -> None:
        for number in before:
            signal.signal(number, on_signal)

    try:
        yield install
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
