"""A program: calls a kernel that needs more memory than there is, fifty times.

python -m kernels.safety.scratch_memory CASE

It ends with 0 if each call raises MemoryError and says how much it wanted, if nothing is leaked, if an ``out`` that is
also the input is as it was, and if the threads still compute what they computed before. Inputs are large in their shape
only: they are broadcast, or pages that nobody has touched.
"""

import re
import resource
import sys
import time
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from zerocost import ZerocostError, _kernels

REPEATS = 50
ROOM = 24 << 20
"""Bytes of address space that are left."""
LEAK = 2 << 20
"""More than this much growth is a leak: every call wants at least ten times as much."""


def one(*shape, dtype=np.float32):
    return np.broadcast_to(dtype(0.5), shape)


def untouched(*shape, dtype=np.float32):
    """Zeros that are in no memory yet, but for the first few, which are 1, 2, 3, …"""
    array = np.zeros(shape, dtype)
    array.reshape(-1)[:8] = np.arange(1, 9)
    return array


def sparse(matrix, out, normalization="none"):
    return lambda: _kernels.sparse_attention(matrix, 0.5, normalization, 1.0, False, "bottom_right", out)


def in_place(matrix, normalization="none"):
    return sparse(matrix, matrix, normalization), matrix


def fused(queries, keys, dtype=np.float32, **options):
    query, key = np.ones((1, queries, 4), dtype), one(1, keys, 4, dtype=dtype)
    names = ("attn_mask", "is_causal", "scale", "window_size", "sparsity_ratio", "softcap", "sinks", "align", "out")
    defaults = {"is_causal": False, "softcap": 0.0, "align": "bottom_right"} | options
    return partial(
        _kernels.scaled_dot_product_attention, query, key, key, *(defaults.get(name) for name in names)
    ), None


def linear(rows, d_in, d_out, mode, dtype=np.float32):
    weight = one(d_in, d_out, dtype=dtype)
    if d_out > 1:
        weight = np.broadcast_to(np.full(d_out, 0.5, dtype), (d_in, d_out))
    return partial(_kernels.sharded_linear, one(rows, d_in, dtype=dtype), weight, 2, -1, None, mode), None


CASES = {
    "fused, largest scores": lambda: fused(6, 1 << 25, sparsity_ratio=0.5),
    "fused, largest scores, one query": lambda: fused(1, 1 << 26, sparsity_ratio=0.5),
    "fused, many rows": lambda: fused(96, 1 << 25),
    "fused, many rows, bfloat16": lambda: fused(96, 1 << 25, ml_dtypes.bfloat16),
    "long row": lambda: in_place(untouched(1, 1 << 26)),
    "long row, softmax": lambda: in_place(untouched(1, 1 << 26), "softmax"),
    "long row, float64, sum": lambda: in_place(untouched(1, 1 << 25, dtype=np.float64), "sum"),
    "long row, float16": lambda: in_place(untouched(1, 1 << 26, dtype=np.float16)),
    "rows with gaps": lambda: in_place(untouched(16, 1 << 23)[:, ::2]),
    "rows with gaps, softmax": lambda: in_place(untouched(16, 1 << 23)[:, ::2], "softmax"),
    "window on rows with gaps": lambda: (
        lambda matrix: (
            partial(
                _kernels.sliding_window_attention, matrix, (1 << 22, 0), "softmax", 1.0, False, "bottom_right", matrix
            ),
            matrix,
        )
    )(untouched(16, 1 << 24)[:, ::2]),
    "sharded linear, few rows, columns": lambda: linear(8, 1 << 24, 256, "column"),
    "sharded linear, few rows, rows": lambda: linear(8, 1 << 24, 256, "row"),
    "encoder's linear": lambda: (partial(_kernels.Linear, one(1 << 14, 1 << 13), np.zeros(1 << 13, np.float32)), None),
    "costs": lambda: (
        partial(_kernels.split_stages, one(1 << 25, dtype=np.int8), 4, 0, np.zeros(1 << 25)),
        None,
    ),
    "JSON of an array": lambda: (partial(_kernels.write_json, np.zeros(1 << 25)), None),
    "an array of JSON": lambda: (
        partial(_kernels.read_tensor, b"[" + b"0," * (1 << 23) + b"0]", "FP64", [(1 << 23) + 1], max_elements=1 << 26),
        None,
    ),
}


def helpers():
    tasks = (path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
    return sum(name.startswith("zerocost") for name in tasks)


def in_use():
    """Bytes of address space, and how many of them are in memory."""
    space, resident = Path("/proc/self/statm").read_text().split()[:2]
    return int(space) * resource.getpagesize(), int(resident) * resource.getpagesize()


def main(case):
    _kernels.set_num_threads(2)
    matrix = np.random.default_rng(0).standard_normal((300, 1024), dtype=np.float32)
    ordinary = sparse(matrix, np.empty_like(matrix), "softmax")
    before = ordinary().tobytes()
    end = time.monotonic() + 20
    while helpers() < 1 and time.monotonic() < end:  # no call waits for them to start, and later there is no room
        time.sleep(0.01)
    call, changed = CASES[case]()
    head = None if changed is None else changed[0, :8].tolist()
    limit = in_use()[0] + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sizes = []
    for _ in range(REPEATS):
        message = refused(call)
        sizes.append(in_use()[1])
        if changed is not None:
            assert changed[0, :8].tolist() == head, "the input was written to"
    assert sizes[-1] - sizes[4] < LEAK, f"{sizes[-1] - sizes[4]} bytes were leaked"
    assert ordinary().tobytes() == before
    print(f"{case}: {message}")


def refused(call):
    """The error's message."""
    with pytest.raises(MemoryError) as raised:
        call()
    error = raised.value
    assert isinstance(error, ZerocostError), f"{type(error)} is none of ours"
    wanted = re.search(r"(\d+) bytes", str(error))
    assert wanted, f"how much is missing in {error}"
    assert int(wanted[1]) > ROOM // 16, f"{error}: there is room for that"
    return str(error)


if __name__ == "__main__":
    main(sys.argv[1])
