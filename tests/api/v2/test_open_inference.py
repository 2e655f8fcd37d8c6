"""The Open Inference Protocol, by an unmodified Triton client and by requests made by hand."""

import contextlib
import gzip
import json
import select
import socket
import struct
import zlib

import httpx2
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from support.dtypes import DTYPES, SHAPES
from support.equality import same_values
from support.invalid_requests import one, sized
from support.raw_http import head, read_all
from support.samples import echo_registry
from support.servers import serving
from support.triton import InferenceServerException, assert_echoed, sample, tensor, tritonclient
from zerocost import create_app
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def server():
    with serving(echo_registry()) as client:
        yield client


@pytest.fixture(scope="module")
def client(server):
    with tritonclient.InferenceServerClient(f"{server.base_url.host}:{server.base_url.port}", concurrency=4) as client:
        yield client


# Health, metadata, configuration


def test_health_and_metadata(client, server):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "7")
    assert not client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nothing")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "zerocost"
    assert "binary_tensor_data" in metadata["extensions"]
    metadata = client.get_model_metadata("scale")
    assert metadata["inputs"][0] == {"name": "attention_matrix", "datatype": "FP32", "shape": [-1, -1, -1]}
    assert [entry["name"] for entry in metadata["inputs"]] == ["attention_matrix", "factor"]
    assert metadata["outputs"][0]["name"] == "processed_attention"
    config = client.get_model_config("scale")
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [entry["optional"] for entry in config["input"]] == [False, True]
    assert server.get("/v2/").json() == server.get("/v2").json()


def test_repository_statistics_and_settings(client):
    index = client.get_model_repository_index()
    assert {entry["name"] for entry in index} >= {"scale", "echo", "both"}
    assert all(entry["state"] == "READY" for entry in index)
    before = client.get_inference_statistics("vector")["model_stats"][0]["inference_stats"]
    client.infer("vector", [tensor("v", np.ones((2, 2), np.float32), "FP32")])
    with pytest.raises(InferenceServerException):
        client.infer("vector", [tensor("v", np.ones((2, 3), np.float32), "FP32")])
    after = client.get_inference_statistics("vector", "1")["model_stats"][0]["inference_stats"]
    assert after["success"]["count"] == before["success"]["count"] + 1
    assert after["fail"]["count"] == before["fail"]["count"] + 1
    assert after["compute_infer"]["ns"] > before["compute_infer"]["ns"]
    assert len(client.get_inference_statistics()["model_stats"]) == len(index)
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.get_log_settings()["log_info"] is True
    for call in (lambda: client.update_trace_settings(settings={}), lambda: client.update_log_settings({})):
        with pytest.raises(InferenceServerException, match="not offered"):
            call()


def test_shared_memory_is_not_offered_but_unregistering_works(client):
    for region in ("", "a"):
        assert client.get_system_shared_memory_status(region) == []
        assert client.get_cuda_shared_memory_status(region) == []
        client.unregister_system_shared_memory(region)
        client.unregister_cuda_shared_memory(region)
    for register in (
        lambda: client.register_system_shared_memory("a", "/etc/passwd", 8),
        lambda: client.register_cuda_shared_memory("a", b"handle", 0, 8),
    ):
        with pytest.raises(InferenceServerException, match="not offered") as raised:
            register()
        assert raised.value.status() == "501"


def test_loading_and_unloading(serve):
    url = serve(echo_registry()).base_url
    with tritonclient.InferenceServerClient(f"{url.host}:{url.port}") as off:
        for call in (off.load_model, off.unload_model):
            with pytest.raises(InferenceServerException, match="switched off"):
                call("scale")
    url = serve(echo_registry(), model_control=True).base_url
    with tritonclient.InferenceServerClient(f"{url.host}:{url.port}") as client:
        client.unload_model("scale", unload_dependents=True)
        states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
        assert states["scale"] == states["both"] == "UNAVAILABLE"
        assert not client.is_model_ready("scale")
        client.load_model("scale")
        client.load_model("both")
        assert client.is_model_ready("both")
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model("nothing")
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model("scale", config="{}", files={"file:1/model.py": b"import os"})
    client = serve(echo_registry(), model_control=True, token="use", admin_token="rule")
    for token, status in (("use", 403), ("rule", 200)):
        answer = client.post("/v2/repository/models/scale/unload", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status


# Inference


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["to binary", "to json"])
def test_every_datatype_and_rank(client, datatype, shape, binary_in, binary_out):
    if datatype in ("FP16", "BF16") and not binary_in:
        pytest.skip("the client sends 16-bit floats as binary only")
    array = sample(datatype, shape, binary=binary_in and binary_out)
    name = f"x_{datatype}"
    output = tritonclient.InferRequestedOutput(name, binary_data=binary_out)
    sent = tensor(name, array, datatype, binary=binary_in)
    assert_echoed(client.infer("echo", [sent], outputs=[output], request_id="r1"), name, array)


