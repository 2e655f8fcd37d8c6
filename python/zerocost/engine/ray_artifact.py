"""Any artifact on a Ray cluster, behind the interface that it has here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, ClassVar

from zerocost.core.artifact_base import Artifact, ExecutionContext, MemoryArtifact
from zerocost.core.ports import Ports
from zerocost.engine.cluster import connect, failure
from zerocost.engine.journey import arrived, packed, result
from zerocost.engine.object_store import SMALL, ObjectStore
from zerocost.engine.placement import Nodes, places, set_num_threads
from zerocost.errors import (
    DatatypeError,
    DeadlineExceeded,
    InvalidInput,
    RangeError,
)

__all__ = ["RayArtifact"]

_RETRIES = 3
_PATIENCE = 5.0
"""Seconds that a call may still run after its deadline."""


class RayArtifact(Artifact):
    """An artifact whose replicas run on a Ray cluster. Registered under the old name, nobody who calls it notices."""

    interface: ClassVar[str] = "custom"
    waits = True

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
        self._local = local  # answers what must be known before anything is sent
        self.uses = local.uses
        self._schema = local._ports.published
        self._ray = ray = connect(address)
        nodes = Nodes(ray)
        self._store = ObjectStore(ray, nodes)
        # A replica with a state that died comes back empty: that is not the same artifact, so it does not come back.
        retries = 0 if stateful else _RETRIES
        # Restarts bound the retries. Counted by themselves they are used up while nobody knows yet that a node is gone.
        options = {"max_restarts": retries, "max_task_retries": -1 if retries else 0}
        kind = ray.remote(_Replica)
        self._starts = [
            partial(kind.options(**options, **home.options).remote, implementation, home.threads)
            for home in places(nodes.now(), num_replicas)
        ]
        try:
            self._replicas = [start() for start in self._starts]
        except ray.exceptions.RayError as error:
            raise failure(error, f"a replica of {type(local).__name__}".__str__) from error
        except Exception as error:  # whatever its own objects raise when they are asked to be pickled
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DatatypeError(
                f"implementation: {type(local).__name__} cannot be sent to another process ({reason}); give its class"
            ) from error
        self._calls = [0] * num_replicas
        self._lost: set[int] = set()
        self._comes_back = not stateful
        self._lock = threading.Lock()

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact in the replica with the fewest calls under way.

        Arrays come back as read-only views of the object store.

        Raises:
            InvalidInput: whatever :meth:`zerocost.core.ports.Ports.bind` refuses, an input that only means something in
                the same process among it (``out``, callables).
            DatatypeError: an input that cannot be sent to another process.
            LimitExceeded: an array larger than the object store of a node.
            DeadlineExceeded: the context's deadline passed. A call that goes on for some seconds more is then ended
                with its replica, which is started again, unless the artifact has a state.
            ServiceUnavailable: the replica was lost and the call could not be run again.
            Exception: whatever the artifact raises.
        """
        bound = self._ports.bind(input_data)
        remote, seconds = packed(context)
        put, _ = self._store.for_call()
        values = [put(value) if getattr(value, "nbytes", 0) > SMALL else value for value in bound.values()]
        number, replica = self._choose(context.artifact_name)
        done = self._done
        try:
            reference = self._send(number, replica, list(bound), values, remote, seconds)
            try:
                outputs: dict[str, Any] = result(
                    self._ray,
                    reference,
                    f"replica {number} of {context.artifact_name!r}".__str__,
                    context.metadata.get("deadline"),
                )
            except BaseException as error:
                self._ray.cancel(reference)
                if isinstance(error.__context__, self._ray.exceptions.ActorDiedError):
                    done = self._is_lost
                elif isinstance(error, DeadlineExceeded) or not isinstance(error, Exception):
                    done = self._done_when_free
                    if isinstance(error, DeadlineExceeded) and self._comes_back:
                        self._stop_if_stuck(replica, reference)
                raise
        finally:
            done(number, replica)
        return outputs

    def _choose(self, name: str) -> tuple[int, Any]:
        """The replica with the fewest calls under way, which has one more from now on: its number and its actor.

        Raises:
            ServiceUnavailable: one that was lost cannot be started again; the next call tries.
        """
        while True:
            with self._lock:
                if not self._lost:
                    number = min(range(len(self._calls)), key=self._calls.__getitem__)
                    self._calls[number] += 1
                    return number, self._replicas[number]
                number = self._lost.pop()
            try:
                replica = self._starts[number]()  # without the lock, which threads of Ray wait for
            except BaseException as error:
                with self._lock:
                    self._lost.add(number)
                if isinstance(error, self._ray.exceptions.RayError):
                    raise failure(error, f"replica {number} of {name!r}".__str__) from error
                raise
            with self._lock:
                self._replicas[number] = replica

    def _done(self, number: int, replica: Any) -> None:
        with self._lock:
            self._calls[number] -= 1

    def _is_lost(self, number: int, replica: Any) -> None:
        with self._lock:
            self._calls[number] -= 1
            # Of several calls that one replica took with it, the last may end when another one has its place.
            if self._comes_back and self._replicas[number] is replica:
                self._lost.add(number)

    def _done_when_free(self, number: int, replica: Any) -> None:
        """Counts a call until its replica answers again: it may be busy for longer than anybody waits for it."""

        def answered(answer: Any) -> None:
            died = isinstance(answer.exception(), self._ray.exceptions.ActorDiedError)
            (self._is_lost if died else self._done)(number, replica)

        try:
            replica.is_free.remote().future().add_done_callback(answered)
        except self._ray.exceptions.RayError:  # what the call has raised says more
            self._is_lost(number, replica)

    def _stop_if_stuck(self, replica: Any, reference: Any) -> None:
        """Some seconds after its deadline, a call that still runs is ended with its replica's process.

        Ray starts the replica again, and runs there the calls that waited behind this one, which was cancelled.
        """
        call = reference.future()

        def stop() -> None:
            if not call.done():
                with suppress(self._ray.exceptions.RayError):  # it has gone meanwhile, or the connection has
                    self._ray.kill(replica, no_restart=False)

        timer = threading.Timer(_PATIENCE, stop)
        timer.daemon = True
        timer.start()

    def _send(
        self,
        number: int,
        replica: Any,
        names: list[str],
        values: list[Any],
        context: ExecutionContext,
        seconds: float | None,
    ) -> Any:
        try:
            return replica.execute.remote(names, context, seconds, *values)
        except self._ray.exceptions.RayError as error:
            raise failure(error, f"replica {number} of {context.artifact_name!r}".__str__) from error
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DatatypeError(f"an input cannot be sent to another process ({reason})") from error

    def input_errors(self, input_data: dict[str, Any]) -> list[tuple[str, str]]:
        """The artifact's own, and one for each input that only means something in the same process."""
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
        # What the artifact itself refuses is asked here, before anything is sent.
        return Ports(self._schema, self._local)

    def get_schema(self) -> dict[str, Any]:
        """The artifact's own, without the inputs that only mean something in the same process."""
        return self._schema

    def get_description(self) -> str:
        """The artifact's own."""
        return self._local.get_description()

    def close(self) -> None:
        """Stops the replicas. They also stop when nobody holds this artifact any more."""
        for replica in self._replicas:
            self._ray.kill(replica)


class _Replica:
    """One copy of the artifact, in a process of its own."""

    def __init__(self, implementation: Artifact | Callable[[], Artifact], threads: int) -> None:
        set_num_threads(threads)
        self._artifact = implementation if isinstance(implementation, Artifact) else implementation()

    def execute(
        self, names: list[str], context: ExecutionContext, seconds: float | None, *values: Any
    ) -> dict[str, Any]:
        """The inputs come one by one, as Ray resolves references only where they stand alone."""
        return self._artifact.execute(dict(zip(names, values, strict=True)), arrived(context, seconds))

    def is_free(self) -> bool:
        """Answers after the calls before it."""
        return True
