"""The cache against the caches of Python: nanoseconds of one operation, the empty loop subtracted.

Keys are equal to the stored ones and not identical. A peer that is not installed is named, and has no time. Before the
times of get-or-put, every exact LRU cache must have had as many hits as ours. The ``get`` of theine returns a pair, so
it is called through a lambda, which is in its times.
"""

from __future__ import annotations

import functools
import gc
import importlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benches.peers.measure import ROUNDS, Row
from zerocost import LRUCache

ENTRIES = 10_000
REQUESTS = 100_000


def rows() -> list[Row]:
    """Every comparison of this part."""
    return [*_single_threaded(), *_threaded(), *_large_values(), *_collection()]


class Peer:
    """A cache with ``get`` and ``put``; a dict is the limit, without bound. ``exact``: least recently used, always."""

    def __init__(
        self,
        name: str,
        make: Callable[[int], tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]],
        exact: bool = False,
    ) -> None:
        self.name, self.make, self.exact = name, make, exact


def _mapping(module: str, name: str) -> Callable[[int], tuple[Any, Any]]:
    def make(entries: int) -> tuple[Any, Any]:
        cache = getattr(importlib.import_module(module), name)(entries)
        return cache.get, cache.__setitem__

    return make


def _dict(entries: int) -> tuple[Any, Any]:
    made: dict[Any, Any] = {}
    return made.get, made.__setitem__


def _moka(entries: int) -> tuple[Any, Any]:
    cache = importlib.import_module("moka_py").Moka(entries, policy="lru")
    return cache.get, cache.set


def _theine(entries: int) -> tuple[Any, Any]:
    cache = importlib.import_module("theine").Cache(entries)
    return (lambda key: cache.get(key)[0]), cache.set


def _functools(entries: int) -> tuple[Any, Any]:
    @functools.lru_cache(maxsize=entries)
    def get(key: Any) -> Any:
        return True

    return get, lambda key, value: get(key)


PEERS = [
    Peer("dict", _dict),
    Peer("functools", _functools),
    Peer("cachebox", _mapping("cachebox", "LRUCache"), exact=True),
    Peer("lru-dict", _mapping("lru", "LRU"), exact=True),
    Peer("cachetools", _mapping("cachetools", "LRUCache"), exact=True),
    Peer("moka-py", _moka),
    Peer("theine (a lambda)", _theine),
]
OURS = Peer("zerocost", _mapping("zerocost", "LRUCache"))


def _get(get: Any, put: Any, keys: Sequence[Any]) -> None:
    for key in keys:
        get(key)


def _put(get: Any, put: Any, keys: Sequence[Any]) -> None:
    for key in keys:
        put(key, True)


def _get_or_put(get: Any, put: Any, keys: Sequence[Any]) -> None:
    for key in keys:
        if get(key) is None:
            put(key, True)


def _same_hits(keys: Sequence[Any]) -> None:
    """Checks that exact caches agree on what is a hit; a time for another result would say nothing."""
    hits = {}
    for peer in (OURS, *(peer for peer in PEERS if peer.exact)):
        try:
            get, put = peer.make(ENTRIES)
        except ImportError:
            continue
        found = 0
        for key in keys:
            if get(key) is None:
                put(key, True)
            else:
                found += 1
        hits[peer.name] = found
    if len(set(hits.values())) != 1 or not 0 < hits[OURS.name] < len(keys):
        raise AssertionError(f"hits differ: {hits}")


def _empty(get: Any, put: Any, keys: Sequence[Any]) -> None:
    for _ in keys:
        pass


