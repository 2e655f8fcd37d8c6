"""RemoteArtifact against servers of other kinds: a clear error, in time, and no memory for the sizes they announce."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from support.safetensors import message
from zerocost import DeadlineExceeded, ExecutionContext, RemoteArtifact, ServiceUnavailable

TYPE = b"content-type: application/vnd.safetensors\r\n"
MATRIX = np.ones((2, 2), np.float32)


@contextlib.contextmanager
def answering(pieces, pause=0.0):
    """The URL of a server that sends the pieces, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(20)
                        read_request(connection)
                        for piece in pieces:
                            connection.sendall(piece)
                            time.sleep(pause)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    start, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[16:]) for line in start.split(b"\r\n") if line.lower().startswith(b"content-length: "))
    while len(body) < length:
        body += connection.recv(1 << 16)


def call(url, timeout=10.0):
    artifact = RemoteArtifact(url, "scale", timeout=timeout)
    try:
        return artifact.execute({"attention_matrix": MATRIX}, ExecutionContext("scale", "attention", "zero_cost"))
    finally:
        artifact.close()


def answer(body, *, length=None, status=b"200 OK", more=TYPE):
    sized = b"content-length: %d\r\n" % (len(body) if length is None else length)
    return b"HTTP/1.1 %s\r\n%s%sconnection: close\r\n\r\n%s" % (status, sized, more, body)


FINE = message({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


def test_an_answer_without_a_length_is_taken():
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (TYPE, len(FINE), FINE)
    for whole in (answer(FINE), chunked):
        with answering([whole]) as url:
            assert call(url)["x"].tolist() == [0.0, 0.0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("status", [b"200 OK", b"500 Internal Server Error"])
@pytest.mark.parametrize("length", [True, False])
def test_an_answer_that_arrives_byte_by_byte_ends_at_the_deadline(status, length):
    body = message({"x": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}})
    sized = b"content-length: %d\r\n" % (len(body) + 4000) if length else b"transfer-encoding: chunked\r\n"
    start = b"HTTP/1.1 " + status + b"\r\n" + sized + TYPE + b"\r\n"
    drops = [start, *([body] if length else [b"%x\r\n%s\r\n" % (len(body), body)])]
    drops += [b"\x00" if length else b"1\r\n\x00\r\n"] * 100
    with answering(drops, pause=0.1) as url:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            call(url, timeout=0.5)
        assert time.monotonic() - started < 5


HUGE = {"x": {"dtype": "F32", "shape": [1 << 50], "data_offsets": [0, 1 << 52]}}
WRONG = {
    "an endless header": answer(message({}, size=1 << 60)),
    "a header of 2^64 bytes": answer(message({}, size=(1 << 64) - 1)),
    "a tensor of petabytes": answer(message(HUGE)),
    "a tensor of petabytes, chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (TYPE, len(message(HUGE)), message(HUGE)),
    "no header": answer(b"abc"),
    "no safetensors": answer(message([])),
    "no JSON": answer(message({"__metadata__": {"json": "{"}})),
    "no object": answer(message({"__metadata__": {"json": "[1]"}})),
    "more than it says": answer(FINE + b"x"),
    "a page": answer(b"<html>", more=b"content-type: text/html\r\n"),
    "a list": answer(b"[]", more=b"content-type: application/json\r\n"),
    "an error that is a page": answer(b"<html>", status=b"502 Bad Gateway"),
    "an endless error": answer(b"x" * (2 << 20), status=b"500 Internal Server Error"),
}


@pytest.mark.parametrize("case", WRONG)
def test_answers_of_other_servers(case):
    with answering([WRONG[case]]) as url, pytest.raises(ServiceUnavailable) as caught:
        call(url)
    assert url in str(caught.value)
