"""Top-k and windows on a given matrix against NumPy and PyTorch with the same threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import zerocost
from benches.peers.measure import Row, copy_limit, in_turn
from zerocost._kernels import num_threads
from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact

_sparse = SparseAttentionArtifact().process_attention
_slide = SlidingWindowAttentionArtifact().process_attention
_N = 4096
_TORCH = importlib.util.find_spec("torch") is not None


def rows() -> list[Row]:
    """Every comparison of this part."""
    return [*_top_k(), *_hard_rows(), *_windows(), *_growth(), _small_call()]


def _numpy_top_k(matrix: np.ndarray, k: int) -> np.ndarray:
    threshold = np.partition(matrix, -k, axis=-1)[:, -k, None]
    return np.where(matrix >= threshold, matrix, np.float32(0))


def _torch_top_k(matrix: np.ndarray, k: int) -> tuple[str, Callable[[], Any] | None]:
    if not _TORCH:
        return "torch topk + scatter", None
    import torch

    torch.set_num_threads(num_threads())
    scores = torch.from_numpy(matrix)
    out = torch.empty_like(scores)

    def call() -> Any:
        values, indices = torch.topk(scores, k, dim=-1, sorted=False)
        return out.zero_().scatter_(-1, indices, values)

    return "torch topk + scatter", call


def _top_k() -> list[Row]:
    matrix = np.random.default_rng(0).standard_normal((_N, _N), dtype=np.float32)
    out = np.empty_like(matrix)
    k = np.count_nonzero(_sparse(matrix[:1]))
    ours = partial(_sparse, matrix, out=out)
    assert np.array_equal(ours(), _numpy_top_k(matrix, k))
    copy = copy_limit(matrix.nbytes, num_threads())
    found = []
    name, torch_call = _torch_top_k(matrix, k)
    if torch_call is not None:
        assert np.array_equal(ours(), torch_call().numpy())
        mine, theirs, limit = in_turn([ours, torch_call, copy])
        found.append(_against_copy(f"top-k {_N}×{_N} keep 20 %, out=", mine, name, theirs, limit))
    mine, theirs, limit = in_turn([ours, partial(_numpy_top_k, matrix, k), copy], rounds=7, warmup=1)
    found.append(_against_copy(f"top-k {_N}×{_N} keep 20 %, out=", mine, "np.partition + where", theirs, limit))
    for normalization in ("softmax", "sum"):
        normalised = partial(_sparse, matrix, normalization=normalization, out=out)
        mine, limit = in_turn([normalised, copy])
        found.append(_against_copy(f"top-k {_N}×{_N}, {normalization}, out=", mine, "", None, limit))
    return found


def _against_copy(work: str, ours: float, peer: str, theirs: float | None, copy: float) -> Row:
    return Row(work, ours, peer, theirs, f"{copy * 1e3:.1f} ms, warm copy, {num_threads()} threads", copy / ours)


def _hard_rows() -> list[Row]:
    """Distributions that are hard for a search, and both ends of k."""
    rng = np.random.default_rng(1)
    shape = (512, _N)
    normal = rng.standard_normal(shape, dtype=np.float32)
    outlier = normal * np.float32(1e-9)
    outlier[:, 7] = 3e38
    cases = {
        "constant": np.full(shape, 0.25, np.float32),
        "4 values": rng.integers(0, 4, shape).astype(np.float32),
        "sorted": np.sort(normal, axis=-1),
        "one outlier": outlier,
        "every scale": np.exp(normal * 15),
        "-inf": np.full(shape, -np.inf, np.float32),
        "NaN": np.full(shape, np.nan, np.float32),
    }
    found = []
    for name, matrix in cases.items():
        out = np.empty_like(matrix)
        calls = [partial(_sparse, matrix, out=out), partial(np.partition, matrix, -819, axis=-1)]
        ours, theirs = in_turn(calls, rounds=7)
        found.append(Row(f"top-k 512×{_N}, {name}", ours, "np.partition alone", theirs))
    for k in (1, _N - 1):
        out = np.empty_like(normal)
        calls = [partial(_sparse, normal, 1 - k / _N, out=out), partial(np.partition, normal, -k, axis=-1)]
        ours, theirs = in_turn(calls, rounds=7)
        found.append(Row(f"top-k 512×{_N}, k = {k}", ours, "np.partition alone", theirs))
    return found


def _windows() -> list[Row]:
    matrix = np.random.default_rng(2).standard_normal((_N, _N), dtype=np.float32)
    out = np.empty_like(matrix)
    keys = np.arange(_N)
    outside = np.abs(keys[:, None] - keys) > 64
    fresh, into = partial(_slide, matrix, 129), partial(_slide, matrix, 129, out=out)
    expected = np.where(outside, np.float32(0), matrix)
    assert np.array_equal(fresh(), expected)
    assert np.array_equal(into(), expected)
    if _TORCH:
        import torch

        torch.set_num_threads(num_threads())
        scores, mask = torch.from_numpy(matrix), torch.from_numpy(outside)
        peer, theirs = "torch masked_fill, mask ready", lambda: scores.masked_fill(mask, 0.0)
    else:
        peer, theirs = "np.where, mask ready", partial(np.where, outside, np.float32(0), matrix)
    found = []
    for name, ours in (("out=", into), ("fresh output", fresh)):
        mine, other = in_turn([ours, theirs])
        found.append(Row(f"window 129, {_N}×{_N}, {name}", mine, peer, other))
    return found


def _growth() -> list[Row]:
    """How cost grows: four times the entries for top-k, twice the rows for a window."""
    found = []
    for n in (512, 1024, 2048, 4096, 8192):
        matrix = np.random.default_rng(n).standard_normal((n, n), dtype=np.float32)
        out = np.zeros_like(matrix)
        copy = copy_limit(matrix.nbytes, num_threads())
        ours, limit = in_turn([partial(_sparse, matrix, out=out), copy], rounds=7)
        found.append(_against_copy(f"top-k {n}×{n}, out=", ours, "", None, limit))
        (ours,) = in_turn([partial(_slide, matrix, 129)], rounds=7)
        found.append(Row(f"window 129, {n}×{n}, fresh output", ours, "", None))
    return found


def _small_call() -> Row:
    registry = zerocost.default_registry()
    service = zerocost.ArtifactCommunicationService(registry)
    context = zerocost.ExecutionContext("sparse_attention", "attention", "zero_cost", {})
    data = {"attention_matrix": np.eye(3, dtype=np.float32)}
    matrix = data["attention_matrix"]
    calls = [
        partial(service.call_artifact, "sparse_attention", data, context),
        lambda: np.where(matrix >= np.partition(matrix, -1, axis=-1)[:, -1:], matrix, 0),
    ]
    ours, theirs = in_turn(calls)
    return Row("3×3 through call_artifact", ours, "np.partition + where", theirs)
