"""A sentence encoder, all-MiniLM-L6-v2 in float32: transformers on PyTorch, and ONNX Runtime.

The model is fetched as the tests fetch it (or ``ZEROCOST_MODEL_DIR`` names its folder). ONNX Runtime runs an export of
the same weights, which PyTorch makes into the folder for temporary files.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches.peers.measure import Row, in_turn

SHAPES = [(1, 16), (1, 128), (8, 128), (32, 128), (8, 512)]
THREADS = 2
FLOPS = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
"""Of the matrix products for one token, attention not counted."""


def rows() -> list[Row]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import minilm

    import zerocost

    folder, reason = minilm.find()
    if folder is None:
        return [Row(f"all-MiniLM-L6-v2 cannot be had: {reason}", 0.0, "transformers on PyTorch", None)]
    zerocost.set_num_threads(THREADS)
    service = zerocost.SimplifiedModelService(zerocost.default_registry(), folder)
    file = os.environ.get("ZEROCOST_MODEL_ONNX") or _export(folder)
    runtime = "ONNX Runtime" if file is not None or not _is_installed("onnxruntime") else _NO_EXPORT
    peers = {"transformers on PyTorch": _torch(folder), runtime: _onnxruntime(file)}
    generator = np.random.default_rng(0)
    batches = [(f"{shape}", [list(ids) for ids in generator.integers(999, 30_000, shape)]) for shape in SHAPES]
    lengths = generator.integers(5, 201, 64)
    batches.append(("64 sequences of 5 to 200", [list(generator.integers(999, 30_000, length)) for length in lengths]))
    best = _best_product()
    table = []
    for name, ids in batches:
        ids = [[int(token) for token in sequence] for sequence in ids]
        tokens = sum(map(len, ids))
        wanted = service.forward(ids).pooled
        calls: list[Callable[[], Any]] = [lambda ids=ids: service.forward(ids)]
        names = [peer for peer, run in peers.items() if run is not None]
        for peer in names:
            run = peers[peer]
            assert run is not None
            assert np.abs(run(ids) - wanted).max() < 1e-4, f"{peer} and zerocost differ"
            calls.append(lambda ids=ids, run=run: run(ids))
        # Long turns: the peers' idle threads spin for a while after their call, on the cores of whoever comes next.
        seconds = dict(zip(["zerocost", *names], in_turn(calls, rounds=7, warmup=1, least=0.25), strict=True))
        ours = seconds["zerocost"]
        share = tokens * FLOPS / ours / best
        limit = f"products at {best / 1e9:.0f} GFLOP/s; {tokens / ours:.0f} tokens/s"
        table += [Row(f"MiniLM {name}", ours, peer, seconds.get(peer), limit, share) for peer in peers]
    table.append(_linear_layer(best))
    table += _first_result(folder, file, runtime)
    return table


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _padded(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(map(len, ids))
    padded, mask = np.zeros((2, len(ids), longest), np.int64)
    for row, sequence in enumerate(ids):
        padded[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    return padded, mask


def _mean(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def _torch(folder: Path) -> Callable[[list[list[int]]], np.ndarray] | None:
    try:
        import torch
        from transformers import AutoModel
    except ImportError:
        return None
    torch.set_num_threads(THREADS)
    model = AutoModel.from_pretrained(folder).eval()

    def run(ids: list[list[int]]) -> np.ndarray:
        padded, mask = _padded(ids)
        with torch.inference_mode():
            output = model(input_ids=torch.from_numpy(padded), attention_mask=torch.from_numpy(mask))
        return _mean(output.last_hidden_state.numpy(), mask)

    return run


def _onnxruntime(file: str | None) -> Callable[[list[list[int]]], np.ndarray] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    if file is None:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(ids: list[list[int]]) -> np.ndarray:
        padded, mask = _padded(ids)
        (states,) = session.run(None, {"input_ids": padded, "attention_mask": mask})
        return _mean(states, mask)

    return run


def _export(folder: Path) -> str | None:
    try:
        import onnx  # noqa: F401 - what PyTorch's exporter needs
        import torch
        from transformers import AutoModel
    except ImportError:
        return None

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder).eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    file = str(Path(tempfile.mkdtemp()) / "model.onnx")
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in (*names, "states")}
    ones = torch.ones(2, 8, dtype=torch.long)
    torch.onnx.export(
        States(), (ones, ones), file, input_names=names, output_names=["states"], dynamic_axes=axes, dynamo=False
    )
    return file


def _best_product() -> float:
    """Operations a second of a large matrix product: the library's, or NumPy's where that is faster."""
    from zerocost.models.layers import Linear

    a, b = np.random.default_rng(0).standard_normal((2, 2048, 2048), np.float32)
    layer, out = Linear(b, np.zeros(2048, np.float32)), np.empty((2048, 2048), np.float32)
    seconds = in_turn([lambda: layer(a, out=out), lambda: np.matmul(a, b, out=out)])
    return 2 * 2048**3 / min(seconds)


def _linear_layer(best: float) -> Row:
    """The inner layer of a block for 1024 tokens, bias and GELU (by tanh, which NumPy has) included."""
    from zerocost.models.layers import Linear

    generator = np.random.default_rng(0)
    tensor = generator.standard_normal((1024, 384), np.float32)
    weight, bias = generator.standard_normal((384, 1536), np.float32) / 20, generator.standard_normal(1536, np.float32)
    layer, out = Linear(weight, bias), np.empty((1024, 1536), np.float32)
    theirs = np.empty_like(out)

    def numpy() -> None:
        x = np.matmul(tensor, weight, out=theirs)
        x += bias
        x *= np.float32(0.5) * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)))

    def ours() -> None:
        layer(tensor, "gelu_tanh", out=out)

    ours()
    numpy()
    assert np.abs(out - theirs).max() < 1e-4, "numpy and zerocost differ"
    seconds, there = in_turn([ours, numpy])
    share = 2 * tensor.shape[0] * weight.size / seconds / best
    limit = f"products at {best / 1e9:.0f} GFLOP/s"
    return Row("linear 1024 × 384 → 1536, bias, GELU", seconds, "np.matmul + bias + GELU", there, limit, share)


_NO_EXPORT = "ONNX Runtime: PyTorch, transformers and onnx for its export"
"""The peer's name where it is installed and the model cannot be exported for it."""
_SENTENCE = "The cat sits on the mat."
_BATCH = [f"{_SENTENCE} {'It sleeps there until the evening. ' * 16}"] * 32
_OURS = """
from zerocost import SimplifiedModelService, default_registry
vector = SimplifiedModelService(default_registry(), {folder!r}).embed({texts!r})
"""
_TORCH = """
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained({folder!r}), AutoModel.from_pretrained({folder!r}).eval()
with torch.inference_mode():
    output = model(**tokenizer({texts!r}, return_tensors="pt"))
vector = output.last_hidden_state.mean(axis=1).numpy()
vector /= (vector * vector).sum(axis=1, keepdims=True) ** 0.5
"""
_ONNXRUNTIME = """
import numpy, onnxruntime
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file({folder!r} + "/tokenizer.json")
tokenizer.no_padding()
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
ids = numpy.array([encoding.ids for encoding in tokenizer.encode_batch({texts!r})])
(states,) = session.run(None, {{"input_ids": ids, "attention_mask": numpy.ones_like(ids)}})
vector = states.mean(axis=1)
vector /= (vector * vector).sum(axis=1, keepdims=True) ** 0.5
"""
# Not ru_maxrss: a process inherits that of the one that started it.
_REPORT = """
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
print(peak, *map(float, vector[0]))
"""


