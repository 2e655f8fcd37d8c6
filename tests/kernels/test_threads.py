"""Threads: how many there are, who sets the number, and what happens under a caller's threads and processes."""

import os
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import zerocost
from support.processes import run_python
from zerocost import _kernels

LARGE = "numpy.random.default_rng(0).standard_normal((512, 1024), dtype=numpy.float32)"


def run(code, **variables):
    """Runs a program in a process of its own, and returns the finished process."""
    program = (
        "import numpy, zerocost\nfrom support.waiting import wait_until\nfrom zerocost import _kernels\n"
        + textwrap.dedent(code)
    )
    return run_python("-W", "ignore", "-c", program, check=False, without="NUM_THREADS", variables=variables)


def answer(code, **environment):
    finished = run(code, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"ZEROCOST_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "5"}, "5"),
        ({"OMP_NUM_THREADS": "5,2"}, "5"),
        ({"OMP_NUM_THREADS": "nonsense"}, str(len(os.sched_getaffinity(0)))),
        ({"OMP_NUM_THREADS": "5", "ZEROCOST_NUM_THREADS": "2"}, "2"),
        ({"ZEROCOST_NUM_THREADS": ""}, str(len(os.sched_getaffinity(0)))),
    ],
)
def test_the_environment_sets_the_number_of_threads(environment, threads):
    assert answer("print(_kernels.num_threads())", **environment) == threads


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", "1025", "\udcff"])
def test_a_wrong_number_in_the_environment_is_named(threads):
    finished = run("", ZEROCOST_NUM_THREADS=threads)
    assert finished.returncode != 0
    assert "ZEROCOST_NUM_THREADS" in finished.stderr
    assert threads.replace("\udcff", "\ufffd") in finished.stderr


@pytest.mark.parametrize(
    ("threads", "error", "allowed"),
    [
        (0, zerocost.RangeError, "1 to 1024"),
        (-1, zerocost.RangeError, "1 to 1024"),
        (1025, zerocost.RangeError, "1 to 1024"),
        (2**70, zerocost.RangeError, "1 to 1024"),
        (-(2**70), zerocost.RangeError, "1 to 1024"),
        (1.5, zerocost.DatatypeError, "a whole number"),
        ("2", zerocost.DatatypeError, "a whole number"),
        (True, zerocost.DatatypeError, "a whole number"),
        (None, zerocost.DatatypeError, "a whole number"),
    ],
)
def test_a_wrong_number_is_refused(threads, error, allowed):
    before = zerocost.num_threads()
    with pytest.raises(error) as raised:
        zerocost.set_num_threads(threads)
    assert str(raised.value).startswith(f"num_threads: {threads!r} was given, {allowed}")
    assert raised.value.argument == "num_threads"
    assert zerocost.num_threads() == before


def test_numbers_of_numpy_are_numbers():
    before = zerocost.num_threads()
    try:
        zerocost.set_num_threads(np.int16(3))
        assert zerocost.num_threads() == 3
    finally:
        zerocost.set_num_threads(before)


@pytest.mark.parametrize("level", ["sse9", "\udcff"])
def test_an_unknown_cpu_level_is_named(level):
    code = "zerocost.default_registry()['sparse_attention'].implementation.process_attention([[1.0]])"
    finished = run(code, ZEROCOST_CPU=level)
    assert "RangeError" in finished.stderr
    assert "ZEROCOST_CPU" in finished.stderr


FORKED = f"""
    import multiprocessing, threading
    call = zerocost.default_registry()["sparse_attention"].implementation.process_attention
    matrix = {LARGE}
    expected = call(matrix, normalization="softmax")

    def work(_):
        same = call(matrix, normalization="softmax").tobytes() == expected.tobytes()
        return same, _kernels.num_threads(), threading.active_count()

    if __name__ == "__main__":
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                call(matrix)
        others = [threading.Thread(target=busy) for _ in range(2)]
        for other in others:
            other.start()
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(set(pool.map(work, range(12))))
        stop.set()
"""


def test_forked_workers_do_not_hang_and_stay_on_one_thread():
    # While two threads of the parent are in kernels, so that every lock of a kernel is held at some fork.
    assert answer(FORKED, ZEROCOST_NUM_THREADS="") == "{(True, 1, 1)}"


def test_forked_workers_use_the_number_of_threads_that_is_set():
    assert answer(FORKED, ZEROCOST_NUM_THREADS="2") == "{(True, 2, 1)}"


