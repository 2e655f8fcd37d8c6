"""Reading bodies: lengths, chunks, compression."""

import gzip
import json
import time
import zlib

import numpy as np
import pytest

from support.raw_http import BODY, FINE, head, read_all, status
from support.requests import MATRIX, problem
from support.servers import MIB, needs_proc, serve_samples


def test_compressed_bodies(client):
    body = json.dumps({"attention_matrix": MATRIX}).encode()
    headers = {"content-type": "application/json"}
    path = "/artifacts/scale/execute"
    for encoding, compressed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert (
            client.post(path, content=compressed, headers={**headers, "content-encoding": encoding}).status_code == 200
        )
        if encoding != "identity":
            for damaged in (compressed[:-4], b"garbage", compressed + b"x"):
                answer = client.post(path, content=damaged, headers={**headers, "content-encoding": encoding})
                problem(answer, 400)
    response = client.post(path, content=body, headers={**headers, "content-encoding": "br"})
    problem(response, 415, "unsupported_encoding")
    assert response.headers["accept-encoding"] == "gzip, deflate"


pytestmark = needs_proc


@pytest.mark.parametrize("path", ["/artifacts/scale/execute", "/v2/models/vector/infer"])
def test_a_million_chunks_of_one_byte(path):
    with serve_samples(max_body=4 * MIB) as server:
        if path.startswith("/v2"):
            data = np.arange(250_000, dtype=np.float32).tobytes()
            extra = {"inference_header_content_length": 0}
        else:
            data = b'{"attention_matrix": [[1.0]' + b" " * 1_000_000 + b"]}"
            extra = {}
        assert status(server.send(FINE)) == 200
        before = server.memory
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
        answer = server.send(head(path, transfer_encoding="chunked", **extra), chunks, timeout=60)
        assert status(answer) == 200, answer[:500]
        assert server.peak - before < 64 * MIB
        assert status(server.send(FINE)) == 200


LENGTHS = {
    "too short": (head(content_length=10), BODY, 400),
    "too long": (head(content_length=len(BODY) + 10), BODY, 408),
    "negative": (head(content_length=-5), BODY, 400),
    "no number": (head(content_length="ten"), BODY, 400),
    "a plus": (head(content_length=f"+{len(BODY)}"), BODY, 400),
    "hexadecimal": (head(content_length="0x10"), BODY, 400),
    "beyond 64 bits": (head(content_length="9" * 30), BODY, 400),
    "beyond the limit": (head(content_length=2 * MIB), b"", 413),
    "twice, the same": (head(content_length=[len(BODY)] * 2), BODY, 400),
    "twice, another": (head(content_length=[len(BODY), 3]), BODY, 400),
    "a list": (head(content_length=f"{len(BODY)}, {len(BODY)}"), BODY, 400),
    "with chunks": (head(content_length=len(BODY), transfer_encoding="chunked"), b"0\r\n\r\n", 400),
    "chunks twice": (head(transfer_encoding=["chunked", "chunked"]), b"0\r\n\r\n", 400),
    "a chunk too long": (head(transfer_encoding="chunked"), b"ffffffffffffffffff\r\n" + BODY, 400),
    "a negative chunk": (head(transfer_encoding="chunked"), b"-5\r\n" + BODY, 400),
    "a chunk that ends early": (head(transfer_encoding="chunked"), b"3\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "unknown coding": (head(transfer_encoding="rot13"), BODY, 400),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_wrong_lengths(bounded, case):
    request, body, expected = LENGTHS[case]
    assert status(bounded.send(request, body, timeout=10)) == expected


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("extra", [{}, {"inference_header_content_length": 0}, {"inference_header_content_length": 9}])
def test_decompression_bombs(bounded, encoding, extra):
    pack = zlib.compressobj(6, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    bomb = b"".join([*(pack.compress(b" " * MIB) for _ in range(512)), pack.flush()])
    assert len(bomb) < MIB
    path = "/v2/models/vector/infer" if extra else "/artifacts/scale/execute"
    request = head(path, content_encoding=encoding, content_length=len(bomb), **extra)
    # Nine blanks are not JSON, whatever follows.
    expected = 400 if extra.get("inference_header_content_length") == 9 else 413
    assert status(bounded.send(request, bomb)) == expected


def test_a_bomb_in_a_bomb_is_one_encoding_too_many(bounded):
    bomb = gzip.compress(gzip.compress(b" " * (64 * MIB)))
    for encoding, expected in (("gzip, gzip", 415), ("gzip", 400)):
        request = head(content_encoding=encoding, content_length=len(bomb))
        assert status(bounded.send(request, bomb)) == expected


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/artifacts/scale/execute", "/chains/execute", "/v2/models/vector/infer"])
def test_128_mib_against_a_limit_of_one(bounded, path, chunked):
    length = {"transfer_encoding": "chunked"} if chunked else {"content_length": 128 * MIB}
    piece = b" " * MIB
    pieces = [b"100000\r\n" + piece + b"\r\n"] * 128 + [b"0\r\n\r\n"] if chunked else [piece] * 128
    with bounded.connect() as connection:
        connection.sendall(head(path, **length))
        for sent in pieces:
            connection.sendall(sent)  # a broken pipe would be an error here
        assert status(read_all(connection)) == 413


def test_a_refusal_is_sent_before_the_body(bounded):
    started = time.monotonic()
    assert status(bounded.send(head(content_length=2 * MIB), timeout=10)) == 413
    assert time.monotonic() - started < 5
