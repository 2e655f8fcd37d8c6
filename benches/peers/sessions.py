"""Small ONNX graphs in ONNX Runtime, as peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zerocost._kernels import num_threads


def onnx_session(
    nodes: Sequence[Any], inputs: dict[str, np.ndarray], constants: Sequence[Any] = (), opset: int = 23
) -> Callable[[], np.ndarray]:
    """A call that runs the graph of ``nodes``, whose result is named ``out``, on ``inputs``."""
    import onnxruntime
    from onnx import helper

    def named(name: str, array: np.ndarray) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    first = next(iter(inputs.values()))
    out = helper.make_tensor_value_info("out", helper.np_dtype_to_tensor_dtype(first.dtype), None)
    graph = helper.make_graph(list(nodes), "peer", [named(*item) for item in inputs.items()], [out], list(constants))
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)[0]
