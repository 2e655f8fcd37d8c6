"""The test suites of other caches, run against thin adapters.

cachetools and lru-dict ship theirs in their source packages, which are fetched once (and kept in pytest's cache
folder); CPython's are in the interpreter's ``test`` package. Where they are missing, the tests are skipped.
"""

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
import tarfile
import types
import unittest

import pytest

import zerocost
from zerocost import LRUCache


@pytest.fixture(scope="session")
def fetch(request):
    """The unpacked source package of a distribution."""

    def fetched(name, version, folder):
        where = request.config.cache.mkdir("foreign")
        target = where / folder
        if not target.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command += ["--dest", str(where), f"{name}=={version}"]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=90)
            except (subprocess.SubprocessError, OSError) as error:
                pytest.skip(f"the source package of {name} cannot be fetched: {error}")
            with tarfile.open(where / f"{folder}.tar.gz") as archive:
                archive.extractall(where, filter="data")
        return target

    return fetched


def load(name, path, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def run(case, at_least):
    """Runs a TestCase class."""
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    result = unittest.TestResult()
    unittest.TestSuite(map(case, names)).run(result)
    assert result.failures + result.errors == [], "\n".join(text for _, text in result.failures + result.errors)
    assert result.testsRun - len(result.skipped) >= at_least


class Cachetools(LRUCache):
    """``cachetools.LRUCache``."""

    def __init__(self, maxsize, getsizeof=None):
        self.maxsize, self.sizeof = maxsize, getsizeof
        # Their tests make an empty one that stays empty.
        super().__init__(max_bytes=max(maxsize, 1), sizeof=lambda key, value: self.getsizeof(value))

    @property
    def currsize(self):
        return self.stats()["bytes"]

    def getsizeof(self, value):
        return 1 if self.sizeof is None else self.sizeof(value)

    def popitem(self):
        try:
            return super().popitem()
        except KeyError:
            raise KeyError("empty") from None

    def __reduce__(self):
        return type(self), (self.maxsize, self.sizeof), None, None, iter(list(self.items()))


def test_cachetools(fetch, monkeypatch):
    tests = fetch("cachetools", "7.0.0", "cachetools-7.0.0") / "tests"
    stand_in = types.ModuleType("cachetools")
    stand_in.LRUCache = Cachetools
    monkeypatch.setitem(sys.modules, "cachetools", stand_in)
    load("cachetools_tests", tests / "__init__.py", monkeypatch).__path__ = [str(tests)]
    case = load("cachetools_tests.test_lru", tests / "test_lru.py", monkeypatch).LRUCacheTest
    run(case, at_least=15)


class LRUDict:
    """``lru.LRU``: most recent first, lists instead of views, another bound at any time."""

    def __init__(self, size, callback=None):
        self.callback = callback
        self.counters = (0, 0)
        self.cache = self.made(size)

    def made(self, size):
        return LRUCache(size, on_evict=self.left)

    def left(self, key, value, cause):
        if self.callback is not None and cause == "size":
            self.callback(key, value)

    def set_callback(self, callback):
        self.callback = callback

    def set_size(self, size):
        old, self.cache = self.cache, self.made(size)
        self.cache.update(list(old.items()))

    def get_size(self):
        return self.cache.max_entries

    def get_stats(self):
        stats = self.cache.stats()
        return stats["hits"], stats["misses"]

    def keys(self):
        return list(reversed(self.cache))

    def values(self):
        return list(reversed(self.cache.values()))

    def items(self):
        return list(reversed(self.cache.items()))

    def peek_first_item(self):
        return next(iter(self.items()), None)

    def peek_last_item(self):
        return next(iter(self.cache.items()), None)

    def has_key(self, key):
        return key in self.cache

    def popitem(self, least_recent=True):
        if least_recent:
            return self.cache.popitem()
        key = self.keys()[0]
        return key, self.cache.pop(key)

    def clear(self):
        self.cache = self.made(self.cache.max_entries)

    def pop(self, key, *default):
        # Theirs counts a pop as a look-up.
        self.cache.get(key)
        return self.cache.pop(key, *default)

    def __getattr__(self, name):
        return getattr(self.cache, name)

    def __getitem__(self, key):
        return self.cache[key]

    def __setitem__(self, key, value):
        self.cache[key] = value

    def __delitem__(self, key):
        del self.cache[key]

    def __contains__(self, key):
        return key in self.cache

    def __len__(self):
        return len(self.cache)


def test_lru_dict(fetch, monkeypatch):
    tests = fetch("lru-dict", "1.4.1", "lru_dict-1.4.1") / "test"
    stand_in = types.ModuleType("lru")
    stand_in.LRU = LRUDict
    monkeypatch.setitem(sys.modules, "lru", stand_in)
    run(load("lru_dict_tests", tests / "test_lru.py", monkeypatch).TestLRU, at_least=20)


def interpreters(name):
    try:
        return importlib.import_module(f"test.{name}")
    except ImportError as error:
        pytest.skip(f"this interpreter comes without its tests: {error}")


def lru_cache(maxsize=128, typed=False):
    """``functools.lru_cache``; without single flight, as the tests count concurrent calls."""
    if callable(maxsize):
        return lru_cache()(maxsize)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")

    def decorate(function):
        if maxsize is not None and maxsize <= 0:
            # A cache that keeps nothing: its only entry is always too large.
            memoized = zerocost.memoize(function, max_bytes=1, sizeof=lambda *_: 2, typed=typed, single_flight=False)
        else:
            memoized = zerocost.memoize(function, max_entries=maxsize or 2**62, typed=typed, single_flight=False)
        return Functools(memoized, None if maxsize is None else max(maxsize, 0))

    return decorate


class Functools:
    """The rest of ``functools``: its names in ``cache_info`` and ``cache_parameters``, and pickling by name."""

    def __init__(self, memoized, maxsize):
        self.__dict__.update(getattr(memoized.__wrapped__, "__dict__", {}))
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__wrapped__"):
            if hasattr(memoized, name):
                setattr(self, name, getattr(memoized, name))
        self.memoized, self.maxsize = memoized, maxsize
        self.cache_clear = memoized.cache_clear

    def cache_info(self):
        import functools

        info = self.memoized.cache_info()
        return functools._CacheInfo(info.hits, info.misses, self.maxsize, info.currsize)

    def cache_parameters(self):
        return {"maxsize": self.maxsize, "typed": self.memoized.cache_parameters()["typed"]}

    def __call__(self, *args, **kwargs):
        return self.memoized(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def test_functools_of_cpython(monkeypatch):
    import functools

    theirs = interpreters("test_functools")
    module = types.ModuleType("module")
    vars(module).update(vars(functools), lru_cache=lru_cache)

    @lru_cache()
    def cached_func(x, y):
        return 3 * x + y

    cached_func.__qualname__ = cached_func.__name__ = "cached_func_of_memoize"
    cached_func.__module__ = theirs.__name__
    monkeypatch.setattr(theirs, "cached_func_of_memoize", cached_func, raising=False)

    class TestMemoize(theirs.TestLRU, unittest.TestCase):
        cached_func = (theirs.cached_func_of_memoize,)

        @lru_cache()
        def cached_meth(self, x, y):
            return 3 * x + y

        @staticmethod
        @lru_cache()
        def cached_staticmeth(x, y):
            return 3 * x + y

    TestMemoize.module = module
    TestMemoize.__qualname__ = "TestMemoize"
    TestMemoize.__module__ = theirs.__name__
    for name in ("cached_meth", "cached_staticmeth"):
        getattr(TestMemoize, name).__qualname__ = f"TestMemoize.{name}"
        getattr(TestMemoize, name).__module__ = theirs.__name__
    monkeypatch.setattr(theirs, "TestMemoize", TestMemoize, raising=False)
    run(TestMemoize, at_least=20)


class Literals(ast.NodeTransformer):
    """Every dict that a test makes becomes a cache."""

    def visit_Dict(self, node):
        self.generic_visit(node)
        pairs = [ast.Tuple(list(pair), ast.Load()) for pair in zip(node.keys, node.values, strict=True)]
        return self.cache_of(ast.List(pairs, ast.Load()), node)

    def visit_DictComp(self, node):
        self.generic_visit(node)
        return self.cache_of(ast.ListComp(ast.Tuple([node.key, node.value], ast.Load()), node.generators), node)

    def cache_of(self, pairs, node):
        return ast.copy_location(ast.Call(ast.Name("make_cache", ast.Load()), [pairs], []), node)


# Without those about iteration over a dict that changes, which is an error there; here it works on a snapshot.
REENTRANT = [
    "test_setdefault_atomic",
    "test_setitem_atomic_at_resize",
    "test_mutating_lookup",
    "test_bad_key",
    "test_resize1",
    "test_resize2",
    "test_reentrant_insertion",
    "test_equal_operator_modifying_operand",
    "test_dictitems_contains_use_after_free",
    "test_dict_contain_use_after_free",
    "test_init_use_after_free",
    "test_pop",
    "test_keys_contained",
    "test_container_iterator",
]


def make_cache(items=()):
    cache = LRUCache(10**6)
    cache.update(items)
    return cache


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", REENTRANT)
def test_dict_of_cpython(name):
    theirs = interpreters("test_dict")
    method = getattr(theirs.DictTest, name, None)
    if method is None:
        pytest.skip(f"this Python's test_dict has no {name}")
    source = inspect.cleandoc("\n" + inspect.getsource(method))
    tree = Literals().visit(ast.parse(source))
    class_ = type("Dict", (LRUCache,), {"__init__": lambda self, items=(): fill(self, items)})

    def fill(cache, items):
        LRUCache.__init__(cache, 10**6)
        cache.update(items)

    scope = {**vars(theirs), "make_cache": make_cache, "dict": class_}
    exec(compile(ast.fix_missing_locations(tree), theirs.__file__, "exec"), scope)
    case = type("Case", (theirs.DictTest,), {name: scope[name]})
    result = unittest.TestResult()
    case(name).run(result)
    assert result.failures + result.errors == [], "\n".join(text for _, text in result.failures + result.errors)
    assert result.testsRun == 1
