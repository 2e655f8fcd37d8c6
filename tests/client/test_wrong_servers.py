"""RemoteArtifact against servers of other kinds: a clear error, in time, and no memory for the sizes they announce."""

import contextlib
import functools
import json
import socket
import threading
import time

import httpx2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.malformed import DEEP, MIB, bounded_memory, messages, mutated, some, text_of
from support.safetensors import message
from zerocost import DeadlineExceeded, ExecutionContext, RemoteArtifact, ServiceUnavailable, ZerocostError
from zerocost.core.safetensors import MEDIA_TYPE

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


# Malformed answers


@functools.cache
def answered_once():
    """Imports what the first answer imports, so that its memory is not counted."""
    with pytest.raises(ServiceUnavailable):
        remote(httpx2.Response(200, headers={"content-type": MEDIA_TYPE}, content=iter([b""])))


def remote(answer):
    artifact = RemoteArtifact("http://server", "scale", timeout=10)
    artifact._client = httpx2.Client(transport=httpx2.MockTransport(lambda request: answer))
    try:
        return artifact.execute({}, ExecutionContext("scale", "attention", "zero_cost"))
    finally:
        artifact.close()


LENGTHS = st.sampled_from([None, "exact", "0", "8", "1" * 18, "1" * 5000, "²", "-1", "x"])


@some
@given(messages(), LENGTHS, st.integers(1, 100))
@example(message(b"", size=1 << 50), "1" * 18, 10)
@example(message(b"", size=32 * MIB), "1" * 18, 10)
@example(message(b'{"x": {"dtype": %s}}' % DEEP), None, 100)
def test_malformed_safetensors_answers(body, length, step):
    headers = {"content-type": MEDIA_TYPE}
    if length is not None:
        headers["content-length"] = str(len(body)) if length == "exact" else length
    pieces = (body[at : at + step] for at in range(0, len(body), step))
    answered_once()
    with bounded_memory():
        sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        with contextlib.suppress(ServiceUnavailable):
            assert isinstance(remote(httpx2.Response(200, headers=sent, content=pieces)), dict)


@st.composite
def problems(draw):
    document = {
        "code": draw(
            st.sampled_from(["shape_error", "invalid_input", "plan_error", "error", "none", "limit_exceeded"])
        ),
        "detail": "no",
        "errors": [{"pointer": "/a~1b", "message": "no"}],
        "step": 1,
        "artifact": "a",
        "port": "p",
        "request_id": "r",
    }
    return text_of(draw, mutated(draw, document))


@some
@given(
    problems(),
    st.sampled_from([400, 413, 422, 429, 500, 502, 503]),
    st.sampled_from(["99", "²", "9" * 400, "-1", "x", ""]),
)
@example(json.dumps({"code": "invalid_input", "detail": "no", "errors": [1]}).encode(), 422, "")
@example(b'{"code": "invalid_input", "detail": %s}' % DEEP, 422, "")
@example(b"{}", 503, "²")
def test_malformed_problem_documents(content, status, wait):
    with pytest.raises(ZerocostError):
        remote(httpx2.Response(status, headers=[(b"retry-after", wait.encode("latin-1"))], content=iter([content])))


@pytest.mark.parametrize("answer", ["{}", '{"schema": 1, "description": "x"}', '{"schema": {}}', "[]"])
def test_malformed_descriptions(answer):
    artifact = RemoteArtifact("http://server", "scale")
    answers = httpx2.MockTransport(lambda _: httpx2.Response(200, content=iter([answer.encode()])))
    artifact._client = httpx2.Client(transport=answers)
    with pytest.raises(ServiceUnavailable, match="not a zerocost server's"):
        artifact.get_schema()
    artifact.close()
