"""Limits: of bodies, values, elements, work, steps and outputs."""

import gzip
import zlib

import numpy as np
import pytest

from support.raw_http import raw_post, status
from support.requests import MATRIX, chain, execute, problem
from support.samples import sample_registry
from support.servers import serving
from zerocost import ParallelArtifact, default_registry


def test_a_body_beyond_the_limit_is_refused(serve):
    client = serve(sample_registry(), max_body=10_000)
    big = b'{"attention_matrix": [' + b" " * 20_000 + b"]}"
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    problem(client.post(path, content=big, headers=headers), 413, "limit")
    problem(
        client.post(path, content=iter([big[:5000], big[5000:12_000], big[12_000:]]), headers=headers), 413, "limit"
    )
    for encoding, compressed in (("gzip", gzip.compress(big)), ("deflate", zlib.compress(big))):
        assert len(compressed) < 10_000
        problem(client.post(path, content=compressed, headers={**headers, "content-encoding": encoding}), 413, "limit")
    assert execute(client, attention_matrix=MATRIX).status_code == 200


def test_128_mib_against_a_smaller_limit_get_the_413_and_no_broken_pipe(serve):
    client = serve(sample_registry(), max_body=1 << 20)
    piece = b" " * (1 << 20)
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    problem(client.post(path, content=(piece for _ in range(128)), headers=headers), 413, "limit")
    headers["content-length"] = str(128 << 20)
    problem(client.post(path, content=(piece for _ in range(128)), headers=headers), 413, "limit")
    assert client.get("/livez").status_code == 200


def test_deep_and_many_values(serve):
    client = serve(sample_registry(), max_values=100)
    deep = '{"attention_matrix":' + "[" * 100 + "]" * 100 + "}"
    headers = {"content-type": "application/json"}
    problem(client.post("/artifacts/scale/execute", content=deep, headers=headers), 413, "limit")
    problem(client.post("/chains/execute", content="[" * 100_000, headers=headers), 413, "limit")
    problem(execute(client, "picky", how=list(range(200))), 413, "limit")


def test_elements_of_inputs_and_outputs(serve):
    client = serve(sample_registry(), max_elements=1000)
    problem(execute(client, attention_matrix=[[0] * 40] * 40), 413, "limit")
    problem(execute(client, attention_matrix={"dtype": "FP32", "shape": [10**12, 0], "data": []}), 413, "limit")
    problem(execute(client, "pieces", tensor=[1, 2], num_splits=10**9), 413, "limit")
    problem(execute(client, "huge", shape=[10**6, 10**6]), 413, "limit")
    problem(execute(client, "huge", shape=[50, 50], tells=False), 413, "limit")
    assert execute(client, "huge", shape=[10, 10]).status_code == 200
    step = {"artifact": "huge", "params": {"shape": [10**6, 10**6]}}
    problem(chain(client, [step]), 413, "limit")


def test_work_that_grows_faster_than_the_arrays(serve):
    client = serve()

    def attend(queries, keys, d, d_v):
        shapes = {"query": (queries, d), "key": (keys, d), "value": (keys, d_v)}
        inputs = {
            name: {"dtype": "FP32", "shape": shape, "data": [0.0] * (shape[0] * shape[1])}
            for name, shape in shapes.items()
        }
        return execute(client, "scaled_dot_product_attention", **inputs)

    # A small body that asks for 2^48 scores.
    problem(attend(1 << 24, 1 << 24, 0, 0), 413, "limit")
    problem(attend(1 << 24, 1 << 13, 0, 1), 413, "limit")
    assert attend(64, 64, 4, 4).status_code == 200
    small = serve(max_operations=1000)
    client = small
    problem(attend(10, 10, 4, 4), 413, "limit")
    assert attend(2, 2, 4, 4).status_code == 200


def test_steps_and_fan_out(serve):
    client = serve(sample_registry(), max_steps=3, max_fan_out=4)
    step = {"artifact": "picky", "params": {"how": "fine"}}
    assert chain(client, [step] * 3).status_code == 200
    problem(chain(client, [step] * 4), 413, "limit")
    each = {"artifact": "picky", "each": "how"}
    assert chain(client, [each], {"how": ["fine"] * 4}).status_code == 200
    problem(chain(client, [each], {"how": ["fine"] * 5}), 413, "limit")