def test_versions_priorities_and_timeouts(client):
    number = [tensor("x_FP32", MATRIX, "FP32")]
    result = client.infer("echo", number, model_version="7", priority=3, timeout=60_000_000)
    assert result.get_response()["model_version"] == "7"
    with pytest.raises(InferenceServerException, match="Request for unknown model") as raised:
        client.infer("echo", number, model_version="8")
    assert raised.value.status() == "404"
    for binary in (True, False):
        sleep = [tensor("how", np.array([b"sleep"], dtype=object), "BYTES", binary=binary)]
        with pytest.raises(InferenceServerException, match="deadline") as raised:
            client.infer("picky", sleep, timeout=100_000)
        assert raised.value.status() == "504"


def test_mixed_binary_and_json_outputs_and_several_inputs(client):
    inputs = [
        tensor("x_FP32", MATRIX, "FP32"),
        tensor("x_INT64", np.array([1, 2]), "INT64", binary=False),
        tensor("x_BYTES", np.array([b"a", b"bc"], dtype=object), "BYTES"),
    ]
    outputs = [
        tritonclient.InferRequestedOutput("x_BYTES", binary_data=True),
        tritonclient.InferRequestedOutput("x_FP32", binary_data=False),
        tritonclient.InferRequestedOutput("x_INT64", binary_data=True),
    ]
    result = client.infer("echo", inputs, outputs=outputs)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == ["x_BYTES", "x_FP32", "x_INT64"]
    assert same_values(MATRIX, result.as_numpy("x_FP32"))
    assert list(result.as_numpy("x_BYTES")) == [b"a", b"bc"]
    assert list(result.as_numpy("x_INT64")) == [1, 2]


def test_values_that_are_no_tensors(client):
    inputs = [
        tensor("number", np.array([1.5]), "FP64"),
        tensor("integer", np.array([3]), "INT64"),
        tensor("boolean", np.array([True]), "BOOL"),
        tensor("text", np.array(["héllo".encode()], dtype=object), "BYTES"),
        tensor("list", np.array([16, 0]), "INT64"),
        tensor("object", np.array([b'{"a": [1, null]}'], dtype=object), "BYTES"),
    ]
    result = client.infer("echo", inputs)
    assert result.as_numpy("number") == [1.5]
    assert result.as_numpy("integer") == [3]
    assert result.as_numpy("boolean") == [True]
    assert result.as_numpy("text")[0].decode() == "héllo"
    assert json.loads(result.as_numpy("list")[0]) == [16, 0]
    assert json.loads(result.as_numpy("object")[0]) == {"a": [1, None]}
    result = client.infer("echo", [inputs[0]], parameters={"integer": 4, "text": "as a parameter"})
    assert result.as_numpy("integer") == [4]
    assert result.as_numpy("text")[0] == b"as a parameter"


def test_chains_and_lists_of_tensors(client):
    result = client.infer("both", [tensor("attention_matrix", MATRIX, "FP32")])
    assert same_values(MATRIX[:, :2] * np.float32(3), result.as_numpy("result.0"))
    assert same_values(MATRIX[:, 2:] * np.float32(3), result.as_numpy("result.1"))
    assert list(result.as_numpy("artifact_used")) == [b"pieces"]
    outputs = [tritonclient.InferRequestedOutput("result.1")]
    result = client.infer("both", [tensor("attention_matrix", MATRIX, "FP32")], outputs=outputs)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == ["result.1"]


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_compression_both_ways(client, sent, wanted):
    big = np.zeros((64, 64), dtype=np.float32)
    for binary in (True, False):
        outputs = [tritonclient.InferRequestedOutput("x_FP32", binary_data=binary)]
        result = client.infer(
            "echo",
            [tensor("x_FP32", big, "FP32", binary=binary)],
            outputs=outputs,
            request_compression_algorithm=sent,
            response_compression_algorithm=wanted,
        )
        assert same_values(big, result.as_numpy("x_FP32"))


