"""The datatypes of the Open Inference Protocol as NumPy has them, and arrays of each."""

import ml_dtypes
import numpy as np

DTYPES = {
    "FP64": np.float64,
    "FP32": np.float32,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    **{f"UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
SHAPES = [(), (0,), (3,), (2, 3), (2, 0, 2), (2, 3, 2)]


def values(datatype, shape):
    """An array of this datatype and shape, always the same; texts as an array of objects."""
    generator = np.random.default_rng(len(shape))
    if datatype == "BYTES":
        texts = [b"", b"with \x00 nul", "ünïcödé".encode(), b"x" * 100_000]
        flat = np.array([texts[index % 4] for index in range(int(np.prod(shape)))], dtype=object)
        return flat.reshape(shape)
    raw = generator.integers(0, 2 if datatype == "BOOL" else 256, (*shape, 8), dtype=np.uint8)
    if datatype.startswith(("FP", "BF")):
        return np.asarray(raw[..., 0].astype(np.float64) / 7 - 5, dtype=DTYPES[datatype])
    if datatype == "BOOL":
        return np.asarray(raw[..., 0], dtype=np.bool_)
    return np.asarray(np.ascontiguousarray(raw).view(DTYPES[datatype])[..., 0])
