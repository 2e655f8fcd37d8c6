"""Every operation of caches at once, from many threads, with keys, values and hooks that call back.

It runs in a process of its own, since a defect here would end the process. ``test_reentrancy`` has one operation and
one hook at a time.
"""

import os

import pytest

from support.processes import run_code

SECONDS = float(os.environ.get("ZEROCOST_HAMMER_SECONDS", "6"))

PROGRAM = """
import asyncio, faulthandler, gc, os, random, sys, tempfile, threading, time
from collections import Counter
import numpy as np
from zerocost import LRUCache

faulthandler.dump_traceback_later(2 * SECONDS + 40, exit=True)
sys.setswitchinterval(1e-5)
gc.set_threshold(97, 3, 3)
ends = time.monotonic() + SECONDS
local = threading.local()
folder = tempfile.mkdtemp()
done, unexpected = Counter(), []
EXPECTED = (KeyError, RuntimeError, TypeError, ValueError, OSError)

def back():
    "Something else, now and then, from within whatever runs."
    depth = getattr(local, "depth", 0)
    if depth < 3 and random.random() < 0.05:
        local.depth = depth + 1
        try:
            step()
        finally:
            local.depth = depth

class Key:
    def __init__(self, number):
        self.number = number
    def __hash__(self):
        back()
        return self.number % 3
    def __eq__(self, other):
        back()
        return isinstance(other, Key) and self.number == other.number
    def __repr__(self):
        back()
        return "key"

class Value:
    def __init__(self):
        self.me = self if random.random() < 0.3 else None
        self.other = random.choice(caches)
    def __del__(self):
        back()

def hook(result):
    def called(*_):
        back()
        return result() if callable(result) else result
    return called

caches = []
for policy in ("lru", "sieve", "w-tinylfu"):
    caches += [
        LRUCache(7, policy=policy),
        LRUCache(
            7, 70, policy=policy, sizeof=hook(10), on_evict=hook(None), ttl=0.002, tti=0.001, clock=hook(time.monotonic)
        ),
        LRUCache(max_bytes=400, policy=policy, on_evict=hook(None)),
    ]
array = np.arange(64)

def key():
    number = random.randrange(12)
    kind = random.randrange(5)
    return (Key(number), number, f"key {number}", (number, "key"), 2**70 + number)[kind]

def value():
    kinds = (Value, lambda: b"bytes", lambda: array[: random.randrange(1, 9)], lambda: array.copy()[:8])
    return random.choice(kinds)()

def load():
    back()
    if random.random() < 0.1:
        raise KeyError("load")
    return value()

async def load_in_task():
    await asyncio.sleep(0)
    return load()

def tasks(cache):
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async def several():
            calls = [cache.aget_or_compute(key(), load_in_task) for _ in range(3)]
            await asyncio.gather(*calls, return_exceptions=True)
        asyncio.run(several())

def pairs():
    for _ in range(3):
        back()
        yield key(), value()

def assign(cache):
    cache[key()] = value()

def delete(cache):
    del cache[key()]

def path():
    return os.path.join(folder, str(random.randrange(3)))

def text_only(cache):
    "So that a snapshot finds a cache that it can write."
    cache.clear()
    cache.update({f"key {n}": array[:1] for n in range(3)})

OPERATIONS = {
    "get": lambda cache: cache.get(key()),
    "peek": lambda cache: cache.peek(key(), 1),
    "[]": lambda cache: cache[key()],
    "put": lambda cache: cache.put(key(), value()),
    "put with ttl": lambda cache: cache.put(key(), value(), random.choice([0.0001, 0.01, 9])),
    "[]=": assign,
    "del": delete,
    "in": lambda cache: key() in cache,
    "pop": lambda cache: cache.pop(key(), None),
    "popitem": lambda cache: cache.popitem(),
    "setdefault": lambda cache: cache.setdefault(key(), value()),
    "update": lambda cache: cache.update(pairs()),
    "clear": lambda cache: random.random() < 0.2 and cache.clear(),
    "list": lambda cache: (list(cache), list(reversed(cache)), list(cache.values()), list(cache.items())),
    "len": lambda cache: (len(cache), repr(cache), cache.stats(), cache.max_bytes),
    "==": lambda cache: cache == {key(): 1},
    "views": lambda cache: (key() in cache.keys(), key() in cache.items(), value() in cache.values()),
    "get_or_compute": lambda cache: cache.get_or_compute(key(), load),
    "_compute": lambda cache: cache._compute(key(), load),
    "aget_or_compute": lambda cache: random.random() < 0.1 and tasks(cache),
    "_flights": lambda cache: (list(cache._flights().items()), cache._flights().pop(key(), None)),
    "snapshot": lambda cache: random.random() < 0.1 and (text_only(cache), cache.snapshot(path())),
    "restore": lambda cache: random.random() < 0.2 and cache.restore(path()),
    "again": lambda cache: cache.__init__(9),
    "gc": lambda cache: random.random() < 0.02 and gc.collect(),
    "new": lambda cache: LRUCache(2, on_evict=hook(None)).update(pairs()),
}
NAMES = list(OPERATIONS)

def step():
    name = random.choice(NAMES)
    try:
        OPERATIONS[name](random.choice(caches))
    except EXPECTED:
        pass
    done[name] += 1

def work():
    try:
        while time.monotonic() < ends:
            step()
    except BaseException as error:
        unexpected.append(error)

sys.unraisablehook = lambda info: None if isinstance(info.exc_value, EXPECTED) else unexpected.append(info.exc_value)
threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert unexpected == [], unexpected
assert set(done) == set(NAMES) and min(done.values()) > 10, done
local.depth = 9
for cache in caches:
    stats = cache.stats()
    assert cache.max_entries is None or len(cache) <= cache.max_entries
    assert cache.max_bytes is None or stats["bytes"] <= cache.max_bytes
    assert len(list(cache)) == len(cache)
print("whole")
"""


@pytest.mark.timeout(3 * SECONDS + 60)
def test_every_operation_from_many_threads():
    program = f"SECONDS = {SECONDS}\n{PROGRAM}"
    done = run_code(program, check=False, seconds=3 * SECONDS + 50)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-3000:]