def _single_threaded() -> list[Row]:
    random = np.random.default_rng(0)
    zipf = random.zipf(1.1, 4 * REQUESTS)
    zipf = zipf[zipf < 10 * ENTRIES][:REQUESTS].tolist()
    uniform = random.integers(0, ENTRIES, REQUESTS).tolist()
    works: list[tuple[str, Any, Callable[[int], Any], list[int], bool]] = [
        ("get-or-put, Zipf, int keys", _get_or_put, lambda n: n + 1000, zipf, True),
        ("hit, int keys", _get, lambda n: n + 1000, uniform, True),
        ("hit, int keys at stride 4096", _get, lambda n: n * 4096 + 4096, uniform, True),
        ("hit, str keys", _get, lambda n: f"key {n}", uniform, True),
        ("hit, tuple keys", _get, lambda n: (n, "key"), uniform, True),
        ("miss, int keys", _get, lambda n: -n - 1000, uniform, False),
        ("put with eviction, int keys", _put, lambda n: n, list(range(10**6, 10**6 + REQUESTS)), False),
    ]
    found = []
    for work, run, key, numbers, warm in works:
        resident = [key(n) for n in range(ENTRIES)]
        # Fresh objects: equal to the resident ones, not identical.
        keys = [key(n) for n in numbers]
        if run is _get_or_put:
            _same_hits(keys)

        def prepared(peer: Peer, run: Any = run, resident: Any = resident, keys: Any = keys, warm: bool = warm) -> Any:
            get, put = peer.make(ENTRIES)
            for one in resident if warm else range(ENTRIES):
                put(one, True)
            return lambda: run(get, put, keys)

        found += _table(work, prepared, len(keys))
    return found


def _table(work: str, prepared: Callable[[Peer], Callable[[], None]], operations: int) -> list[Row]:
    """One row for each peer, all of them measured in turn."""
    calls: dict[str, Callable[[], None] | None] = {OURS.name: prepared(OURS)}
    for peer in PEERS:
        try:
            calls[peer.name] = prepared(peer)
        except ImportError:
            calls[peer.name] = None
    blank = list(range(operations))
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    try:
        for round_ in range(ROUNDS + 1):
            empty = _seconds(lambda: _empty(None, None, blank))
            for name, call in calls.items():
                if call is not None:
                    seconds = _seconds(call) - empty
                    if round_:
                        times[name].append(seconds / operations)
    finally:
        gc.enable()
    medians = {name: statistics.median(found) if found else None for name, found in times.items()}
    ours, limit = medians.pop(OURS.name), medians["dict"]
    assert ours is not None
    assert limit is not None
    return [Row(work, ours, name, theirs, "dict without bound", limit / ours) for name, theirs in medians.items()]


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _threaded() -> list[Row]:
    keys = np.random.default_rng(0).integers(0, 2 * ENTRIES, REQUESTS // 4).tolist()

    def prepared(peer: Peer) -> Callable[[], None]:
        get, put = peer.make(ENTRIES)
        if peer.name == "cachetools":
            get, put = _locked(get), _locked(put)

        def run() -> None:
            threads = [threading.Thread(target=_get_or_put, args=(get, put, keys)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return run

    return _table("get-or-put, 8 threads", prepared, 8 * len(keys))


def _locked(call: Callable[..., Any]) -> Callable[..., Any]:
    """As its documentation asks for: it is not thread-safe by itself."""

    def locked(*arguments: Any) -> Any:
        with _LOCK:
            return call(*arguments)

    return locked


_LOCK = threading.Lock()


def _large_values() -> list[Row]:
    """Arrays are held, not copied: 1 MB costs what 1 KB costs. The bench keeps them alive."""
    times = []
    for size in (128, 131_072):
        values = [np.zeros(size) for _ in range(64)]
        cache: LRUCache[int, Any] = LRUCache(max_bytes=32 * values[0].nbytes)

        def run(values: Any = values, cache: Any = cache) -> None:
            for round_ in range(200):
                for n, value in enumerate(values):
                    cache.put(n + round_ % 2, value)

        run()
        times.append(statistics.median(_seconds(run) for _ in range(ROUNDS)) / (200 * len(values)))
    return [Row("put with eviction, arrays of 1 MB", times[1], "the same with 1 KB", times[0])]


def _collection() -> list[Row]:
    """A full collection with a million entries of float arrays, which it does not visit."""
    array = np.zeros(1)
    gc.collect()
    cache: LRUCache[int, Any] = LRUCache(10**6)
    for n in range(10**6):
        cache[n] = array[:]
    ours = statistics.median(_seconds(lambda: gc.collect() and None) for _ in range(ROUNDS))
    del cache
    held = dict(enumerate(array[:] for _ in range(10**6)))
    theirs = statistics.median(_seconds(lambda: gc.collect() and None) for _ in range(ROUNDS))
    del held
    return [Row("full collection, a million arrays", ours, "dict", theirs)]
