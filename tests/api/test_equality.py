"""The result over HTTP is the result in the process, to the last bit, for every registered artifact."""

import json

import ml_dtypes
import numpy as np
import pytest

from support.equality import same_values
from support.samples import sample_registry
from support.servers import serving
from support.typed_json import TYPED, encoded, nested, parsed, typed
from zerocost import ArtifactCommunicationService, ArtifactValidator, ExecutionContext, default_registry
from zerocost.core.arrays import as_tensor
from zerocost.core.datatypes import dtype_of

MAKERS = {"built-in": default_registry, "sample": sample_registry}
CASES = [(which, name) for which, make in MAKERS.items() for name in make() if name not in ("picky",)]


def inputs_for(spec, seed, datatype=None):
    """Generated input; floating-point tensors as ``datatype`` where all of them take it."""
    data = ArtifactValidator(seed=seed).generate_test_input(spec.ports.schema)
    if datatype is None:
        return data
    tensors = [name for name in data if spec.ports.is_tensor(name) and data[name].dtype.kind == "f"]
    if not tensors or any(datatype not in (spec.ports.datatypes(name) or [datatype]) for name in tensors):
        pytest.skip(f"no input of type {datatype}")
    return {name: value.astype(dtype_of(datatype)) if name in tensors else value for name, value in data.items()}


@pytest.fixture(scope="module")
def clients():
    # Fresh instances on both sides: an artifact may keep state.
    with serving(default_registry()) as built_in, serving(sample_registry()) as sample:
        yield {"built-in": built_in, "sample": sample}


def in_process(spec, data):
    return spec.implementation.execute(data, ExecutionContext(spec.name, spec.interface, "zero_cost"))


@pytest.mark.parametrize(("which", "name"), CASES)
@pytest.mark.parametrize("datatype", [None, "FP64", "FP32", "FP16", "BF16"])
def test_typed_json_is_equal_to_the_last_bit(clients, which, name, datatype):
    spec = MAKERS[which]()[name]
    data = inputs_for(spec, seed=3, datatype=datatype)
    response = clients[which].post(f"/artifacts/{name}/execute", json=encoded(data), headers=TYPED)
    assert response.status_code == 200, response.text
    answer = parsed(response)
    assert answer["status"] == "success"
    assert same_values(in_process(spec, data), answer["data"])


@pytest.mark.parametrize(("which", "name"), CASES)
def test_nested_lists_are_equal_after_conversion(clients, which, name):
    spec = MAKERS[which]()[name]
    data = inputs_for(spec, seed=4)
    response = clients[which].post(f"/artifacts/{name}/execute", json=encoded(data, nested))
    assert response.status_code == 200, response.text
    for key, value in data.items():
        if spec.ports.is_tensor(key):
            data[key] = as_tensor(value.tolist(), key, spec.ports.datatypes(key))
    expected = encoded(in_process(spec, data), nested)
    assert json.loads(response.content)["data"] == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_kind_of_number_survives(clients, dtype):
    bits = np.random.default_rng(5).integers(0, 256, 4096, dtype=np.uint8)
    values = bits.view(dtype).reshape(-1, 8)
    special = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 1, -1, 65504]], dtype=dtype)
    for array in (values, special, values[:, ::2], values.T):
        response = clients["sample"].post(
            "/artifacts/pieces/execute", json={"tensor": typed(array), "num_splits": 1}, headers=TYPED
        )
        assert same_values([array], parsed(response)["data"]["result"])


@pytest.mark.parametrize(
    "dtype", [np.bool_, *(np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64))]
)
def test_integers_and_booleans(clients, dtype):
    dtype = np.dtype(dtype)
    limits = [0, 1] if dtype.kind == "b" else [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1]
    array = np.array([limits, limits[::-1]], dtype=dtype)
    response = clients["sample"].post("/artifacts/pieces/execute", json={"tensor": typed(array)}, headers=TYPED)
    assert response.status_code == 200, response.text
    assert same_values(np.array_split(array, 2, axis=-1), parsed(response)["data"]["result"])


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3), (1, 1)])
def test_axes_of_length_zero(clients, shape):
    array = np.ones(shape, dtype=np.float32)
    for body in (typed(array), nested(array)):
        response = clients["sample"].post("/artifacts/pieces/execute", json={"tensor": body}, headers=TYPED)
        assert response.status_code == 200, response.text
        pieces = parsed(response)["data"]["result"]
        reference = array if isinstance(body, dict) else np.asarray(body, dtype=np.float64)
        assert same_values(np.array_split(reference, 2, axis=-1), pieces)


def test_a_chain_is_equal_to_the_last_bit(clients):
    matrix = np.random.default_rng(6).standard_normal((5, 7)).astype(np.float32)
    weights = np.random.default_rng(7).standard_normal((3, 4)).astype(np.float16)
    pipeline = [
        {"artifact": "scale", "params": {"factor": 0.3}},
        {"artifact": "pieces", "params": {"num_splits": 3}},
    ]
    service = ArtifactCommunicationService(sample_registry())
    expected = service.chain_artifacts(pipeline, {"attention_matrix": matrix})
    body = {"pipeline": pipeline, "initial_input": {"attention_matrix": typed(matrix)}, "trace": True}
    answer = parsed(clients["sample"].post("/chains/execute", json=body, headers=TYPED))
    assert same_values(expected, answer["data"])
    assert [step["artifact"] for step in answer["trace"]] == ["scale", "pieces"]
    assert answer["trace"][1]["bytes_copied"] == 0

    # A tensor among the parameters of a step, and a step that runs once per element.
    pipeline = [{"artifact": "pieces", "params": {"tensor": weights, "num_splits": 2}}]
    expected = service.chain_artifacts(pipeline, {})
    answer = parsed(clients["sample"].post("/chains/execute", json={"pipeline": encoded(pipeline)}, headers=TYPED))
    assert same_values(expected, answer["data"])
    pipeline = [
        {"artifact": "pieces", "params": {"num_splits": 3}},
        {"artifact": "scale", "inputs": {"attention_matrix": "0.result"}, "each": True},
    ]
    expected = service.chain_artifacts(pipeline, {"tensor": matrix})
    body = {"pipeline": pipeline, "initial_input": {"tensor": typed(matrix)}}
    answer = parsed(clients["sample"].post("/chains/execute", json=body, headers=TYPED))
    assert same_values(expected, answer["data"])
