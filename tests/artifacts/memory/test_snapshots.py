"""Snapshots: what is stored comes back, and damaged files change nothing."""

import json
import os
import stat

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import zerocost
from support.clock import Clock
from zerocost import LRUCache


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.safetensors"


def test_everything_comes_back_in_order(path):
    cache = LRUCache(max_bytes=100_000)
    values = {
        "array": np.arange(12.0).reshape(3, 4),
        "transposed": np.arange(12, dtype=np.int16).reshape(3, 4).T,
        "strided": np.arange(20, dtype=np.float32)[::-3],
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "half": np.ones(3, np.float16),
        "bfloat": np.ones((2, 2), ml_dtypes.bfloat16),
        "bytes": b"\x00\xff",
        "nothing": b"",
        "ключ": np.zeros(1, np.uint8),
    }
    cache.update(values)
    cache.get("array")
    cache.snapshot(path)
    again = LRUCache(max_bytes=100_000)
    again.restore(path)
    assert list(again) == list(cache)
    for key, value in values.items():
        found = again[key]
        if isinstance(value, bytes):
            assert found == value
        else:
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert found.tobytes() == value.tobytes()
            assert found.flags.writeable
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with safe_open(path, framework="np") as file:
        assert sorted(file.keys(), key=int) == [str(n) for n in range(len(values))]


def test_time_stands_still_while_stored(path):
    clock = Clock(100.0)
    cache = LRUCache(9, ttl=50, tti=20, clock=clock)
    cache["a"] = b"a"
    clock.now += 10
    cache["b"] = b"b"
    cache.put("c", b"c", ttl=15)
    cache.snapshot(path)
    later = Clock(5000.0)
    again = LRUCache(9, ttl=50, tti=20, clock=later)
    again.restore(path)
    assert list(again) == ["a", "b", "c"]
    later.now += 10
    assert list(again) == ["b", "c"], "a had idled for 10 of 20 seconds"
    later.now += 5
    assert list(again) == ["b"]
    assert again["b"] == b"b"


@pytest.mark.parametrize(
    ("key", "value"),
    [(1, b"1"), ("text", "str"), ("object", np.array([None])), ("swapped", np.zeros(3, ">f4")), ("none", None)],
)
def test_a_value_that_cannot_be_stored_is_named_before_anything_is_written(path, key, value):
    path.write_bytes(b"what was there")
    cache = LRUCache(9)
    cache["good"] = b"good"
    cache[key] = value
    with pytest.raises(TypeError, match=repr(key)):
        cache.snapshot(path)
    assert path.read_bytes() == b"what was there"
    assert len(list(path.parent.iterdir())) == 1
    with pytest.raises(FileNotFoundError):
        LRUCache(9).snapshot(path.parent / "no" / "folder")


def test_damaged_foreign_and_newer_files_change_nothing(path):
    source = LRUCache(9)
    source["a"] = np.arange(100.0)
    source.snapshot(path)
    good = path.read_bytes()
    cache = LRUCache(9)
    cache["mine"] = 1

    def refused(text):
        with pytest.raises(zerocost.InvalidInput, match=text):
            cache.restore(path)
        assert cache == {"mine": 1}

    for length in (0, 5, 20, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        refused("damaged")
    path.write_bytes(b"PK\x03\x04 something else entirely")
    refused("damaged")
    save_file({"0": np.zeros(3)}, path)
    refused("no snapshot")
    manifest = json.dumps([{"key": "a", "kind": "array", "live": None, "idle": None}])
    save_file({"0": np.zeros(3)}, path, {"format": "zerocost-memory", "version": "2", "entries": manifest})
    refused("version 2")
    for entries in ("[", "[{}]", manifest.replace('"array"', '"pickle"'), manifest[:-1] + ", " + manifest[1:]):
        save_file({"0": np.zeros(3)}, path, {"format": "zerocost-memory", "version": "1", "entries": entries})
        refused("manifest")
    with pytest.raises(FileNotFoundError):
        cache.restore(path.parent / "nothing")


def test_the_bounds_of_the_restored_cache_hold(path):
    source = LRUCache(9)
    for n in range(5):
        source[str(n)] = bytes(10)
    source.snapshot(path)
    cache = LRUCache(max_bytes=25)
    assert cache.restore(path) == []
    assert list(cache) == ["3", "4"]


def test_entries_that_do_not_fit_are_reported(path):
    source = LRUCache(9)
    source.update(large=bytes(30), small=bytes(10), larger=np.zeros(100))
    source.snapshot(path)
    cache = LRUCache(max_bytes=25)
    assert cache.restore(path) == ["large", "larger"]
    assert list(cache) == ["small"]
    assert cache.stats()["rejected"] == 2


def test_a_sizeof_or_a_clock_that_fails_restores_nothing(path):
    source = LRUCache(9)
    source.update(a=b"1", b=b"2", c=b"3")
    source.snapshot(path)
    cache = LRUCache(2, 100, sizeof=lambda key, value: 1 // 0 if key == "c" else 1)
    cache["mine"] = 1
    with pytest.raises(ZeroDivisionError):
        cache.restore(path)
    assert cache == {"mine": 1}
    broken = []
    cache = LRUCache(9, ttl=9, clock=lambda: 1 // 0 if broken else 1.0)
    broken.append(1)
    with pytest.raises(ZeroDivisionError):
        cache.restore(path)
    broken.clear()
    assert cache == {}


@pytest.mark.parametrize("live", ["1" + "0" * 400, "NaN", "-1", '"x"'])
def test_an_invalid_time_is_damage(path, live):
    entries = f'[{{"key": "a", "kind": "array", "live": {live}, "idle": null}}]'
    save_file({"0": np.zeros(3)}, path, {"format": "zerocost-memory", "version": "1", "entries": entries})
    with pytest.raises(zerocost.InvalidInput, match="manifest"):
        LRUCache(9).restore(path)


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes here")
def test_the_file_has_the_mode_that_the_umask_gives(path):
    cache = LRUCache(9)
    before = os.umask(0o027)
    try:
        cache.snapshot(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