def test_many_at_the_same_time(client):
    calls = [
        client.async_infer("scale", [tensor("attention_matrix", MATRIX * index, "FP32")], request_id=str(index))
        for index in range(20)
    ]
    for index, call in enumerate(calls):
        result = call.get_result()
        assert result.get_response()["id"] == str(index)
        assert same_values(MATRIX * index * np.float32(2), result.as_numpy("processed_attention"))


def test_body_made_and_parsed_by_hand(client, server):
    body, length = client.generate_request_body([tensor("x_FP32", MATRIX, "FP32")])
    answer = server.post(
        "/v2/models/echo/infer", content=body, headers={"inference-header-content-length": str(length)}
    )
    header = int(answer.headers["inference-header-content-length"])
    result = client.parse_response_body(answer.content, header_length=header)
    assert same_values(MATRIX, result.as_numpy("x_FP32"))


def test_the_golden_vector(server):
    text = (
        b'{"inputs":[{"name":"x_FP32","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}},'
        b'{"name":"x_BYTES","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}],'
        b'"parameters":{"binary_data_output":true}}'
    )
    data = struct.pack("<4f", 1, 2, 3, 4) + b"\x02\x00\x00\x00hi\x01\x00\x00\x00!"
    headers = {"inference-header-content-length": str(len(text))}
    answer = server.post("/v2/models/echo/infer", content=text + data, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == data
    assert json.loads(answer.content[:length]) == {
        "model_name": "echo",
        "model_version": "7",
        "outputs": [
            {"name": "x_FP32", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
            {"name": "x_BYTES", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        ],
    }


def test_one_raw_tensor(server):
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    for content in (array.tobytes(), iter([array.tobytes()[:5], array.tobytes()[5:]])):
        headers = {"inference-header-content-length": "0"}
        answer = server.post("/v2/models/vector/infer", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["inference-header-content-length"])
        assert answer.content[length:] == (array * 2).tobytes()
    for model, content in (("vector", b"12345"), ("echo", b"1234"), ("scale", b"1234")):
        answer = server.post(f"/v2/models/{model}/infer", content=content, headers=headers)
        assert answer.status_code == 400


def test_a_base_url_with_a_prefix():
    """Where the app is mounted under one. ``zerocost serve`` leaves it to the proxy in front to take it away."""
    settings = Settings(token="secret", admin_token="rule")
    mounted = Starlette(routes=[Mount("/prefix", app=create_app(echo_registry(), settings))])
    with background_server(mounted) as url:
        host = url.removeprefix("http://")
        headers = {"authorization": "Bearer secret"}
        with tritonclient.InferenceServerClient(f"{host}/prefix") as client:
            assert client.get_server_metadata(headers=headers)["name"] == "zerocost"
            number = [tensor("x_FP32", MATRIX, "FP32")]
            assert same_values(MATRIX, client.infer("echo", number, headers=headers).as_numpy("x_FP32"))
            for model, given, match in (
                ("nothing", headers, "unknown model"),
                ("echo", {}, "a bearer token is needed"),
            ):
                with pytest.raises(InferenceServerException, match=match):
                    client.infer(model, number, headers=given)
        assert httpx2.get(f"{url}/prefix/livez", trust_env=False).status_code == 200
        assert httpx2.get(f"{url}/prefix/docs", trust_env=False).status_code == 200
        assert httpx2.get(f"{url}/prefix/artifacts", trust_env=False).status_code == 401


def test_an_unknown_prefix_is_a_404_as_json(server):
    url = f"{server.base_url.host}:{server.base_url.port}/prefix"
    with tritonclient.InferenceServerClient(url) as client, pytest.raises(InferenceServerException, match="Not Found"):
        client.get_server_metadata()


# The rules by hand


def infer(server, request, data=b"", model="echo", **headers):
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if data:
        headers.setdefault("inference-header-content-length", str(len(text)))
    return server.post(f"/v2/models/{model}/infer", content=text + data, headers=headers)


def test_wrong_sizes(server):
    data = struct.pack("<f", 1.0)
    fine = {"inputs": [sized(4)]}
    assert infer(server, fine, data).status_code == 200
    for request, body in (
        ({"inputs": [sized(8)]}, data * 2),
        ({"inputs": [sized(4)]}, data + b"x"),
        ({"inputs": [sized(4)]}, data[:2]),
        ({"inputs": [sized(-4)]}, data),
        ({"inputs": [sized(True)]}, data),
        ({"inputs": [sized("4")]}, data),
        ({"inputs": [sized(4, shape=(2**62, 4))]}, data),
        ({"inputs": [sized(2, name="x_BYTES", datatype="BYTES")]}, b"ab"),
        ({"inputs": [sized(6, name="x_BYTES", datatype="BYTES")]}, b"\xff\xff\xff\xffab"),
        ({"inputs": [sized(10, name="x_BYTES", datatype="BYTES")]}, b"\x01\x00\x00\x00a\x01\x00\x00\x00b"),
    ):
        answer = infer(server, request, body)
        assert answer.status_code == 400, (request, answer.text)
        assert set(answer.json()) == {"error"}
    for length in ("+5", "-1", "1e3", "x", "99999", "9" * 30, "0x10"):
        answer = infer(server, fine, data, inference_header_content_length=length)
        assert answer.status_code == 400, length
    headers = [("inference-header-content-length", "5")] * 2
    assert server.post("/v2/models/echo/infer", content=b"12345", headers=headers).status_code == 400


def test_wrong_sizes_in_a_chunked_or_compressed_body(server):
    text = json.dumps({"inputs": [sized(4)]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    for body, status in ((text + b"1234", 200), (text + b"123", 400), (text + b"12345", 400), (text[:-3], 400)):
        for content, more in (
            (iter([body[:7], body[7:]]), {}),
            (gzip.compress(body), {"content-encoding": "gzip"}),
            (zlib.compress(body), {"content-encoding": "deflate"}),
        ):
            answer = server.post("/v2/models/echo/infer", content=content, headers={**headers, **more})
            assert answer.status_code == status, answer.text


def test_unknown_models_methods_and_encodings(server):
    answer = server.get("/v2/models/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "Request for unknown model: 'nothing' is not found"})
    assert server.get("/v2/models/echo/versions/2").status_code == 404
    answer = server.get("/v2/models/echo/infer")
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})
    assert server.get("/v2/nothing").json() == {"error": "Not Found"}
    answer = server.post("/v2/models/echo/infer", content=b"{}", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    # The content type never counts.
    answer = infer(server, {"inputs": [one()]}, content_type="text/plain")
    assert answer.status_code == 200


def test_a_decompression_bomb(serve):
    client = serve(echo_registry(), max_body=100_000)
    bomb = gzip.compress(b"0" * 50_000_000)
    for headers in ({}, {"inference-header-content-length": "10"}):
        answer = client.post("/v2/models/echo/infer", content=bomb, headers={**headers, "content-encoding": "gzip"})
        assert answer.status_code == 413, answer.text


def test_a_wrong_header_is_refused_before_the_bulk_arrives(serve):
    client = serve(echo_registry(), max_body=1 << 30, max_drain=1 << 20)
    text = json.dumps({"inputs": [sized(4, name="nothing")]}).encode()
    piece = b"10000\r\n" + b"0" * (1 << 16) + b"\r\n"
    size = {"transfer_encoding": "chunked", "inference_header_content_length": len(text)}
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head("/v2/models/echo/infer", **size) + b"%x\r\n%b\r\n" % (len(text), text))
        sent = 0
        # The server closes a connection that sends more than it drains. Its answer can still be read.
        with contextlib.suppress(ConnectionError):
            while sent < 10_000 and not select.select([connection], [], [], 0)[0]:
                connection.sendall(piece)
                sent += 1
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    assert sent < 10_000
