"""Fused attention against PyTorch's SDPA and against the plain way in NumPy, with the same threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from benches.peers.measure import Row, in_turn
from zerocost._kernels import num_threads
from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact

_attend = ScaledDotProductAttentionArtifact().process_attention
_linear = TensorParallelArtifact().process_parallel
_TORCH = importlib.util.find_spec("torch") is not None
_HEADS = 8


def rows() -> list[Row]:
    """Every comparison of this part."""
    best = _best_product()
    found = [
        _compare("dense, 8 heads, n 4096, d 64", best, 4096, 64),
        _compare("causal, 8 heads, n 4096, d 64", best, 4096, 64, is_causal=True),
        _compare("window 129, 8 heads, n 8192, d 64", best, 8192, 64, window=64),
        _compare("decode, 8 heads, 1 query, 32768 keys, d 64", best, 32768, 64, queries=1),
        _plain(best),
    ]
    found += [_compare(f"dense, 8 heads, n 2048, d {d}", best, 2048, d) for d in (32, 77, 80, 128, 256)]
    found += [
        _compare(f"dense, 8 heads, n 2048, d 64, {np.dtype(dtype).name}", best, 2048, 64, dtype=dtype)
        for dtype in (np.float64, np.float16, ml_dtypes.bfloat16)
    ]
    found += [_growth(best, n) for n in (1024, 2048, 4096, 8192, 16384)]
    return found


def _best_product() -> float:
    """The most flops a second that a matrix product reaches here: NumPy's, ours, PyTorch's."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    out = np.empty_like(a)
    products: list[Callable[[], Any]] = [partial(np.matmul, a, a, out=out), partial(_linear, a, 2, weight=a)]
    # One after the other and PyTorch last: its threads go on spinning after a call and would slow the others down.
    seconds = [in_turn([product])[0] for product in products]
    if _TORCH:
        import torch

        torch.set_num_threads(num_threads())
        seconds += in_turn([partial(torch.matmul, torch.from_numpy(a), torch.from_numpy(a))])
    return 2 * 2048.0**3 / min(seconds)


def _inputs(queries: int, keys: int, d: int, dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((_HEADS, n, d), dtype=np.float32).astype(dtype) for n in (queries, keys, keys)]


def _compare(
    work: str,
    best: float,
    n: int,
    d: int,
    *,
    queries: int | None = None,
    is_causal: bool = False,
    window: int | None = None,
    dtype: Any = np.float32,
) -> Row:
    queries = n if queries is None else queries
    query, key, value = _inputs(queries, n, d, dtype)
    out = np.empty_like(query)
    window_size = None if window is None else (window, window)
    ours = partial(_attend, query, key, value, is_causal=is_causal, window_size=window_size, out=out)
    pairs = queries * n
    if is_causal:
        pairs = n * (n + 1) // 2
    elif window is not None:
        pairs = sum(min(i + window, n - 1) - max(i - window, 0) + 1 for i in range(n))
    flops = 4 * _HEADS * pairs * d
    peer = "torch SDPA" if window is None else "torch SDPA, bool mask"
    times = in_turn([ours, *_sdpa(query, key, value, ours, is_causal, window)], rounds=7, warmup=1)
    limit = f"{best / 1e9:.0f} GFLOP/s, best matrix product"
    return Row(f"fused {work}", times[0], peer, times[1] if len(times) > 1 else None, limit, flops / times[0] / best)


def _sdpa(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, ours: Callable[[], Any], is_causal: bool, window: int | None
) -> list[Callable[[], Any]]:
    if not _TORCH:
        return []
    import torch

    torch.set_num_threads(num_threads())

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)[None]
        return torch.from_numpy(array)[None]

    mask = None
    if window is not None:
        positions = torch.arange(key.shape[1])
        mask = (positions[:, None] - positions[None, :]).abs() <= window
    inputs = [tensor(array) for array in (query, key, value)]
    attention = torch.nn.functional.scaled_dot_product_attention

    def call() -> Any:
        with torch.no_grad():
            return attention(*inputs, attn_mask=mask, is_causal=is_causal)

    given, expected = ours().astype(np.float64), call()[0].double().numpy()
    tolerance = {8: 1e-12, 4: 1e-5, 2: 2e-2}[query.dtype.itemsize]
    assert np.abs(given - expected).max() <= tolerance * max(1.0, np.abs(expected).max()), "the results differ"
    return [call]


def _plain(best: float) -> Row:
    """The plain way: matrix product, softmax, matrix product, with NumPy."""
    n, d = 2048, 64
    query, key, value = _inputs(n, n, d, np.float32)

    def plain() -> np.ndarray:
        scores = query @ key.swapaxes(-1, -2)
        scores *= np.float32(d**-0.5)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores @ value

    ours = partial(_attend, query, key, value)
    assert np.allclose(ours(), plain(), atol=1e-5)
    mine, theirs = in_turn([ours, plain], rounds=7)
    share = 4 * _HEADS * n * n * d / mine / best
    limit = f"{best / 1e9:.0f} GFLOP/s, best matrix product"
    return Row(f"fused dense, 8 heads, n {n}, d {d}", mine, "NumPy, the plain way", theirs, limit, share)


def _growth(best: float, n: int) -> Row:
    """How a window's cost grows: in proportion to n, not to its square."""
    query, key, value = _inputs(n, n, 64, np.float32)
    out = np.empty_like(query)
    (mine,) = in_turn([partial(_attend, query, key, value, window_size=(64, 64), out=out)], rounds=7)
    share = 4 * _HEADS * n * 129 * 64 / mine / best
    return Row(f"fused window 129, n {n}", mine, "", None, f"{best / 1e9:.0f} GFLOP/s, best matrix product", share)
