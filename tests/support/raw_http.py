"""Requests and answers of HTTP/1.1 as bytes, for what no HTTP client sends."""

import contextlib
import json

BODY = json.dumps({"attention_matrix": [[1.0, 2.0], [3.0, 4.0]]}).encode()


def read_all(connection):
    """One answer with its body, or its beginning where the other side closes or is silent for too long."""
    data = bytearray()
    with contextlib.suppress(ConnectionError, TimeoutError):
        while not is_complete(data) and (piece := connection.recv(1 << 16)):
            data += piece
    return bytes(data)


def is_complete(answer):
    """Whether an answer has all that its Content-Length says."""
    start, end, body = bytes(answer).partition(b"\r\n\r\n")
    lengths = [line[16:] for line in start.split(b"\r\n") if line.startswith(b"content-length: ")]
    return bool(end and lengths) and len(body) >= int(lengths[0])


def status(answer):
    """The status of an answer; None where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def head(path="/artifacts/scale/execute", method="POST", host="localhost", **headers):
    """A request's head. Underscores in names stand for hyphens; a list of values for a header sent more than once."""
    given = {"host": host, "content_type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, values in given.items():
        values = values if isinstance(values, list) else [values]
        lines += [f"{name.replace('_', '-')}: {value}" for value in values]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


FINE = head(content_length=len(BODY)) + BODY
"""A request that is answered with 200."""


def raw_post(server, path, body, **headers):
    """Posts bytes, or a value as JSON, to a :class:`support.servers.Program`; the answer as bytes."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.send(head(path, content_length=len(text), **headers), text)
