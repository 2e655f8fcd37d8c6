"""What every server of the comparison does, in NumPy as its users would write it."""

import numpy as np


def top_k(data: dict) -> dict:
    """The largest scores of each row, from lists to lists of an array."""
    matrix = np.asarray(data["attention_matrix"])
    kept = matrix.shape[-1] - int(matrix.shape[-1] * data["sparsity_ratio"])
    least = np.partition(matrix, -kept, axis=-1)[..., -kept, None]
    return {"processed_attention": np.where(matrix >= least, matrix, 0)}


def binary(body: bytes) -> memoryview:
    """1024 x 1024 float32 as an array, and back."""
    tensor = np.frombuffer(body, dtype=np.float32).reshape(1024, 1024)
    return memoryview(tensor).cast("B")
