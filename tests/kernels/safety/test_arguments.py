"""Arguments that are long, endless, or whose own code raises: at most a short error."""

import sys
import textwrap

import numpy as np
import pytest

import zerocost
from support.processes import run_python
from zerocost import LRUCache, PipelineParallelArtifact, TensorParallelArtifact, ZerocostError, _kernels, gather
from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact

MATRIX = np.zeros((4, 4), np.float32)
CALLS = {
    "sparsity_ratio": lambda value: SparseAttentionArtifact().process_attention(MATRIX, sparsity_ratio=value),
    "temperature": lambda value: _kernels.sparse_attention(MATRIX, 0.5, "none", value, False, "bottom_right", None),
    "normalization": lambda value: SparseAttentionArtifact().process_attention(MATRIX, normalization=value),
    "align": lambda value: SparseAttentionArtifact().process_attention(MATRIX, align=value),
    "is_causal": lambda value: SparseAttentionArtifact().process_attention(MATRIX, is_causal=value),
    "window_size": lambda value: SlidingWindowAttentionArtifact().process_attention(MATRIX, window_size=value),
    "num_threads": zerocost.set_num_threads,
    "num_splits": lambda value: TensorParallelArtifact().process_parallel(MATRIX, value),
    "num_stages": lambda value: PipelineParallelArtifact().process_parallel(MATRIX, value),
    "num_microbatches": lambda value: zerocost.pipeline_schedule(2, value),
    "axis": lambda value: gather([MATRIX], value),
    "max_entries": LRUCache,
    "ttl": lambda value: LRUCache(3, ttl=value),
    "ttl_jitter": lambda value: LRUCache(3, ttl=1.0, ttl_jitter=value),
    "sizeof": lambda value: LRUCache(max_bytes=9, sizeof=lambda _, given: given).put(1, value),
}
NAMES = {
    "policy": lambda value: LRUCache(3, policy=value),
    "activation": lambda value: _kernels.activate(MATRIX, MATRIX[0], value),
    "mode": lambda value: _kernels.sharded_linear(MATRIX, MATRIX, 2, -1, None, value),
    "datatype": lambda value: _kernels.read_tensor(b"[]", value, [0]),
}


@pytest.mark.parametrize(
    "value", ["x" * 10**6, [0] * 10**6, -(10**5000), "é" * 10**6], ids=["text", "list", "number", "é"]
)
@pytest.mark.parametrize("name", CALLS)
def test_an_error_shows_the_beginning_of_a_long_value(name, value):
    with pytest.raises(ZerocostError, match=rf"^{name}: ") as raised:
        CALLS[name](value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("name", NAMES)
def test_an_error_shows_the_beginning_of_a_long_name(name):
    with pytest.raises(ZerocostError) as raised:
        NAMES[name]("x" * 10**6)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("align", "normalization", "is_causal")])
def test_exceptions_of_a_value_s_code_are_raised(name, error):
    class Value:
        def __float__(self):
            raise error("mine")

        __index__ = __float__

    with pytest.raises(error, match=r"^mine\b"):
        CALLS[name](Value())


PROGRAM = """
import itertools, os, resource
import numpy as np
import zerocost
from zerocost import LRUCache, _kernels, gather
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact

def with_kilobytes(room, call):
    "Calls it in a child that gets so much more address space. What comes of it."
    child = os.fork()
    if child == 0:
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + room * 1024, resource.RLIM_INFINITY))
        try:
            call()
        except MemoryError:
            os._exit(1)
        except Exception:
            os._exit(2)
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return {0: "done", 1: "no memory", 2: "refused", 3: "ended"}.get(code, f"killed: {code}")

class Liar(list):
    def __len__(self):
        return 2**45
"""


def run(code):
    run_python("-W", "ignore", "-c", PROGRAM + textwrap.dedent(code), seconds=100)


linux = pytest.mark.skipif(sys.platform != "linux", reason="the address space is bounded and read as Linux does it")


@linux
def test_values_as_long_as_memory_are_refused():
    run("""
        matrix, sparse, long = np.zeros((4, 4), np.float32), SparseAttentionArtifact(), "x" * (150 << 20)
        for call in (
            lambda: sparse.process_attention(matrix, sparsity_ratio=long),
            lambda: sparse.process_attention(matrix, normalization=long),
            lambda: sparse.process_attention(matrix, align=long),
            lambda: zerocost.set_num_threads(long),
            lambda: LRUCache(3, policy=long),
        ):
            result = with_kilobytes(250 << 10, call)
            assert result == "refused", result
    """)


@linux
def test_endless_lists_and_lists_with_a_wrong_length():
    run("""
        for call in (
            lambda: LRUCache(10).update([itertools.repeat(1)]),
            lambda: _kernels.read_tensor(b"[]", "FP32", Liar()),
            lambda: _kernels.read_tensor(b"[]", "FP32", itertools.repeat(1)),
        ):
            result = with_kilobytes(200 << 10, call)
            assert result == "refused", result
        arrays = [np.zeros(3), np.ones(3)]
        assert gather(Liar(arrays)).shape == (6,)
        assert with_kilobytes(200 << 10, lambda: _kernels.gather_view(Liar(arrays), 0)) == "done"
    """)


@linux
def test_a_dict_whose_items_do_not_fit_into_memory():
    run("""
        items, results = {n: n for n in range(100_000)}, set()
        for room in range(0, 12_000, 250):
            results.add(with_kilobytes(room, lambda: LRUCache(100).update(items)))
        assert results == {"done", "no memory"}, results
    """)


@linux
@pytest.mark.parametrize("threads", [4, 64, 1024])
def test_threads_whose_stacks_do_not_fit_into_memory(threads):
    run(f"""
        matrix = np.random.default_rng(0).standard_normal((256, 4096)).astype(np.float32)
        def call():
            _kernels.set_num_threads({threads})
            _kernels.sparse_attention(matrix, 0.8, "softmax", 1.0, False, "bottom_right", matrix)
        # Where the stacks of some of the threads fit, and little more.
        tight = (room for stacks in range(1, 5) for room in range(stacks * 2060 - 40, stacks * 2060 + 120, 20))
        results = {{with_kilobytes(room, call) for room in (*range(1000, 30_000, 700), *tight)}}
        # Helpers for whom there is no room are not started; the scratch memory of many may not fit either.
        assert "done" in results, results
        assert results <= {{"done", "no memory"}}, results
        assert with_kilobytes(8 << 20, call) == "done"
    """)