def test_stages_over_rest_are_given_by_name_and_bounded_in_number(serve):
    registry = default_registry()
    registry.register_artifact("halve", Halve(), "parallel")
    client = serve(registry, max_fan_out=3)

    def post(stages, **more):
        body = {"tensor": [[8.0], [16.0], [24.0]], "num_stages": len(stages), "stages": stages, **more}
        return client.post("/artifacts/pipeline_parallel/execute", json=body)

    answer = post(["halve", {"artifact": "halve", "params": {"by": 4}}], num_microbatches=3, schedule="1f1b")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["result"] == [[1.0], [2.0], [3.0]]
    assert post(["halve"] * 3).status_code == 200
    too_many = post(["halve"] * 4)
    assert (too_many.status_code, too_many.json()["code"]) == (413, "limit")
    assert "stages: 4 elements were given" in too_many.json()["detail"]
    assert post(["halve", "nothing"]).status_code == 404
    assert post(["halve", {"artifact": "halve", "params": {"by": "x"}}]).status_code == 422
    assert post([1]).status_code == 422


class Halve(ParallelArtifact):
    """Divides."""

    def process_parallel(self, tensor, by: float = 2.0):
        return np.asarray(tensor) / by


def test_outputs_that_would_not_fit_are_refused_before_they_are_computed():
    empty = {"dtype": "FP32", "data": []}
    inputs = {
        "query": {**empty, "shape": [10**6, 0]},
        "key": {**empty, "shape": [0, 0]},
        "value": {**empty, "shape": [0, 10**6]},
    }
    with serving() as client:
        answer = client.post("/artifacts/scaled_dot_product_attention/execute", json=inputs)
        assert answer.status_code == 413, answer.text
        many = {"tensor": [1.0], "num_splits": 10**9}
        answer = client.post("/artifacts/tensor_parallel/execute", json=many)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == "/num_splits"
        chain = {"pipeline": [{"artifact": "tensor_parallel"}], "initial_input": many}
        assert client.post("/chains/execute", json=chain).status_code == 422
        answer = client.post("/artifacts/tensor_parallel/execute", json={**many, "num_splits": 1000})
        assert len(answer.json()["data"]["result"]) == 1000


SCALE = "/artifacts/scale/execute"


FAN_OUT = {
    "splits": ("/artifacts/tensor_parallel/execute", {"tensor": [1.0, 2.0], "num_splits": 10**9}, 422),
    "a billion elements from none": (
        "/artifacts/scaled_dot_product_attention/execute",
        {
            name: {"dtype": "FP32", "shape": shape, "data": []}
            for name, shape in (("query", [1 << 20, 0]), ("key", [8, 0]), ("value", [8, 0]))
        },
        200,
    ),
    "outputs": ("/artifacts/huge/execute", {"shape": [10**6, 10**6]}, 413),
    "outputs that are not told": ("/artifacts/huge/execute", {"shape": [1 << 25], "tells": False}, 413),
    "steps": ("/chains/execute", {"pipeline": [{"artifact": "scale"}] * 1000}, 413),
    "each": (
        "/chains/execute",
        {"pipeline": [{"artifact": "picky", "each": "how"}], "initial_input": {"how": ["fine"] * 2000}},
        413,
    ),
    "depth": (SCALE, b"[" * 500_000 + b"]" * 500_000, 413),
    "objects": (SCALE, b'{"a":' * 150_000, 413),
    "empty lists": (SCALE, b'{"attention_matrix": [' + b",".join([b"[]"] * 300_000) + b"]}", 200),
    "digits": (SCALE, b'{"factor": ' + b"1" * 900_000 + b', "attention_matrix": [[1]]}', 422),
    "exponents": (SCALE, b'{"factor": 1e999999999, "attention_matrix": [[1]]}', 422),
    "strides": (SCALE, {"attention_matrix": {"dtype": "FP64", "shape": [0, *[1 << 24] * 3], "data": []}}, 413),
    "lists without elements": (
        SCALE,
        {"attention_matrix": {"dtype": "FP64", "shape": [1 << 14, 1 << 14, 0], "data": []}},
        413,
    ),
    "outputs without elements": ("/artifacts/huge/execute", {"shape": [1 << 14, 1 << 14, 0]}, 413),
    "undeclared": (SCALE, {f"{index}": 1 for index in range(80_000)}, 422),
    "violations": ("/artifacts/echo/execute", {"list": ["x"] * 200_000}, 422),
    "a long name": (SCALE, {"k" * 900_000: 1}, 422),
}


@pytest.mark.alone  # the server answers within a second
@pytest.mark.parametrize("case", FAN_OUT)
def test_small_requests_for_large_work(bounded, case):
    path, body, expected = FAN_OUT[case]
    answer = raw_post(bounded, path, body)
    # 200 where it is not too much for this server, and must only not cost much.
    assert status(answer) == expected, answer[:500]
    assert len(answer) < 1 << 22
