"""Any artifact on a Ray cluster, behind the interface that it has here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from zerocost.core.artifact_base import Artifact, ExecutionContext, MemoryArtifact
from zerocost.core.ports import Ports
from zerocost.engine.cluster import connect, failure
from zerocost.errors import DatatypeError, RangeError, UndeclaredInput

__all__ = ["RayArtifact"]

_RETRIES = 3


class RayArtifact(Artifact):
    """An artifact whose replicas run on a Ray cluster. Registered under the old name, nobody who calls it notices."""

    interface: ClassVar[str] = "custom"

    def __init__(
        self, implementation: Artifact | Callable[[], Artifact], num_replicas: int = 2, *, address: str | None = None
    ) -> None:
        """Starts the replicas.

        Args:
            implementation: an artifact, which every replica gets a copy of, or a class (or any callable without
                arguments) that makes one, which every replica calls.
            num_replicas: how many processes there are, at least 1. An artifact with a state (a subclass of
                ``MemoryArtifact``) must have exactly one, or its state would be several.
            address: of the cluster; see :func:`zerocost.engine.cluster.connect`.

        Raises:
            DatatypeError: no artifact, or one that cannot be sent to another process.
            RangeError: a number of replicas that is not allowed.
        """
        if isinstance(num_replicas, bool) or not isinstance(num_replicas, int):
            raise DatatypeError(f"num_replicas: {num_replicas!r} was given, an integer is needed", "num_replicas")
        if num_replicas < 1:
            raise RangeError(f"num_replicas: {num_replicas} was given, at least 1 is needed", "num_replicas")
        local = implementation if isinstance(implementation, Artifact) else implementation()
        if not isinstance(local, Artifact):
            raise DatatypeError(f"implementation: {type(local).__name__} was given, an artifact is needed")
        stateful = isinstance(local, MemoryArtifact)
        if stateful and num_replicas != 1:
            raise RangeError(
                f"num_replicas: {num_replicas} was given; {type(local).__name__} has a state, so it has 1 replica",
                "num_replicas",
            )
        ports = Ports(local.get_schema())
        self._inner_schema = ports.published
        self._private = frozenset(name for name, schema in ports.inputs.items() if schema.get("x-in-process"))
        self._description = local.get_description()
        self._ray = ray = connect(address)
        # A replica with a state that died comes back empty: that is not the same artifact, so it does not come back.
        retries = 0 if stateful else _RETRIES
        kind = ray.remote(_Replica).options(max_restarts=retries, max_task_retries=retries)
        try:
            self._replicas = [kind.remote(implementation) for _ in range(num_replicas)]
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DatatypeError(
                f"implementation: {type(local).__name__} cannot be sent to another process ({reason}); give its class"
            ) from error
        self._calls = [0] * num_replicas
        self._lock = threading.Lock()

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact in the replica with the fewest calls under way.

        Arrays come back as read-only views of the object store.

        Raises:
            UndeclaredInput: an input that only means something in the same process (``out``, callables).
            ServiceUnavailable: the replica was lost and the call could not be run again.
            Exception: whatever the artifact raises.
        """
        for name in input_data:
            if name in self._private:
                raise UndeclaredInput(f"{name}: it only means something in the same process, not on Ray", name)
        with self._lock:
            chosen = min(range(len(self._calls)), key=self._calls.__getitem__)
            self._calls[chosen] += 1
        try:
            outputs: dict[str, Any] = self._ray.get(self._replicas[chosen].execute.remote(input_data, context))
        except Exception as error:
            found = failure(error, f"replica {chosen} of {context.artifact_name!r}")
            raise found from (None if found is not error else error.__cause__)
        finally:
            with self._lock:
                self._calls[chosen] -= 1
        return outputs

    def get_schema(self) -> dict[str, Any]:
        """The artifact's own, without the inputs that only mean something in the same process."""
        return self._inner_schema

    def get_description(self) -> str:
        """The artifact's own."""
        return self._description

    def close(self) -> None:
        """Stops the replicas. They also stop when nobody holds this artifact any more."""
        for replica in self._replicas:
            self._ray.kill(replica)


class _Replica:
    """One copy of the artifact, in a process of its own."""

    def __init__(self, implementation: Artifact | Callable[[], Artifact]) -> None:
        self._artifact = implementation if isinstance(implementation, Artifact) else implementation()

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        return self._artifact.execute(input_data, context)
