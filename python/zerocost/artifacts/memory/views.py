"""The views that ``keys()``, ``values()`` and ``items()`` of a cache return.

Unlike those of :mod:`collections.abc`, they iterate over a snapshot. Reading them does not count as use of an entry.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerocost._kernels import LRUCache

__all__ = ["ItemsView", "KeysView", "ValuesView"]

_ABSENT = object()


def _cache(view: abc.MappingView) -> LRUCache[Any, Any]:
    cache: LRUCache[Any, Any] = view._mapping  # type: ignore[attr-defined]  # of the base class
    return cache


class KeysView(abc.KeysView[Any]):
    """The keys of a cache."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return _cache(self).__iter__()

    def __reversed__(self) -> Iterator[Any]:
        return _cache(self).__reversed__()


class ValuesView(abc.ValuesView[Any]):
    """The values of a cache."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(_cache(self)._list("values"))

    def __reversed__(self) -> Iterator[Any]:
        return _cache(self)._list("values").__reversed__()

    def __contains__(self, value: object) -> bool:
        return value in _cache(self)._list("values")


class ItemsView(abc.ItemsView[Any, Any]):
    """The (key, value) pairs of a cache."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(_cache(self)._list("items"))

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return _cache(self)._list("items").__reversed__()

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = _cache(self).peek(item[0], _ABSENT)
        return value is not _ABSENT and (value is item[1] or value == item[1])
