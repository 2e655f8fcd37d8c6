"""``python -m benches.caches``: hit ratio by size on recorded requests, and bytes that a cache takes for an entry.

The traces are read from ZEROCOST_SHARED_DATA (``../shared/data`` by default); what is missing is left out.
With ``--svg FILE`` the hit ratios are drawn too.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from zerocost import LRUCache

DATA = Path(os.environ.get("ZEROCOST_SHARED_DATA", "../shared/data"))
Made = tuple[Callable[[int], Any], Callable[[int, Any], Any]]


def _ours(policy: str) -> Callable[[int], Made]:
    def make(size: int) -> Made:
        cache: LRUCache[int, Any] = LRUCache(size, policy=policy)
        return cache.get, cache.put

    return make


def _moka(size: int) -> Made:
    cache = importlib.import_module("moka_py").Moka(size, policy="tiny_lfu")
    return cache.get, cache.set


def _theine(size: int) -> Made:
    cache = importlib.import_module("theine").Cache(size)
    return (lambda key: cache.get(key)[0]), cache.set


def _cachebox(size: int) -> Made:
    cache = importlib.import_module("cachebox").LRUCache(size)
    return cache.get, cache.insert


def _dict(size: int) -> Made:
    cache: dict[int, Any] = {}
    return cache.get, cache.__setitem__


def _lru_dict(size: int) -> Made:
    cache = importlib.import_module("lru").LRU(size)
    return cache.get, cache.__setitem__


def _cachetools(size: int) -> Made:
    cache = importlib.import_module("cachetools").LRUCache(size)
    return cache.get, cache.__setitem__


POLICIES = {
    "lru": _ours("lru"),
    "sieve": _ours("sieve"),
    "w-tinylfu": _ours("w-tinylfu"),
    "moka-py": _moka,
    "theine": _theine,
}
SIZED = {
    "zerocost": _ours("lru"),
    "dict": _dict,
    "cachebox": _cachebox,
    "lru-dict": _lru_dict,
    "cachetools": _cachetools,
    "moka-py": _moka,
    "theine": _theine,
}


def traces() -> Iterator[tuple[str, list[int], list[int]]]:
    """Name, requested keys and sizes, for each trace that is there."""
    path = DATA / "gli.trace.gz"
    if path.exists():
        lines = gzip.decompress(path.read_bytes()).decode().split()
        yield "gli (blocks, loops)", [int(line) for line in lines if line != "*"], list(range(250, 2001, 250))
    path = DATA / "cloudPhysicsIO.oracleGeneral.bin"
    if path.exists():
        record = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
        keys = np.fromfile(path, record)["key"].astype(np.int64).tolist()
        yield "cloudPhysics (disk blocks)", keys, [500, 1000, 2000, 4000, 8000, 16_000, 32_000]


def hit_ratio(make: Callable[[int], Made], size: int, keys: list[int]) -> float | None:
    """The share of requests that found their key; None if the cache is not installed."""
    try:
        get, put = make(size)
    except ImportError:
        return None
    hits = 0
    for key in keys:
        if get(key) is None:
            put(key, True)
        else:
            hits += 1
    return hits / len(keys)


def bytes_per_entry(name: str, entries: int = 1_000_000) -> float | None:
    """What the process grows by for each entry of a full cache; keys and the value are there before."""
    program = f"""
import sys
from benches.caches import SIZED, resident
keys = list(range(10**6, 10**6 + {entries}))
get, put = SIZED[{name!r}]({entries})
put(0, True)
before = resident()
for key in keys:
    put(key, True)
print((resident() - before) / {entries})
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90)
    return float(ran.stdout) if ran.returncode == 0 else None


def resident() -> int:
    """Bytes of memory that this process has (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def svg(found: list[tuple[str, list[int], dict[str, list[float | None]]]]) -> str:
    """One panel for each trace: hit ratio in per cent against the number of entries."""
    colours = ("#1b6ac9", "#c9491b", "#1b9a59", "#8a8a8a", "#b58900")
    width, height, left, top = 420, 260, 50, 30
    parts = []
    for panel, (name, sizes, ratios) in enumerate(found):
        x0 = panel * (width + 90) + left
        highest = max(ratio for series in ratios.values() for ratio in series if ratio is not None)
        parts.append(f'<text x="{x0}" y="{top - 10}" font-weight="bold">{name}</text>')
        for step in range(5):
            y = top + height - height * step / 4
            parts.append(f'<path d="M{x0} {y}h{width}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{highest * step / 4:.0%}</text>')
        for index, size in enumerate(sizes):
            x = x0 + width * index / (len(sizes) - 1)
            parts.append(f'<text x="{x}" y="{top + height + 18}" text-anchor="middle">{size}</text>')
        for row, ((policy, series), colour) in enumerate(zip(ratios.items(), colours, strict=False)):
            points = [
                f"{x0 + width * index / (len(sizes) - 1):.1f},{top + height - height * ratio / highest:.1f}"
                for index, ratio in enumerate(series)
                if ratio is not None
            ]
            if points:
                parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
                parts.append(f'<text x="{x0 + 8}" y="{top + 14 + 15 * row}" fill="{colour}">{policy}</text>')
    whole = f"{len(found) * (width + 90) + left} {height + top + 30}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def main() -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(prog="python -m benches.caches", description=__doc__)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the hit ratios here")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    found = []
    for name, keys, sizes in traces():
        ratios = {policy: [hit_ratio(make, size, keys) for size in sizes] for policy, make in POLICIES.items()}
        found.append((name, sizes, ratios))
        table = Table(f"{name}: entries", *map(str, sizes))
        for policy, series in ratios.items():
            table.add_row(policy, *("not installed" if ratio is None else f"{ratio:.2%}" for ratio in series))
        console.print(table)
    if not found:
        console.print(f"no trace in {DATA}: no hit ratios")
    table = Table("cache of a million entries", "bytes for each, keys and values not counted")
    for name in SIZED:
        size = bytes_per_entry(name)
        table.add_row(name, "not installed" if size is None else f"{size:.0f}")
    console.print(table)
    if arguments.svg and found:
        arguments.svg.write_text(svg(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
