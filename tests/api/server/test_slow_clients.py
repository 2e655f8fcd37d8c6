"""Clients that send or read slowly, or not at all."""

import json
import time
from contextlib import ExitStack

import httpx2
import numpy as np
import pytest

from support.raw_http import FINE, head, read_all, status
from support.samples import sample_registry
from support.servers import MIB, needs_proc, serve_samples, serving


def test_slow_senders_are_ended():
    with serving(sample_registry(), request_timeout=0.3) as client:

        def slowly():
            yield b"{"
            time.sleep(2)
            yield b"}"

        headers = {"content-type": "application/json"}
        try:
            answer = client.post("/artifacts/scale/execute", content=slowly(), headers=headers)
            assert answer.status_code == 408
        except httpx2.TransportError:
            pass  # the server closed the connection while the client was still sending
        assert client.post("/artifacts/scale/execute", json={"attention_matrix": np.eye(2).tolist()}).status_code == 200


pytestmark = needs_proc


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


def test_who_sends_no_head_is_ended(bounded):
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


def test_a_head_that_comes_slowly(bounded):
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


def test_slow_bodies(bounded):
    for request in (head(content_length=100), head(transfer_encoding="chunked")):
        with bounded.connect(timeout=10) as connection:
            connection.sendall(request)
            started = time.monotonic()
            answer = b""
            for _ in range(100):
                try:
                    connection.sendall(b" " if b"content-length" in request else b"1\r\n \r\n")
                    connection.settimeout(0.1)
                    answer = connection.recv(1 << 16)
                except TimeoutError:
                    continue
                except ConnectionError:
                    pass
                break
            assert status(answer) in (408, None)
            assert time.monotonic() - started < 8


def test_clients_that_do_not_read():
    with serve_samples(unread_seconds=2.0) as server, ExitStack() as stack:
        body = json.dumps({"shape": [1 << 24]}).encode()
        request = head("/artifacts/huge/execute", accept="application/vnd.safetensors", content_length=len(body)) + body
        before = server.memory
        for _ in range(8):
            stack.enter_context(server.connect(receive_buffer=4096)).sendall(request)
        time.sleep(1)
        for _ in range(20):
            assert status(server.send(FINE)) == 200
        for _ in range(100):  # what nobody fetches is let go
            if server.memory - before < 48 * MIB:
                break
            time.sleep(0.1)
        assert server.memory - before < 48 * MIB


def test_a_slow_reader_gets_everything():
    with serve_samples(unread_seconds=2.0) as server, server.connect(receive_buffer=65536) as slow:
        body = json.dumps({"shape": [6 * MIB]}).encode()
        slow.sendall(head("/artifacts/huge/execute", accept="application/vnd.safetensors", content_length=len(body)))
        slow.sendall(body)
        received = 0
        while received < 6 * MIB:
            received += len(slow.recv(1 << 16))
            time.sleep(0.02)
