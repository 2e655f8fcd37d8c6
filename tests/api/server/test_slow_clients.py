"""Clients that send or read slowly, or not at all."""

import contextlib
import json
import select
import socket
import time
from contextlib import ExitStack

import numpy as np
import pytest

from support.raw_http import FINE, head, read_all, status
from support.samples import sample_registry
from support.servers import MIB, needs_proc, serve_samples, serving
from support.waiting import wait_until


def test_a_client_that_stops_sending_is_answered_408():
    with serving(sample_registry(), request_timeout=0.3) as client:
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(head(content_length=100) + b"{")
            answer = read_all(connection)
            assert status(answer) == 408
            assert b"connection: close" in answer
            assert connection.recv(1) == b""
        assert client.post("/artifacts/scale/execute", json={"attention_matrix": np.eye(2).tolist()}).status_code == 200


pytestmark = needs_proc


@pytest.mark.alone
def test_a_thousand_idle_connections():
    with serve_samples() as server, ExitStack() as stack:
        before = server.memory
        for index in range(1000):
            connection = stack.enter_context(server.connect())
            if index % 2:
                connection.sendall(FINE[:-10] if index % 4 == 1 else FINE[:20])
        start = time.monotonic()
        for _ in range(100):
            assert status(server.send(FINE.replace(b"host:", b"connection: close\r\nhost:"))) == 200
        assert time.monotonic() - start < 30
        assert server.memory - before < 64 * MIB


def test_a_connection_that_sends_no_head_is_closed(bounded):
    for start in (b"", b"POST /artifacts/scale/execute HTTP/1.1\r\nhost: local"):
        with bounded.connect(timeout=10) as connection:
            connection.sendall(start)
            assert read_all(connection) == b""


def trickle(connection, pieces, pause=0.0):
    """Sends until the server has closed; whether it has."""
    try:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


def test_a_head_that_is_sent_slowly(bounded):
    with bounded.connect(timeout=10) as connection:
        connection.sendall(FINE)
        assert status(read_all(connection)) == 200
        started = time.monotonic()
        assert trickle(connection, [b"POST / HTTP/1.1\r\n", *[b"x: y\r\n"] * 100], 0.1)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("filler", [b"x: y\r\n", b"y" * 6])
def test_a_head_that_is_too_long(bounded, filler):
    with bounded.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-filler: 1" + filler * 11_000)
        assert status(read_all(connection)) == 431


@pytest.mark.parametrize("start", [b"", b"x-filler: "])
def test_a_head_that_never_ends(bounded, start):
    piece = b"y" * 4000 if start else b"x-filler: " + b"y" * 4000 + b"\r\n"
    with bounded.connect() as connection:
        assert trickle(connection, [b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + start, *[piece] * 100_000])


@pytest.mark.parametrize("length", [{"content_length": 100}, {"transfer_encoding": "chunked"}])
def test_a_body_that_comes_slowly_is_answered_408(bounded, length):
    piece = b" " if "content_length" in length else b"1\r\n \r\n"
    with bounded.connect(timeout=10) as connection:
        connection.sendall(head(**length))
        started = time.monotonic()
        # The server closes after its answer, which can still be read.
        with contextlib.suppress(ConnectionError):
            while not select.select([connection], [], [], 0.1)[0] and time.monotonic() - started < 8:
                connection.sendall(piece)
        assert status(read_all(connection)) == 408
        assert time.monotonic() - started < 8


def test_clients_that_do_not_read():
    with serve_samples(unread_seconds=2.0) as server, ExitStack() as stack:
        body = json.dumps({"shape": [1 << 24], "written": True}).encode()
        request = head("/artifacts/huge/execute", accept="application/vnd.safetensors", content_length=len(body)) + body
        before = server.memory
        for _ in range(8):
            stack.enter_context(server.connect(receive_buffer=4096)).sendall(request)
        computed = b'zerocost_stage_seconds_count{artifact="huge",stage="compute"} 8.0'
        wait_until(lambda: computed in server.send(head("/metrics", "GET")))
        assert server.peak - before > 64 * MIB
        for _ in range(20):
            assert status(server.send(FINE)) == 200
        wait_until(
            lambda: server.memory - before < 48 * MIB, 20, every=0.1
        )  # the server drops answers that nobody reads


def test_a_slow_reader_gets_everything():
    with serve_samples(unread_seconds=2.0) as server, server.connect(receive_buffer=65536) as slow:
        body = json.dumps({"shape": [6 * MIB]}).encode()
        slow.sendall(head("/artifacts/huge/execute", accept="application/vnd.safetensors", content_length=len(body)))
        slow.sendall(body)
        received = 0
        while received < 6 * MIB:
            received += len(slow.recv(1 << 16))
            time.sleep(0.02)