def _first_result(folder: Path, file: str | None, runtime: str) -> Iterator[Row]:
    """From the start of the interpreter to the first vector: the time, and the most memory that the process had."""
    times, memory = _processes(folder, file, [_SENTENCE], rounds=7)
    _, of_batch = _processes(folder, file, _BATCH, rounds=1)
    for peer in ("transformers on PyTorch", runtime):
        yield Row("MiniLM, import, load, first vector", times["zerocost"], peer, times.get(peer))
        yield Row("MiniLM, memory of that at its peak", memory["zerocost"], peer, memory.get(peer), unit="B")
        yield Row("MiniLM, memory with 32 texts", of_batch["zerocost"], peer, of_batch.get(peer), unit="B")


def _processes(
    folder: Path, file: str | None, texts: list[str], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds and the peak bytes of a process that embeds ``texts``, for each peer that is there."""
    codes = {"zerocost": _OURS, "transformers on PyTorch": _TORCH}
    if file is not None:
        codes["ONNX Runtime"] = _ONNXRUNTIME
    commands = {
        name: [sys.executable, "-c", code.format(folder=str(folder), texts=texts, file=file) + _REPORT]
        for name, code in codes.items()
    }
    times: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
            if done.returncode == 0:
                times.setdefault(name, []).append(seconds)
                nbytes, *vector = map(float, done.stdout.split())
                memory[name], vectors[name] = nbytes, np.array(vector)
            elif name == "zerocost":
                raise RuntimeError(done.stderr)
    for peer, vector in vectors.items():
        assert np.abs(vector - vectors["zerocost"]).max() < 1e-4, f"{peer} and zerocost differ"
    return {name: statistics.median(series) for name, series in times.items()}, memory
