"""Fused attention against other libraries and against the plain way in NumPy, with the same threads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from benches.peers.measure import Peer, Row, compare, in_turn
from benches.peers.sessions import onnx_session
from zerocost._kernels import num_threads
from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
from zerocost.artifacts.parallel.tensor_parallel import TensorParallelArtifact

_attend = ScaledDotProductAttentionArtifact().process_attention
_linear = TensorParallelArtifact().process_parallel
_HEADS = 8


@dataclass(frozen=True)
class Case:
    """One shape. Inputs are ``[8, n, d]``, the query ``[8, queries, d]``."""

    work: str
    n: int
    d: int = 64
    queries: int = 0
    is_causal: bool = False
    window: int | None = None
    sparsity_ratio: float | None = None
    dtype: Any = np.float32

    def inputs(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        sizes = (self.queries or self.n, self.n, self.n)
        return [rng.standard_normal((_HEADS, n, self.d), dtype=np.float32).astype(self.dtype) for n in sizes]

    def ours(self, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Callable[[], np.ndarray]:
        window_size = None if self.window is None else (self.window, self.window)
        options = {"is_causal": self.is_causal, "window_size": window_size, "sparsity_ratio": self.sparsity_ratio}
        return partial(_attend, query, key, value, out=np.empty_like(query), **options)

    def flops(self) -> int:
        """Of the two products, for the pairs of query and key that take part (top-k knows them only afterwards)."""
        pairs = (self.queries or self.n) * self.n
        if self.is_causal:
            pairs = self.n * (self.n + 1) // 2
        elif self.window is not None:
            w = self.window
            pairs = sum(min(i + w, self.n - 1) - max(i - w, 0) + 1 for i in range(self.n))
        return 4 * _HEADS * pairs * self.d

    def allowed(self) -> np.ndarray | None:
        """``[n, n]``, the window as a mask."""
        if self.window is None:
            return None
        keys = np.arange(self.n)
        return np.abs(keys[:, None] - keys) <= self.window

    def same(self, ours: np.ndarray, theirs: np.ndarray) -> bool:
        given, expected = ours.astype(np.float64), theirs.astype(np.float64).reshape(ours.shape)
        tolerance = {8: 1e-12, 4: 1e-5, 2: 2e-2}[np.dtype(self.dtype).itemsize]
        errors, most = np.abs(given - expected), np.abs(expected).max()
        if self.sparsity_ratio is not None:
            # Where the last score that is kept and the first that is not differ by rounding only, either may be.
            return bool(np.quantile(errors, 0.99) <= tolerance * most and errors.max() <= 0.1 * most)
        return bool(errors.max() <= tolerance * most)


def rows() -> list[Row]:
    """Every comparison of this part."""
    best = _best_product()
    dense = [_torch, _onnxruntime, _jax]
    found = [
        *_compare(Case("dense, 8 heads, n 4096, d 64", 4096), best, dense),
        *_compare(Case("causal, 8 heads, n 4096, d 64", 4096, is_causal=True), best, dense),
        *_compare(Case("window 129, 8 heads, n 8192, d 64", 8192, window=64), best, [_flex, *dense]),
        *_compare(Case("decode, 8 heads, 1 query, 32768 keys, d 64", 32768, queries=1), best, dense),
        *_compare(Case("dense, 8 heads, n 2048, d 64", 2048), best, [_plain]),
        *_compare(Case("decode, 8 heads, 1 query, 32768 keys, d 64", 32768, queries=1), best, [_plain]),
    ]
    sparse = partial(Case, sparsity_ratio=0.8)
    for case in (
        sparse("keep 20 %, 8 heads, n 2048, d 64", 2048),
        sparse("decode keep 20 %, 8 heads, 1 query, 32768 keys, d 64", 32768, queries=1),
    ):
        found += _compare(case, best, [_torch_sparse, _plain])
    for d in (32, 77, 80, 128, 256):
        found += _compare(Case(f"dense, 8 heads, n 2048, d {d}", 2048, d), best, [_torch])
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        found += _compare(
            Case(f"dense, 8 heads, n 2048, d 64, {np.dtype(dtype).name}", 2048, dtype=dtype), best, [_torch]
        )
    found += [_growth(best, n) for n in (1024, 2048, 4096, 8192, 16384)]
    return found + [_peak_memory(n) for n in (4096, 16384)]


def _best_product() -> float:
    """The most flops a second that a matrix product reaches here: NumPy's, ours, PyTorch's."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    out = np.empty_like(a)
    products: list[Callable[[], Any]] = [partial(np.matmul, a, a, out=out), partial(_linear, a, 2, weight=a)]
    # One after the other and PyTorch last: its threads go on spinning after a call and would slow the others down.
    seconds = [in_turn([product])[0] for product in products]
    try:
        import torch
    except ImportError:
        return 2 * 2048.0**3 / min(seconds)
    torch.set_num_threads(num_threads())
    seconds += in_turn([partial(torch.matmul, torch.from_numpy(a), torch.from_numpy(a))])
    return 2 * 2048.0**3 / min(seconds)


