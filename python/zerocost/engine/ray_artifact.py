"""Any artifact on a Ray cluster, with the interface that it has in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, ClassVar

from zerocost._kernels import positive
from zerocost.core.artifact_base import Artifact, ExecutionContext, MemoryArtifact
from zerocost.core.ports import Ports
from zerocost.engine.cluster import connect, failure
from zerocost.engine.object_store import SMALL, ObjectStore
from zerocost.engine.placement import Nodes, placements, set_num_threads
from zerocost.engine.remote_calls import get_result, pickled, received, sendable
from zerocost.errors import DatatypeError, DeadlineExceeded, InvalidInput, RangeError

__all__ = ["RayArtifact"]

_RETRIES = 3
_GRACE_SECONDS = 5.0
"""A call may run this long after its deadline."""


class RayArtifact(Artifact):
    """An artifact whose replicas run on a Ray cluster. Registered under the old name, it replaces it."""

    interface: ClassVar[str] = "custom"
    waits = True

    def __init__(
        self, implementation: Artifact | Callable[[], Artifact], num_replicas: int = 2, *, address: str | None = None
    ) -> None:
        """Starts the replicas.

        Args:
            implementation: an artifact, of which every replica gets a copy; or a class, or any callable without
                arguments, that every replica calls to make one.
            num_replicas: how many processes there are, at least 1. A stateful artifact (a subclass of
                ``MemoryArtifact``) must have exactly one: replicas do not share their state.
            address: of the cluster; see :func:`zerocost.engine.cluster.connect`.

        Raises:
            DatatypeError: no artifact, or one that cannot be sent to another process.
            RangeError: a number of replicas that is not allowed.
            ServiceUnavailable: there is no cluster, or a replica did not start.
        """
        num_replicas = positive(num_replicas, "num_replicas")
        local = implementation if isinstance(implementation, Artifact) else implementation()
        if not isinstance(local, Artifact):
            raise DatatypeError(f"implementation: {type(local).__name__} was given, an artifact is needed")
        stateful = isinstance(local, MemoryArtifact)
        if stateful and num_replicas != 1:
            raise RangeError(
                f"num_replicas: {num_replicas} was given; {type(local).__name__} has a state, so it has 1 replica",
                "num_replicas",
            )
        self._local = local  # its schema and limits are asked here, before anything is sent
        self.uses = local.uses
        self._schema = local._ports.published
        self._ray = ray = connect(address)
        nodes = Nodes(ray)
        self._store = ObjectStore(ray, nodes)
        # A stateful replica would be restarted without its state, as another artifact: it is not restarted.
        retries = 0 if stateful else _RETRIES
        # max_restarts bounds the retries: a task's own would be used up before Ray knows that a node is gone.
        options = {"max_restarts": retries, "max_task_retries": -1 if retries else 0}
        kind = ray.remote(_Replica)
        self._starts = [
            partial(kind.options(**options, **place.options).remote, implementation, place.threads)
            for place in placements(nodes.current(), num_replicas)
        ]
        name = type(local).__name__
        self._replicas = pickled(
            ray,
            lambda: [start() for start in self._starts],
            f"a replica of {name}".__str__,
            f"implementation: {name}",
            advice="; give its class",
        )
        self._calls = [0] * num_replicas
        self._lost: set[int] = set()
        self._restarts = not stateful
        self._lock = threading.Lock()

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact in the replica with the fewest calls in progress.

        Arrays in the result are read-only views of the object store.

        Raises:
            InvalidInput: whatever :meth:`zerocost.core.ports.Ports.bind` refuses, also an input that has a meaning in
                the same process only (``out``, callables).
            DatatypeError: an input that cannot be sent to another process.
            LimitExceeded: an array larger than the object store of a node.
            DeadlineExceeded: the context's deadline passed. If the call does not return within some seconds, its
                replica is killed and restarted, unless the artifact is stateful.
            ServiceUnavailable: the replica was lost and the call could not be run again.
            Exception: whatever the artifact raises.
        """
        bound = self._ports.bind(input_data)
        remote, seconds = sendable(context)
        put, _ = self._store.for_call()
        values = [put(value) if getattr(value, "nbytes", 0) > SMALL else value for value in bound.values()]
        number, replica = self._acquire(context.artifact_name)
        what, release = f"replica {number} of {context.artifact_name!r}".__str__, self._release
        try:
            reference = pickled(
                self._ray, lambda: replica.execute.remote(list(bound), remote, seconds, *values), what, "an input"
            )
            try:
                deadline = context.metadata.get("deadline")
                outputs: dict[str, Any] = get_result(self._ray, reference, what, deadline)
            except BaseException as error:
                self._ray.cancel(reference)
                if isinstance(error.__context__, self._ray.exceptions.ActorDiedError):
                    release = self._release_lost
                elif isinstance(error, DeadlineExceeded) or not isinstance(error, Exception):
                    release = self._release_when_free
                    if isinstance(error, DeadlineExceeded) and self._restarts:
                        self._kill_if_stuck(replica, reference)
                raise
        finally:
            release(number, replica)
        return outputs

    def _acquire(self, name: str) -> tuple[int, Any]:
        """The number and the actor of the replica with the fewest calls in progress. The call is counted.

        Raises:
            ServiceUnavailable: a lost replica cannot be started again; the next call tries.
        """
        while True:
            with self._lock:
                if not self._lost:
                    number = min(range(len(self._calls)), key=self._calls.__getitem__)
                    self._calls[number] += 1
                    return number, self._replicas[number]
                number = self._lost.pop()
            try:
                replica = self._starts[number]()  # without the lock: threads of Ray wait for it
            except BaseException as error:
                with self._lock:
                    self._lost.add(number)
                if isinstance(error, self._ray.exceptions.RayError):
                    raise failure(error, f"replica {number} of {name!r}".__str__) from error
                raise
            with self._lock:
                self._replicas[number] = replica

    def _release(self, number: int, replica: Any) -> None:
        with self._lock:
            self._calls[number] -= 1

    def _release_lost(self, number: int, replica: Any) -> None:
        with self._lock:
            self._calls[number] -= 1
            # When a replica dies with several calls, the last of them may end after its successor has started.
            if self._restarts and self._replicas[number] is replica:
                self._lost.add(number)

    def _release_when_free(self, number: int, replica: Any) -> None:
        """Counts a call until its replica answers again: it may be busy after the caller has given up."""

        def answered(answer: Any) -> None:
            died = isinstance(answer.exception(), self._ray.exceptions.ActorDiedError)
            (self._release_lost if died else self._release)(number, replica)

        try:
            replica.is_free.remote().future().add_done_callback(answered)
        except self._ray.exceptions.RayError:  # what the call raised says more
            self._release_lost(number, replica)

    def _kill_if_stuck(self, replica: Any, reference: Any) -> None:
        """Kills the replica if the call still runs some seconds after its deadline.

        Ray restarts it, and runs the calls there that waited behind this one, which was cancelled.
        """
        call = reference.future()

        def stop() -> None:
            if not call.done():
                with suppress(self._ray.exceptions.RayError):  # it or the connection is gone
                    self._ray.kill(replica, no_restart=False)

        timer = threading.Timer(_GRACE_SECONDS, stop)
        timer.daemon = True
        timer.start()

    def input_errors(self, input_data: dict[str, Any]) -> list[tuple[str, str]]:
        """The artifact's own, and one for each input that has a meaning in the same process only."""
        try:
            self._ports.bind(input_data)
        except InvalidInput as error:
            return error.errors
        return []

    def output_elements(self, input_data: dict[str, Any]) -> int | None:
        """The artifact's own."""
        return self._local.output_elements(input_data)

    def operations(self, input_data: dict[str, Any]) -> int | None:
        """The artifact's own."""
        return self._local.operations(input_data)

    @cached_property
    def _ports(self) -> Ports:
        # The artifact's own checks run here, before anything is sent.
        return Ports(self._schema, self._local)

    def get_schema(self) -> dict[str, Any]:
        """The artifact's own, without the inputs that have a meaning in the same process only."""
        return self._schema

    def get_description(self) -> str:
        """The artifact's own."""
        return self._local.get_description()

    def close(self) -> None:
        """Stops the replicas. They also stop when the last reference to this artifact is gone."""
        for replica in self._replicas:
            self._ray.kill(replica)


class _Replica:
    """One copy of the artifact in a process of its own."""

    def __init__(self, implementation: Artifact | Callable[[], Artifact], threads: int) -> None:
        set_num_threads(threads)
        self._artifact = implementation if isinstance(implementation, Artifact) else implementation()

    def execute(
        self, names: list[str], context: ExecutionContext, seconds: float | None, *values: Any
    ) -> dict[str, Any]:
        """The inputs are separate arguments: Ray resolves references only at the top level."""
        return self._artifact.execute(dict(zip(names, values, strict=True)), received(context, seconds))

    def is_free(self) -> bool:
        """Answers when the calls before it have returned."""
        return True
