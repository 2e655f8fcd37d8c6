"""The cache on recorded traces, whose misses are known exactly from libCacheSim and Caffeine's simulator."""

import gzip
import struct

import pytest

from support.paths import shared_data
from zerocost import LRUCache

MIB = 1024**2


@pytest.fixture(scope="module")
def cloud_physics():
    records = struct.iter_unpack("<IQIq", shared_data("cloudPhysicsIO.oracleGeneral.bin").read_bytes())
    requests = [(key, size) for _, key, size, _ in records]
    assert len(requests) == 113_872
    return requests


@pytest.fixture(scope="module")
def gli():
    with gzip.open(shared_data("gli.trace.gz"), "rt") as lines:
        requests = [int(line) for line in lines if line.strip().isdecimal()]
    assert len(requests) == 6015
    return requests


def misses_by_bytes(requests, **options):
    cache = LRUCache(sizeof=lambda key, size: size, **options)
    misses = 0
    for key, size in requests:
        if cache.get(key) is None:
            misses += 1
            cache.put(key, size)
    assert cache.stats()["misses"] == misses
    return misses


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("lru", [93374, 89783, 83572, 81722, 72494, 72104, 71972, 71704]),
        ("sieve", [91699, 86720, 78578, 76707, 69945, 66221, 64445, 64376]),
    ],
)
def test_misses_of_a_block_trace_within_a_byte_bound(cloud_physics, policy, expected):
    misses = [misses_by_bytes(cloud_physics, max_bytes=128 * MIB * n, policy=policy) for n in range(1, 9)]
    assert misses == expected


def test_hit_ratio_of_a_loop_within_an_entry_bound(gli):
    expected = [0.91, 0.95, 1.15, 11.21, 21.25, 36.56, 45.04, 57.41]
    ratios = []
    for bound in range(250, 2001, 250):
        cache = LRUCache(max_entries=bound)
        for key in gli:
            if cache.get(key) is None:
                cache[key] = True
        ratios.append(round(100 * cache.stats()["hits"] / len(gli), 2))
    assert ratios == expected


def test_tinylfu_beats_lru_on_a_loop(gli):
    def hits(policy):
        cache = LRUCache(max_entries=1000, policy=policy)
        for key in gli:
            if cache.get(key) is None:
                cache[key] = True
        return cache.stats()["hits"]

    assert hits("w-tinylfu") > 2 * hits("lru")