def _compare(case: Case, best: float, peers: list[Callable[..., Peer]]) -> list[Row]:
    inputs = case.inputs()
    return compare(
        f"fused {case.work}",
        case.ours(*inputs),
        [peer(case, *inputs) for peer in peers],
        case.same,
        limit=case.flops() / best,
        limit_name=f"its products at {best / 1e9:.0f} GFLOP/s, the best matrix product",
        rounds=7,
        warmup=1,
    )


def _tensor(array: np.ndarray) -> Any:
    """As torch takes it, with a batch axis."""
    import torch

    torch.set_num_threads(num_threads())
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)[None]
    return torch.from_numpy(array)[None]


def _from_torch(result: Any) -> np.ndarray:
    return result.double().numpy()


def _torch(case: Case, *inputs: np.ndarray) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        tensors = [_tensor(array) for array in inputs]
        allowed = case.allowed()
        mask = None if allowed is None else torch.from_numpy(allowed)
        attention = torch.nn.functional.scaled_dot_product_attention
        return torch.no_grad()(lambda: attention(*tensors, attn_mask=mask, is_causal=case.is_causal))

    return Peer("torch SDPA" if case.window is None else "torch SDPA, bool mask", make, _from_torch)


def _flex(case: Case, *inputs: np.ndarray) -> Peer:
    """FlexAttention, compiled, which skips the blocks that its block mask leaves out."""

    def make() -> Callable[[], Any]:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        tensors = [_tensor(array) for array in inputs]
        window = case.window
        assert window is not None

        def near(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return (query - key).abs() <= window

        blocks = create_block_mask(near, None, None, case.n, case.n, device="cpu")
        compiled = torch.compile(flex_attention)
        return torch.no_grad()(lambda: compiled(*tensors, block_mask=blocks))

    return Peer("torch FlexAttention, compiled", make, _from_torch)


def _torch_sparse(case: Case, *inputs: np.ndarray) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        query, key, value = (_tensor(array) for array in inputs)
        dropped = int(case.n * (case.sparsity_ratio or 0) + 1e-9)

        def call() -> Any:
            scores = query @ key.transpose(-1, -2) * case.d**-0.5
            top, at = torch.topk(scores, case.n - dropped, dim=-1, sorted=False)
            weights = torch.zeros_like(scores).scatter_(-1, at, torch.softmax(top, dim=-1))
            return weights @ value

        return torch.no_grad()(call)

    return Peer("torch product, topk, softmax, product", make, _from_torch)


def _onnxruntime(case: Case, *inputs: np.ndarray) -> Peer:
    def make() -> Callable[[], Any]:
        from onnx import helper

        given = dict(zip(("query", "key", "value"), (array[None] for array in inputs), strict=True))
        allowed = case.allowed()
        if allowed is not None:
            given["mask"] = allowed
        node = helper.make_node("Attention", list(given), ["out"], is_causal=int(case.is_causal))
        return onnx_session([node], given)

    return Peer("ONNX Runtime Attention", make)


def _jax(case: Case, *inputs: np.ndarray) -> Peer:
    def make() -> Callable[[], Any]:
        import jax

        # It has the heads behind the rows.
        arrays = [jax.device_put(array.swapaxes(0, 1)[None]) for array in inputs]
        window = None if case.window is None else (case.window, case.window)
        attention = partial(jax.nn.dot_product_attention, is_causal=case.is_causal, local_window_size=window)
        compiled = jax.jit(attention)
        return lambda: compiled(*arrays).block_until_ready()

    return Peer("JAX dot_product_attention", make, lambda result: np.asarray(result)[0].swapaxes(0, 1))


def _plain(case: Case, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Peer:
    """The plain way: matrix product, softmax, matrix product, with NumPy."""
    dropped = int(case.n * (case.sparsity_ratio or 0) + 1e-9)

    def plain() -> np.ndarray:
        scores = query @ key.swapaxes(-1, -2)
        scores *= np.float32(case.d**-0.5)
        top = scores.max(axis=-1, keepdims=True)
        if dropped:
            least = np.partition(scores, dropped, axis=-1)[..., dropped, None]
            scores[scores < least] = -np.inf
        scores -= top
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores @ value

    return Peer("NumPy, the plain way", lambda: plain)


def _growth(best: float, n: int) -> Row:
    """How a window's cost grows: in proportion to n, not to its square."""
    case = Case(f"window 129, n {n}", n, window=64)
    query, key, value = case.inputs()
    ours = case.ours(query, key, value)
    # The first rows see nothing of what comes later, so a short call knows them.
    head = [array[:, :256] for array in (query, key, value)]
    short = Case("", 256, window=64).ours(*head)()
    assert np.allclose(ours()[:, :128], short[:, :128], atol=1e-5)
    (mine,) = in_turn([ours], rounds=7)
    least = case.flops() / best
    words = f"{least * 1e3:.3g} ms, its products at {best / 1e9:.0f} GFLOP/s, the best matrix product"
    return Row(f"fused {case.work}", mine, "", None, words, least / mine)


_PEAK = """
import json, pathlib, sys
import numpy as np

def memory(which):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

n = int(sys.argv[2])
rng = np.random.default_rng(3)
query, key, value = (rng.standard_normal((8, n, 64), dtype=np.float32) for _ in range(3))
out = np.ones_like(query)
small = [array[:, :256].copy() for array in (query, key, value)]
if sys.argv[1] == "ours":
    from zerocost.artifacts.attention.scaled_dot_product_attention import ScaledDotProductAttentionArtifact
    attend = ScaledDotProductAttentionArtifact().process_attention
    call = lambda arrays, out=None: attend(*arrays, out=out)
else:
    import torch
    attention = torch.no_grad()(torch.nn.functional.scaled_dot_product_attention)
    call = lambda arrays, out=None: attention(*(torch.from_numpy(array)[None] for array in arrays))
call(small)  # threads and whatever a first call loads
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = memory("VmRSS")
call([query, key, value], out)
print(json.dumps(memory("VmHWM") - before - (0 if sys.argv[1] == "ours" else out.nbytes)))
"""


def _peak_memory(n: int) -> Row:
    """What a call needs beside inputs and output, each in a process of its own."""

    def peak(who: str) -> float | None:
        finished = subprocess.run(
            [sys.executable, "-c", _PEAK, who, str(n)], capture_output=True, text=True, timeout=600, check=False
        )
        if finished.returncode:
            assert "No module named 'torch'" in finished.stderr, finished.stderr
            return None
        return float(max(json.loads(finished.stdout), 1))

    ours = peak("ours")
    assert ours is not None
    scores = 8 * n * n * 4
    words = f"the scores would be {scores / 2**20:.0f} MiB"
    return Row(f"fused dense, 8 heads, n {n}, d 64: peak memory", ours, "torch SDPA", peak("torch"), words, unit="B")
