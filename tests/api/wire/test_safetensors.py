"""Safetensors bodies of requests and responses: by the format's own library, made by hand, and malformed."""

import asyncio
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import assume, example, given
from hypothesis import strategies as st

from support.equality import same_values
from support.malformed import LIMITS, VALUES, bounded_memory, messages, or_refused, request_of, some
from support.safetensors import message
from support.samples import sample_registry
from zerocost import ArtifactCommunicationService, ShapeError
from zerocost.api.wire.safetensors import read_safetensors
from zerocost.core.safetensors import split_values, to_pieces

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
TYPE = "application/vnd.safetensors"


def test_chains_as_safetensors(client):
    pipeline = [{"artifact": "scale", "params": {"factor": 3}}, {"artifact": "pieces", "params": {"num_splits": 2}}]

    def post(tensors, accept=TYPE, **more):
        body = safetensors.numpy.save(tensors, {"json": json.dumps({"pipeline": pipeline, **more})})
        return client.post("/chains/execute", content=body, headers={"content-type": TYPE, "accept": accept})

    local = ArtifactCommunicationService(sample_registry())
    expected = local.chain_artifacts(pipeline, {"attention_matrix": MATRIX})["result"]
    for answer in (post({"attention_matrix": MATRIX}), post({"attention_matrix": MATRIX}, trace=True)):
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == TYPE
        found = safetensors.numpy.load(answer.content)
        assert all(same_values(found[f"result.{index}"], piece) for index, piece in enumerate(expected))
    size = int.from_bytes(answer.content[:8], "little")
    others = json.loads(json.loads(answer.content[8 : 8 + size])["__metadata__"]["json"])
    assert [step["artifact"] for step in others["trace"]] == ["scale", "pieces"]
    assert 'copied;desc="48 bytes"' in answer.headers["server-timing"]
    # Tensors in, JSON out, and the other way round.
    assert post({"attention_matrix": MATRIX}, "application/json").json()["data"]["result"][0] == expected[0].tolist()
    request = {"pipeline": pipeline, "initial_input": {"attention_matrix": MATRIX.tolist()}}
    answer = client.post("/chains/execute", json=request, headers={"accept": TYPE})
    assert safetensors.numpy.load(answer.content)["result.1"].tolist() == expected[1].tolist()
    # Invalid bodies
    assert post({"attention_matrix": MATRIX}, initial_input={"attention_matrix": [[1.0]]}).status_code == 422
    assert post({}).status_code == 422
    assert client.post("/chains/execute", content=b"1", headers={"content-type": TYPE}).status_code == 422


def test_safetensors_by_another_implementation(client):
    body = safetensors.numpy.save({"attention_matrix": MATRIX}, metadata={"json": '{"factor": 3}'})
    answer = client.post("/artifacts/scale/execute", content=body, headers={"content-type": TYPE, "accept": TYPE})
    assert answer.headers["content-type"] == TYPE
    assert same_values(MATRIX * np.float32(3), safetensors.numpy.load(answer.content)["processed_attention"])
    timing = answer.headers["server-timing"]
    assert f'copied;desc="{MATRIX.nbytes} bytes"' in timing, "one copy: from the network into the array"
    # The answer's form is the client's choice, whatever the request's was.
    answer = client.post("/artifacts/scale/execute", content=body, headers={"content-type": TYPE})
    assert answer.json()["data"]["processed_attention"] == (MATRIX * 3).tolist()
    answer = client.post("/artifacts/pieces/execute", json={"tensor": MATRIX.tolist()}, headers={"accept": TYPE})
    assert set(safetensors.numpy.load(answer.content)) == {"result.0", "result.1"}


ENTRY = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"\xff" * 8, 422),
        (b"\x10" + b"\x00" * 7, 422),
        (message(b"not json"), 400),
        (message([]), 400),
        (message({"attention_matrix": 1}), 422),
        (message({"attention_matrix": {**ENTRY, "dtype": "F8"}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [-1]}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [2]}}, b"1234"), 422),
        (message({"attention_matrix": {**ENTRY, "shape": [2**40, 0], "data_offsets": [0, 0]}}), 413),
        (message({"attention_matrix": {**ENTRY, "data_offsets": [4, 8]}}, b"12345678"), 422),
        (message({"attention_matrix": ENTRY, "factor": ENTRY}, b"1234"), 422),
        (message({"attention_matrix": ENTRY}, b"123"), 422),
        (message({"attention_matrix": ENTRY}, b"12345"), 422),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": "{"}}, b"1234"), 400),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": "[]"}}, b"1234"), 422),
        (message({"attention_matrix": ENTRY, "__metadata__": {"json": '{"attention_matrix": 1}'}}, b"1234"), 422),
        (message({"attention_matrix.1": ENTRY}, b"1234"), 422),
        (message({"attention_matrix": ENTRY}, b"\x00\x00\x80?"), 200),
    ],
)
def test_bodies_that_are_not_safetensors(client, body, status):
    for content in (body, iter([body[:3], body[3:]])):
        answer = client.post("/artifacts/scale/execute", content=content, headers={"content-type": TYPE})
        assert answer.status_code == status, answer.text


async def at_once(size, job):
    """Reads long texts where short ones are read too."""
    return job()


@some
@given(VALUES, st.integers(1, 100))
def test_a_safetensors_body_is_what_was_sent(values, step):
    assume(not any("." in name for name in values))
    tensors, others = split_values({**values, "list": [np.arange(2), np.zeros((0, 3))]})
    body = b"".join(to_pieces(tensors, json.dumps({**others, "n": 1})))
    read, _ = asyncio.run(read_safetensors(request_of(body, step), LIMITS, at_once))
    assert same_values(read, {**values, "list": [np.arange(2), np.zeros((0, 3))], "n": 1})


@some
@given(messages(), st.integers(1, 100))
@example(message(b'{"x.%s": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}' % (b"1" * 5000)), 100)
def test_malformed_safetensors_bodies(body, step):
    with bounded_memory():
        inputs = or_refused(lambda: asyncio.run(read_safetensors(request_of(body, step), LIMITS, at_once))[0])
        if inputs is None:
            return
        assert all(isinstance(name, str) for name in inputs)
        size, rest = int.from_bytes(body[:8], "little"), body[8:]
        # Everything that was sent is there.
        arrays = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
        assert sum(item.nbytes for item in arrays if isinstance(item, np.ndarray)) == len(rest) - size


def test_a_tensor_and_a_list_of_one_name():
    entry = {"dtype": "U8", "shape": [1]}
    for names in (("a.0", "a"), ("a", "a.0")):
        head = {name: {**entry, "data_offsets": [at, at + 1]} for at, name in enumerate(names)}
        with pytest.raises(ShapeError, match=r"a: given as a tensor and as a list|a\.0: the elements of a list"):
            asyncio.run(read_safetensors(request_of(message(head, b"xy"), 100), LIMITS, at_once))
