"""Top-k and windows on a given matrix against other libraries with the same threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import zerocost
from benches.peers.measure import Peer, Row, compare, copy_limit, fill_limit, in_turn
from benches.peers.sessions import onnx_session
from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact

_sparse = SparseAttentionArtifact().process_attention
_slide = SlidingWindowAttentionArtifact().process_attention
_N = 4096


def rows() -> list[Row]:
    """Every comparison of this part."""
    return [*_top_k(), *_hard_rows(), *_windows(), *_growth(), *_small_call()]


def _kept(ratio: float, n: int) -> int:
    return int(np.count_nonzero(_sparse(np.ones((1, n), np.float32), ratio)))


def _numpy_top_k(matrix: np.ndarray, k: int) -> np.ndarray:
    threshold = np.partition(matrix, -k, axis=-1)[:, -k, None]
    return np.where(matrix >= threshold, matrix, np.float32(0))


def _torch_top_k(matrix: np.ndarray, k: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(zerocost.num_threads())
    scores = torch.from_numpy(matrix)
    out = torch.empty_like(scores)

    def call() -> Any:
        values, indices = torch.topk(scores, k, dim=-1, sorted=False)
        return out.zero_().scatter_(-1, indices, values)

    return call


def _numba_top_k(matrix: np.ndarray, k: int) -> Callable[[], Any]:
    import numba

    numba.set_num_threads(min(zerocost.num_threads(), numba.config.NUMBA_NUM_THREADS))

    @numba.njit(parallel=True)
    def top_k(matrix: Any, out: Any, k: int) -> None:
        n = matrix.shape[1]
        for row in numba.prange(matrix.shape[0]):
            threshold = np.partition(matrix[row], n - k)[n - k]
            for column in range(n):
                entry = matrix[row, column]
                out[row, column] = entry if entry >= threshold else np.float32(0)

    out = np.empty_like(matrix)

    def call() -> np.ndarray:
        top_k(matrix, out, k)
        return out

    return call


def _onnx_top_k(matrix: np.ndarray, k: int) -> Callable[[], Any]:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("TopK", ["matrix", "k"], ["values", "indices"], axis=-1, sorted=0),
        helper.make_node("ScatterElements", ["zeros", "indices", "values"], ["out"], axis=-1),
    ]
    # The zeros are an input and so ready, as `out=` is for the others.
    constants = [helper.make_tensor("k", TensorProto.INT64, [1], [k])]
    return onnx_session(nodes, {"matrix": matrix, "zeros": np.zeros_like(matrix)}, constants)


def _jax_top_k(matrix: np.ndarray, k: int) -> Callable[[], Any]:
    import jax

    @jax.jit
    def top_k(scores: Any) -> Any:
        values, indices = jax.lax.top_k(scores, k)
        return jax.vmap(lambda at, kept: jax.numpy.zeros(scores.shape[-1], scores.dtype).at[at].set(kept))(
            indices, values
        )

    scores = jax.device_put(matrix)
    return lambda: top_k(scores).block_until_ready()


def _top_k() -> list[Row]:
    matrix = np.random.default_rng(0).standard_normal((_N, _N), dtype=np.float32)
    out = np.empty_like(matrix)
    k = _kept(0.8, _N)
    threads = zerocost.num_threads()
    limit: dict[str, Any] = {"limit": copy_limit(matrix.nbytes, threads), "limit_name": f"warm copy, {threads} threads"}
    peers = [
        Peer("torch topk + scatter", partial(_torch_top_k, matrix, k)),
        Peer("numba, np.partition a row", partial(_numba_top_k, matrix, k)),
        Peer("np.partition + where, 1 thread", lambda: partial(_numpy_top_k, matrix, k)),
        Peer("ONNX Runtime TopK + ScatterElements", partial(_onnx_top_k, matrix, k)),
        Peer("JAX lax.top_k + scatter", partial(_jax_top_k, matrix, k)),
    ]
    found = compare(
        f"top-k {_N}×{_N} keep 20 %, out=",
        partial(_sparse, matrix, out=out),
        peers,
        np.array_equal,
        rounds=7,
        warmup=1,
        **limit,
    )
    kept = _numpy_top_k(matrix, k)
    weights = np.where(kept != 0, np.exp(matrix - matrix.max(axis=-1, keepdims=True)), np.float32(0))
    expected = {
        "softmax": weights / weights.sum(axis=-1, keepdims=True),
        "sum": kept / kept.sum(axis=-1, keepdims=True),
    }
    for normalization, plain in expected.items():
        normalised = partial(_sparse, matrix, normalization=normalization, out=out)
        assert np.allclose(normalised(), plain, rtol=1e-3, atol=1e-5), normalization
        found.append(_alone(f"top-k {_N}×{_N}, {normalization}, out=", normalised, **limit))
    return found


def _alone(work: str, ours: Callable[[], Any], limit: Callable[[], object], limit_name: str) -> Row:
    """A row without a peer."""
    mine, least = in_turn([ours, limit], rounds=7)
    return Row(work, mine, "", None, f"{least * 1e3:.3g} ms, {limit_name}", least / mine)


def _hard_rows() -> list[Row]:
    """Distributions that are hard for a search, and both ends of k. np.partition has one thread, so has ours."""
    rng = np.random.default_rng(1)
    shape = (512, _N)
    normal = rng.standard_normal(shape, dtype=np.float32)
    outlier = normal * np.float32(1e-9)
    outlier[:, 7] = 3e38
    keep = _kept(0.8, _N)
    cases = {
        "normal": (normal, keep),
        "constant": (np.full(shape, 0.25, np.float32), keep),
        "4 values": (rng.integers(0, 4, shape).astype(np.float32), keep),
        "sorted": (np.sort(normal, axis=-1), keep),
        "one outlier": (outlier, keep),
        "every scale": (np.exp(normal * 15), keep),
        "denormals": (rng.integers(0, 1 << 22, shape, dtype=np.uint32).view(np.float32), keep),
        "-inf": (np.full(shape, -np.inf, np.float32), keep),
        "NaN": (np.full(shape, np.nan, np.float32), keep),
        "k = 1": (normal, 1),
        f"k = {_N - 1}": (normal, _N - 1),
    }
    found = []
    before = zerocost.num_threads()
    zerocost.set_num_threads(1)
    try:
        for name, (matrix, k) in cases.items():
            out = np.empty_like(matrix)
            found += compare(
                f"top-k 512×{_N}, {name}, 1 thread, out=",
                partial(_sparse, matrix, 1 - k / _N, out=out),
                [Peer("np.partition alone", lambda m=matrix, k=k: partial(np.partition, m, -k, axis=-1))],
                partial(_keeps_the_largest, matrix, k),
                limit=copy_limit(matrix.nbytes, 1),
                limit_name="warm copy, 1 thread",
                rounds=7,
            )
    finally:
        zerocost.set_num_threads(before)
    return found


def _keeps_the_largest(matrix: np.ndarray, k: int, ours: np.ndarray, partitioned: np.ndarray) -> bool:
    """Whether ours keeps the first of the k largest of each row, in place, and np.partition finds the same ones."""
    order = np.argsort(-np.nan_to_num(matrix, nan=np.inf, neginf=-np.inf), axis=-1, kind="stable")[:, :k]
    largest = np.take_along_axis(matrix, order, axis=-1)
    expected = np.zeros_like(matrix)
    np.put_along_axis(expected, order, largest, axis=-1)
    same = np.array_equal(np.sort(partitioned[:, -k:]), np.sort(largest), equal_nan=True)
    return same and np.array_equal(ours, expected, equal_nan=True)


def _torch_window(matrix: np.ndarray, outside: np.ndarray) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(zerocost.num_threads())
    scores, mask = torch.from_numpy(matrix), torch.from_numpy(outside)
    return lambda: scores.masked_fill(mask, 0.0)


def _numba_window(matrix: np.ndarray, fresh: bool) -> Callable[[], Any]:
    import numba

    numba.set_num_threads(min(zerocost.num_threads(), numba.config.NUMBA_NUM_THREADS))

    @numba.njit(parallel=True)
    def window(matrix: Any, out: Any) -> None:
        for row in numba.prange(matrix.shape[0]):
            first, end = max(row - 64, 0), min(row + 65, matrix.shape[1])
            if not fresh:
                out[row, :first] = 0
                out[row, end:] = 0
            out[row, first:end] = matrix[row, first:end]

    kept = np.empty_like(matrix)

    def call() -> np.ndarray:
        out = np.zeros_like(matrix) if fresh else kept
        window(matrix, out)
        return out

    return call


def _onnx_window(matrix: np.ndarray, outside: np.ndarray) -> Callable[[], Any]:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Where", ["outside", "zero", "matrix"], ["out"])]
    constants = [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])]
    return onnx_session(nodes, {"matrix": matrix, "outside": outside}, constants)


def _jax_window(matrix: np.ndarray, outside: np.ndarray) -> Callable[[], Any]:
    import jax

    where = jax.jit(lambda scores, mask: jax.numpy.where(mask, 0.0, scores))
    scores, mask = jax.device_put(matrix), jax.device_put(outside)
    return lambda: where(scores, mask).block_until_ready()


def _window(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and what is outside of its window."""
    keys = np.arange(n, dtype=np.int32)
    matrix = np.random.default_rng(n).standard_normal((n, n), dtype=np.float32)
    return matrix, np.abs(keys[:, None] - keys) > 64


