"""Connections: pipelined requests, offers of other protocols, idle times, large answers."""

import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from support.raw_http import BODY, FINE, head, read_all, status
from support.samples import sample_registry
from zerocost import create_app, default_registry
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

OFFER = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}


@contextlib.contextmanager
def connected(registry=None, **options):
    """A connection to a server of its own."""
    with (
        background_server(create_app(registry or sample_registry(), Settings()), **options) as url,
        socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=20) as connection,
    ):
        yield connection


def answers(connection, count):
    """So many answers with a Content-Length, in order: status, headers and body of each."""
    data, found = b"", []
    while len(found) < count:
        start, end, rest = data.partition(b"\r\n\r\n")
        lines = start.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        length = int(headers.get(b"content-length", -1))
        if end and 0 <= length <= len(rest):
            found.append((status(start), headers, rest[:length]))
            data = rest[length:]
            continue
        piece = connection.recv(1 << 20)
        assert piece, f"it closed after {len(found)} answers: {data[:200]!r}"
        data += piece
    return found


def picky(how, **headers):
    body = json.dumps({"how": how}).encode()
    return head("/artifacts/picky/execute", content_length=len(body), **headers) + body


def test_pipelined_requests_are_answered_in_order():
    with connected() as connection:
        whole = picky("fine") + head("/livez", "GET") + picky("sleep") + picky("fine") + FINE
        connection.sendall(whole[:150])
        time.sleep(0.1)  # so that the server reads two pieces; nothing tells when it has read the first
        connection.sendall(whole[150:])
        found = answers(connection, 5)
    assert [code for code, _, _ in found] == [200] * 5
    data = [json.loads(body) for _, _, body in found]
    assert data[1] == {"live": True}
    assert [data[index]["data"]["how"] for index in (0, 2, 3)] == ["fine", "sleep", "fine"]
    assert data[4]["data"]["artifact_used"] == "scale"


@pytest.mark.parametrize("offers", [(True, True), (True, False, True), (False, True, True, True)])
def test_pipelined_offers_of_another_protocol_are_declined(offers):
    with connected() as connection:
        connection.sendall(b"".join(picky("fine", **(OFFER if offered else {})) for offered in offers))
        found = answers(connection, len(offers))
    assert [code for code, _, _ in found] == [200] * len(offers)
    assert {json.loads(body)["data"]["how"] for _, _, body in found} == {"fine"}


def test_a_thousand_offers_in_one_piece():
    with connected() as connection:
        connection.sendall(head("/livez", "GET", connection="Upgrade", upgrade="h2c") * 1000)
        assert {code for code, _, _ in answers(connection, 1000)} == {200}


def test_a_head_in_pieces_behind_a_slow_request():
    with connected() as connection:
        connection.sendall(picky("sleep") + FINE[:40])
        time.sleep(0.3)  # so that the rest arrives while the first request computes, which takes a second
        connection.sendall(FINE[40:])
        assert [code for code, _, _ in answers(connection, 2)] == [200, 200]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [999, 70_000, 3 << 20])
def test_tensors_in_any_pieces_with_the_next_request_behind(chunked, step):
    array = np.random.default_rng(step).random((700, 1000)).astype(np.float32)
    sized = {"name": "tensor", "datatype": "FP32", "shape": [700, 1000], "parameters": {"binary_data_size": 2_800_000}}
    text = json.dumps({"inputs": [sized], "parameters": {"num_splits": 1, "binary_data_output": True}}).encode()
    body, size = text + array.tobytes(), {"inference_header_content_length": len(text)}
    if chunked:
        size["transfer_encoding"] = "chunked"
        pieces = (body[at : at + step] for at in range(0, len(body), step))
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        size["content_length"] = len(body)
    request = head("/v2/models/tensor_parallel/infer", **size) + body
    both = request + FINE + request
    with connected(default_registry()) as connection:
        sent = threading.Thread(
            target=lambda: [connection.sendall(both[at : at + step]) for at in range(0, len(both), step)]
        )
        sent.start()
        found = answers(connection, 3)
        sent.join()
    assert [code for code, _, _ in found] == [200, 404, 200]
    for _, headers, data in (found[0], found[2]):
        start = int(headers[b"inference-header-content-length"])
        assert data[start : start + array.nbytes] == array.tobytes()


