"""Connecting to Ray, and translating its failures.

Ray serialises with cloudpickle inside the cluster: nowhere else are objects of zerocost pickled. Usage statistics are
off unless the environment says otherwise.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from zerocost.errors import LimitExceeded, PluginError, ServiceUnavailable

__all__ = ["connect", "export_address", "failure"]

_CONNECT_SECONDS = 10.0


def connect(address: str | None = None) -> Any:
    """The module ``ray``, connected to a cluster.

    Args:
        address: of a running cluster (``"auto"``: the one on this machine); None: the one that ``RAY_ADDRESS`` names,
            or one that this process starts on the loopback address and that ends with it. A process that is connected
            already keeps its connection.

    Raises:
        PluginError: Ray is not installed.
        ServiceUnavailable: the address is invalid, no cluster answers there, the cluster has another version of Ray
            or Python, or none could be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        # Ray reads it when it is imported. Without it even a cluster of one listens on the network card's address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise PluginError("Ray is not installed; pip install 'zerocost[ray]' brings it") from error
    if not ray.is_initialized():
        try:
            dashboard = None if address else False
            if address:
                _check_reachable(address)
            ray.init(address or "local", include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise ServiceUnavailable(f"{_what_failed(address, error)}: {error}", "address") from error
    return ray


def _what_failed(address: str | None, error: Exception) -> str:
    if not address:
        return "Ray cannot be started here"
    if isinstance(error, OSError | ValueError):
        return f"no Ray cluster answers at {address}"
    return f"the Ray cluster at {address} cannot be joined"


def export_address() -> None:
    """Sets ``RAY_ADDRESS``, so that processes that this one starts join its cluster."""
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


def _check_reachable(address: str) -> None:
    """Raises at once if nobody listens: Ray would retry for minutes.

    Raises:
        OSError: nobody listens there.
        ValueError: no valid port.
    """
    if address in ("auto", "local") or "://" in address:
        return  # Ray finds or starts it, or has another protocol
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.port is None:
        raise ValueError("it is not of the form host:port")
    socket.create_connection((parts.hostname, parts.port), _CONNECT_SECONDS).close()


def failure(error: Exception, what: Callable[[], str]) -> Exception:
    """The exception that a caller gets for a failure of Ray: what the remote code raised, or that the work was lost.

    Args:
        error: what Ray raised.
        what: names the shard, stage or replica.
    """
    from ray import exceptions

    cause: Any = error
    while isinstance(cause, exceptions.RayTaskError) and isinstance(cause.cause, Exception):
        cause = cause.cause
    if isinstance(cause, exceptions.ObjectStoreFullError):
        return LimitExceeded(f"{what()}: the object store of a node is full; start Ray with more object_store_memory")
    if isinstance(cause, exceptions.RayTaskError):
        return ServiceUnavailable(f"{what()} failed in a way that cannot be sent here: {_last_line(cause)}")
    if isinstance(cause, exceptions.RayError):
        return ServiceUnavailable(f"{what()} was lost and could not be run again ({type(cause).__name__})")
    return cause if isinstance(cause, Exception) else error


def _last_line(error: Exception) -> str:
    """Of the traceback that a RayTaskError is: the remote exception."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