def test_spawned_workers_stay_on_one_thread(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(
        "import multiprocessing\n"
        "def work(_):\n"
        "    from zerocost import _kernels\n"
        "    return _kernels.num_threads()\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        print(set(pool.map(work, range(4))))\n"
    )
    finished = run_python(script, without="NUM_THREADS")
    assert finished.stdout.strip() == "{1}", finished.stderr


def test_threads_of_the_caller_share_the_pool():
    code = f"""
        import os
        from concurrent.futures import ThreadPoolExecutor
        call = zerocost.default_registry()["sparse_attention"].implementation.process_attention
        matrix = {LARGE}
        expected = call(matrix).tobytes()
        with ThreadPoolExecutor(6) as pool:
            print(all(result.tobytes() == expected for result in pool.map(lambda _: call(matrix), range(60))))
        names = [open(f"/proc/self/task/{{task}}/comm").read() for task in os.listdir("/proc/self/task")]
        print(sum(name.startswith("zerocost") for name in names))
    """
    same, helpers = answer(code, ZEROCOST_NUM_THREADS="3").split()
    assert same == "True"
    assert int(helpers) <= 2, "as many helpers as threads were asked for, less the caller"


def test_helpers_are_bounded_and_surplus_ones_end():
    code = f"""
        import os, time
        def helpers():
            names = []
            for task in os.listdir("/proc/self/task"):
                try:
                    names.append(open(f"/proc/self/task/{{task}}/comm").read())
                except OSError:  # it has just ended
                    pass
            return sum(name.startswith("zerocost") for name in names)

        def between(fewest, most):
            # Some may have to start or to end.
            return wait_until(lambda: fewest <= helpers() <= most, 20, every=0.002)

        call = zerocost.default_registry()["sparse_attention"].implementation.process_attention
        matrix = {LARGE}
        expected = call(matrix).tobytes()
        for threads in range(2, 21):
            _kernels.set_num_threads(threads)
            assert call(matrix).tobytes() == expected
            assert between(threads - 1, threads - 1), (helpers(), threads)
        for threads in (7, 3, 1):  # without a call
            _kernels.set_num_threads(threads)
            assert between(0, threads - 1), (helpers(), threads)
        _kernels.set_num_threads(4)
        call(matrix)
        print(between(3, 3))
    """
    assert answer(code, ZEROCOST_NUM_THREADS="2") == "True"


def test_one_thread_makes_no_helpers():
    code = f"""
        import os
        call = zerocost.default_registry()["sparse_attention"].implementation.process_attention
        call({LARGE})
        names = [open(f"/proc/self/task/{{task}}/comm").read() for task in os.listdir("/proc/self/task")]
        print(sum(name.startswith("zerocost") for name in names))
    """
    assert answer(code, ZEROCOST_NUM_THREADS="1") == "0"


def test_small_calls_never_come_to_the_pool():
    code = f"""
        import os, time
        def helpers():
            names = [open(f"/proc/self/task/{{task}}/comm").read() for task in os.listdir("/proc/self/task")]
            return sum(name.startswith("zerocost") for name in names)

        registry = zerocost.default_registry()
        sparse, slide, attend, split, stages = (
            registry[name].implementation.execute
            for name in ("sparse_attention", "sliding_window_attention", "scaled_dot_product_attention",
                         "tensor_parallel", "pipeline_parallel")
        )
        small = numpy.eye(3, dtype=numpy.float32)
        context = zerocost.ExecutionContext("any", "attention", "zero_cost", {{}})
        for normalization in ("none", "softmax", "sum"):
            for options in ({{}}, {{"is_causal": True}}, {{"out": numpy.empty_like(small)}}):
                options |= {{"attention_matrix": small, "normalization": normalization}}
                sparse(options, context)
                slide(options, context)
        for options in ({{}}, {{"is_causal": True}}, {{"window_size": 1}}, {{"sparsity_ratio": 0.5}}):
            for query in (small, small[:1]):
                attend({{"query": query, "key": small, "value": small}} | options, context)
        for options in ({{}}, {{"weight": small}}, {{"weight": small, "mode": "row"}}):
            split({{"tensor": small}} | options, context)
        stages({{"tensor": small}}, context)
        _kernels.Linear(small, small[0])(small, "gelu")
        _kernels.layer_norm(small, small, small[0], small[0], 1e-5)
        print(helpers())
        sparse({{"attention_matrix": {LARGE}}}, context)
        wait_until(lambda: helpers() >= 3, 20)  # the call did not wait for them to start
        print(helpers())
    """
    assert answer(code, ZEROCOST_NUM_THREADS="4").split() == ["0", "3"]


def test_the_number_of_threads_changes_no_bit():
    matrix = np.random.default_rng(3).standard_normal((300, 700), dtype=np.float32)
    registry = zerocost.default_registry()
    before = _kernels.num_threads()
    try:
        for name in ("sparse_attention", "sliding_window_attention"):
            call = registry[name].implementation.process_attention
            results = []
            for threads in (1, 2, 5):
                _kernels.set_num_threads(threads)
                results.append(call(matrix, normalization="softmax").tobytes())
            assert len(set(results)) == 1
    finally:
        _kernels.set_num_threads(before)


def test_small_calls_from_many_threads():
    call = zerocost.default_registry()["sparse_attention"].implementation.process_attention
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: call([[3.0, 1.0, 2.0]]).tolist(), range(200)))
    assert results == [[[3.0, 0.0, 0.0]]] * 200
