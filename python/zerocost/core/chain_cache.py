"""A cache of plans: wiring takes half of the time of a small chain."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.chain_plan import plan_chain
from zerocost.core.chain_wiring import Plan

__all__ = ["PlanCache"]

_MOST_PLANS = 256

_LONGEST = 8192
"""Characters of all names of a chain. Longer chains are not cached, so that a client cannot fill the memory."""


class PlanCache:
    """The last plans of a registry's chains. A change of the registry empties it.

    The key consists of names only: those of the initial input and, for each step, its artifact, id, inputs, order and
    the names of its parameters. No value of a call is held. Copies and pickles are empty.
    """

    def __init__(self, registry: ArtifactRegistry) -> None:
        self._registry = registry
        self._version = registry.version
        self._plans: dict[Hashable, Plan] = {}
        self._lock = threading.Lock()

    def plan(self, pipeline: Sequence[dict[str, Any]], initial_input_names: Iterable[str] | None) -> Plan:
        """As :func:`zerocost.core.chain_plan.plan_chain`, which is called for chains that are not cached."""
        version = self._registry.version  # before planning: a change meanwhile makes this plan stale
        names = None if initial_input_names is None else frozenset(initial_input_names)
        key = _key(pipeline, names)
        if version == self._version and key is not None:
            known = self._plans.get(key)
            if known is not None:
                return known
        plan = plan_chain(self._registry, pipeline, names)
        if key is not None and _length(key) <= _LONGEST:
            self._keep(key, plan, version)
        return plan

    def clear(self) -> None:
        """Forgets every plan."""
        with self._lock:
            self._plans = {}

    def __len__(self) -> int:
        return len(self._plans)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._registry,)

    def _keep(self, key: Hashable, plan: Plan, version: int) -> None:
        with self._lock:
            if version > self._version:
                self._plans, self._version = {}, version
            if version == self._version:
                if len(self._plans) >= _MOST_PLANS:
                    del self._plans[next(iter(self._plans))]
                self._plans[key] = plan


def _key(pipeline: Any, names: frozenset[str] | None) -> Hashable | None:
    """The key of a plan; None for an unusual chain, which is wired every time."""
    if type(pipeline) is not list and type(pipeline) is not tuple:
        return None
    steps: list[Hashable] = []
    for step in pipeline:
        if type(step) is not dict:
            return None
        known: list[Hashable] = []
        for key, value in step.items():
            kind = type(value)
            if key == "params" and kind is dict:
                known.append((key, tuple(value)))
            elif key == "inputs" and kind is dict:
                known.append((key, tuple(value.items())))
            elif key == "after" and (kind is list or kind is tuple):
                known.append((key, tuple(value)))
            elif kind is str or kind is bool:
                known.append((key, value))
            else:
                return None
        steps.append(tuple(known))
    try:
        key = (names, tuple(steps))
        hash(key)
    except TypeError:  # an unhashable value is not a name
        return None
    return key


def _length(key: Hashable) -> int:
    """The characters in a key, each member counting at least one."""
    if isinstance(key, tuple | frozenset):
        return 1 + sum(map(_length, key))
    return len(key) if isinstance(key, str) else 1
