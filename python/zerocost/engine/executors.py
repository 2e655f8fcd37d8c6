"""Executors by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from zerocost.core.executor import Executor
from zerocost.core.threads import ThreadExecutor
from zerocost.errors import RangeError

if TYPE_CHECKING:
    from zerocost.engine.ray_executor import RayExecutor

__all__ = ["executor"]


@overload
def executor(name: Literal["threads"]) -> ThreadExecutor: ...
@overload
def executor(name: Literal["ray"], address: str | None = None) -> RayExecutor: ...
@overload
def executor(name: str, address: str | None = None) -> Executor: ...
def executor(name: str, address: str | None = None) -> Executor:
    """The executor of that name, for :func:`zerocost.default_registry`.

    Args:
        name: ``"threads"``, the threads of this process, or ``"ray"``.
        address: of the Ray cluster; None: the one that ``RAY_ADDRESS`` names, or one that this process starts.

    Raises:
        RangeError: another name.
        PluginError: Ray is not installed.
        ServiceUnavailable: there is no cluster at the address.
    """
    if name == "threads":
        return ThreadExecutor()
    if name == "ray":
        from zerocost.engine.ray_executor import RayExecutor

        return RayExecutor(address)
    raise RangeError(f"executor: {name!r} was given, 'threads' or 'ray' is allowed", "executor")
