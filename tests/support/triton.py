"""What Triton's clients send: arrays of every datatype and rank."""

import ml_dtypes
import numpy as np

NUMPY = {
    "BOOL": np.bool_,
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}").type for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
}
SHAPES = [(), (0,), (3,), (2, 3), (2, 0, 2), (2, 3, 2)]


def values(datatype, shape):
    generator = np.random.default_rng(len(shape))
    if datatype == "BYTES":
        texts = [b"", b"with \x00 nul", "ünïcödé".encode(), b"x" * 100_000]
        flat = np.array([texts[index % 4] for index in range(int(np.prod(shape)))], dtype=object)
        return flat.reshape(shape)
    raw = generator.integers(0, 2 if datatype == "BOOL" else 256, (*shape, 8), dtype=np.uint8)
    if datatype.startswith(("FP", "BF")):
        return np.asarray(raw[..., 0].astype(np.float64) / 7 - 5, dtype=NUMPY[datatype])
    if datatype == "BOOL":
        return np.asarray(raw[..., 0], dtype=np.bool_)
    return np.asarray(np.ascontiguousarray(raw).view(NUMPY[datatype])[..., 0])
