"""Bound inputs, and the check whether inputs fit as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zerocost.core.ports.checks import Check

__all__ = ["Bound", "ChecksWithDefault", "Condition", "acceptor"]

Condition = Callable[[Mapping[str, Any]], bool]


class Bound(dict[str, Any]):
    """Inputs that fit ``ports``. A change sets ``ports`` to None, so that the inputs are bound again.

    Only its own methods notice a change; ``dict.__setitem__(bound, …)`` or a change of a list in it does not.
    """

    __slots__ = ("ports",)

    ports: object | None

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _invalidating(name: str) -> Any:
    """The method of dict, which also sets ``ports`` to None."""
    method = getattr(dict, name)

    def change(self: Bound, *arguments: Any, **keywords: Any) -> Any:
        self.ports = None
        return method(self, *arguments, **keywords)

    change.__name__ = name
    change.__doc__ = method.__doc__
    return change


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Bound, _name, _invalidating(_name))


class ChecksWithDefault(dict[str, Check]):
    """The check of every declared input, and a default check for all others."""

    def __init__(self, declared: Mapping[str, Check], others: Check) -> None:
        super().__init__(declared)
        self._others = others

    def __missing__(self, name: object) -> Check:
        if not isinstance(name, str):
            raise KeyError(name)
        return self._others


def acceptor(checks: Mapping[str, Check], required: tuple[str, ...], conditions: tuple[Condition, ...]) -> Condition:
    """A function: whether inputs fit as they are, each alone and all together, as far as plain checks can tell."""

    def fits(values: Mapping[str, Any]) -> bool:
        try:
            for name, value in values.items():
                if not checks[name](value):
                    return False
        except KeyError:  # an undeclared name
            return False
        for name in required:  # noqa: SIM110 - a generator takes as long as a check
            if name not in values:
                return False
        return True

    def agrees(values: Mapping[str, Any]) -> bool:
        return fits(values) and all(condition(values) for condition in conditions)

    return agrees if conditions else fits