def _touched_pages(n: int) -> Callable[[], object]:
    """Zero pages, of which as many are touched as the band has: no fresh output costs less."""
    keys = np.arange(n)

    def touch() -> np.ndarray:
        out = np.zeros((n, n), np.float32)
        out[keys, keys] = 1
        return out

    return touch


def _windows() -> list[Row]:
    matrix, outside = _window(_N)
    out = np.empty_like(matrix)
    numba = "numba, a band a row"
    peers = [
        Peer("torch masked_fill, mask ready", partial(_torch_window, matrix, outside)),
        Peer(numba, partial(_numba_window, matrix, False)),
        Peer("np.where, mask ready, 1 thread", lambda: partial(np.where, outside, np.float32(0), matrix)),
        Peer("ONNX Runtime Where, mask ready", partial(_onnx_window, matrix, outside)),
        Peer("JAX where, mask ready", partial(_jax_window, matrix, outside)),
    ]
    threads = zerocost.num_threads()
    into = partial(_slide, matrix, 129, out=out)
    found = compare(
        f"window 129, {_N}×{_N}, out=",
        into,
        peers,
        np.array_equal,
        limit=fill_limit(matrix.nbytes, threads),
        limit_name=f"warm fill, {threads} threads",
    )
    return found + compare(
        f"window 129, {_N}×{_N}, fresh output",
        partial(_slide, matrix, 129),
        [Peer(numba, partial(_numba_window, matrix, True)) if peer.name == numba else peer for peer in peers],
        np.array_equal,
        limit=_touched_pages(_N),
        limit_name="zero pages, the band's touched",
    )