@pytest.mark.parametrize("body", [BODY, b" " * 300_000 + BODY])
def test_an_offer_of_another_protocol_is_declined(body):
    with connected() as connection:
        request = head(content_length=len(body), **OFFER)
        for _ in range(2):
            connection.sendall(request + body)
            ((code, headers, found),) = answers(connection, 1)
            assert code == 200
            assert json.loads(found)["data"]["artifact_used"] == "scale"
            assert b"upgrade" not in headers
        for piece in (request[:60], request[60:], body):
            connection.sendall(piece)
            time.sleep(0.05)
        assert answers(connection, 1)[0][0] == 200
        connection.sendall(head(content_length=len(body), **{**OFFER, "connection": "close, Upgrade"}) + body)
        assert answers(connection, 1)[0][0] == 200
        assert connection.recv(1) == b""


def test_an_offer_that_another_protocol_class_passes_on_is_a_400():
    with connected(http="httptools") as connection:
        connection.sendall(head(content_length=len(BODY), **OFFER) + BODY)
        answer = read_all(connection)
        assert status(answer) == 400
        assert b"connection: close" in answer
        assert connection.recv(1) == b""


def test_connect_is_refused():
    with connected() as connection:
        connection.sendall(b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert status(read_all(connection)) == 400


@pytest.mark.alone
def test_idle_connections_end_and_busy_ones_do_not():
    with connected(timeout_keep_alive=1) as connection:
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            connection.sendall(FINE)
            assert answers(connection, 1)[0][0] == 200
            time.sleep(0.3)
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 5


def test_a_request_that_takes_longer_than_connections_may_be_idle():
    with connected(timeout_keep_alive=1) as connection:
        connection.sendall(FINE)
        answers(connection, 1)
        connection.sendall(picky("sleep", request_timeout="20"))
        assert answers(connection, 1)[0][0] == 200


@pytest.mark.parametrize("http", [None, "h11", "httptools"])
def test_every_server_writes_the_same(http):
    with connected(**({} if http is None else {"http": http})) as connection:
        connection.sendall(head("/artifacts", "HEAD") + FINE)
        start = b""
        while b"\r\n\r\n" not in start:
            start += connection.recv(1 << 16)
        first, _, rest = start.partition(b"\r\n\r\n")
        assert status(first) == 200
        while not rest.endswith(b"}"):
            rest += connection.recv(1 << 16)
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), "no body behind the head of a HEAD"
        lines = rest.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
        names = sorted(line.partition(b":")[0] for line in lines[1:])
        expected = b"content-length content-type date server-timing x-content-type-options x-request-id"
        assert names == expected.split()
        connection.sendall(b"GET /livez HTTP/1.0\r\nhost: localhost\r\n\r\n")
        answer = read_all(connection)
        assert answer.endswith(b'{"live":true}')
        assert b"connection: close" in answer.lower()


def test_a_slow_reader_gets_a_large_answer_whole():
    with connected() as connection:
        body = json.dumps({"shape": [1200, 2000]}).encode()
        connection.sendall(head("/artifacts/huge/execute", content_length=len(body)) + body)
        data = connection.recv(1000)
        length = int(data.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert length > 4 << 20
        data = bytearray(data.partition(b"\r\n\r\n")[2])
        while len(data) < length:
            data += connection.recv(1 << 18)
            time.sleep(0.01)
        assert len(data) == length
        assert data.startswith(b'{"status":"success"')
        assert data.endswith(b"}")