def _growth() -> list[Row]:
    """How cost grows: four times the entries for top-k, twice the rows for a window."""
    found = []
    threads = zerocost.num_threads()
    for n in (512, 1024, 2048, 4096, 8192):
        matrix, outside = _window(n)
        out = np.zeros_like(matrix)
        assert np.array_equal(_sparse(matrix, out=out), _numpy_top_k(matrix, _kept(0.8, n)))
        assert np.array_equal(_slide(matrix, 129), np.where(outside, np.float32(0), matrix))
        copy = copy_limit(matrix.nbytes, threads)
        found.append(
            _alone(f"top-k {n}×{n}, out=", partial(_sparse, matrix, out=out), copy, f"copy, {threads} threads")
        )
        touch = "zero pages, the band's touched"
        found.append(
            _alone(f"window 129, {n}×{n}, fresh output", partial(_slide, matrix, 129), _touched_pages(n), touch)
        )
    return found


def _small_call() -> list[Row]:
    service = zerocost.ArtifactCommunicationService(zerocost.default_registry())
    context = zerocost.ExecutionContext("sparse_attention", "attention", "zero_cost", {})
    data = {"attention_matrix": np.eye(3, dtype=np.float32)}
    matrix = data["attention_matrix"]

    def nothing(name: str, data: dict[str, Any], context: zerocost.ExecutionContext) -> dict[str, Any]:
        return data

    def plain() -> np.ndarray:
        return np.where(matrix >= np.partition(matrix, -1, axis=-1)[:, -1:], matrix, 0)

    return compare(
        "3×3 through call_artifact",
        partial(service.call_artifact, "sparse_attention", data, context),
        [Peer("np.partition + where", lambda: plain)],
        lambda ours, theirs: np.array_equal(ours["processed_attention"], theirs),
        limit=partial(nothing, "sparse_attention", data, context),
        limit_name="a Python call that does nothing",
    )
