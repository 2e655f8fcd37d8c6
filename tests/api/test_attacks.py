"""What a client may try: each time a status, an end in bounded time, bounded memory, and a server that goes on."""

import gzip
import json
import os
import random
import signal
import struct
import threading
import time
import zlib
from contextlib import ExitStack

import httpx2
import numpy as np
import pytest

from support.raw_http import BODY, FINE, head, read_all, status
from support.servers import MIB, needs_proc, serve_samples

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


LENGTHS = {
    "too short": (head(content_length=10), BODY, {400}),
    "too long": (head(content_length=len(BODY) + 10), BODY, {408}),
    "negative": (head(content_length=-5), BODY, {400}),
    "no number": (head(content_length="ten"), BODY, {400}),
    "a plus": (head(content_length=f"+{len(BODY)}"), BODY, {400}),
    "hexadecimal": (head(content_length="0x10"), BODY, {400}),
    "beyond 64 bits": (head(content_length="9" * 30), BODY, {400, 413}),
    "beyond the limit": (head(content_length=2 * MIB), b"", {413}),
    "twice, the same": (head(content_length=[len(BODY)] * 2), BODY, {400}),
    "twice, another": (head(content_length=[len(BODY), 3]), BODY, {400}),
    "a list": (head(content_length=f"{len(BODY)}, {len(BODY)}"), BODY, {400}),
    "with chunks": (head(content_length=len(BODY), transfer_encoding="chunked"), b"0\r\n\r\n", {400}),
    "chunks twice": (head(transfer_encoding=["chunked", "chunked"]), b"0\r\n\r\n", {400}),
    "a chunk too long": (head(transfer_encoding="chunked"), b"ffffffffffffffffff\r\n" + BODY, {400}),
    "a negative chunk": (head(transfer_encoding="chunked"), b"-5\r\n" + BODY, {400}),
    "a chunk that ends early": (head(transfer_encoding="chunked"), b"3\r\n" + BODY + b"\r\n0\r\n\r\n", {400}),
    "unknown coding": (head(transfer_encoding="rot13"), BODY, {400, 501}),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_that_lie(bounded, case):
    request, body, statuses = LENGTHS[case]
    assert status(bounded.send(request, body, timeout=10)) in statuses


@pytest.mark.parametrize(
    "name", ["content-type", "content-encoding", "accept", "host", "authorization", "request-timeout", "origin"]
)
def test_headers_that_come_twice(bounded, name):
    value = {"host": "localhost", "content-type": "application/json", "content-encoding": "gzip"}.get(name, "1")
    twice = {name.replace("-", "_"): [value, value], "content_length": len(BODY)}
    answer = bounded.send(head(**twice), BODY)
    # A server without a token never looks for one.
    assert status(answer) == (200 if name == "authorization" else 400), answer[:300]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("extra", [{}, {"inference_header_content_length": 0}, {"inference_header_content_length": 9}])
def test_decompression_bombs(bounded, encoding, extra):
    pack = zlib.compressobj(6, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    bomb = b"".join([*(pack.compress(b" " * MIB) for _ in range(512)), pack.flush()])
    assert len(bomb) < MIB
    path = "/v2/models/vector/infer" if extra else "/artifacts/scale/execute"
    request = head(path, content_encoding=encoding, content_length=len(bomb), **extra)
    # Nine blanks are no JSON, whatever would follow.
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


def test_who_waits_for_the_refusal_gets_it_at_once(bounded):
    started = time.monotonic()
    assert status(bounded.send(head(content_length=2 * MIB), timeout=10)) == 413
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc/passwd",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "scale%00",
        "%00",
        "a%0d%0ax-injected:%201",
        "%ff%fe",
        "x" * 10_240,
        "%C3%BC" * 1000,
        "scale/../scale",
    ],
)
@pytest.mark.parametrize("pattern", ["/artifacts/{}/execute", "/v2/models/{}/infer", "/services/memory/entries/{}"])
def test_names_that_mean_something_elsewhere(bounded, name, pattern):
    method = "GET" if "entries" in pattern else "POST"
    body = b"" if method == "GET" else b"{}"
    answer = bounded.send(head(pattern.format(name), method, content_length=len(body)), body)
    # A key of the memory may be any text of up to 1000 characters; what is none is an input that does not fit.
    is_no_key = method == "GET" and (name == "%ff%fe" or len(name) > 10_000)
    assert status(answer) == (422 if is_no_key else 404), answer[:300]
    assert b"x-injected" not in answer.partition(b"\r\n\r\n")[0]
    assert b"root:" not in answer
    assert len(answer) < 8000


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


def test_sigterm_under_load_loses_nothing():
    with serve_samples() as server:
        stopped = threading.Event()
        complete, broken = [], []

        def load():
            while not broken:
                after = stopped.is_set()
                try:
                    connection = server.connect()
                except OSError:
                    return  # nobody listens any more
                with connection:
                    try:
                        while True:
                            after = stopped.is_set()
                            connection.sendall(FINE)
                            answer = b""
                            while answer.count(b"}") < 2:
                                piece = connection.recv(1 << 16)
                                if not piece:
                                    raise ConnectionResetError
                                answer += piece
                            complete.append(status(answer))
                            if b"connection: close" in answer:
                                break
                    except OSError:
                        # A connection that was idle at that moment may go, but no answer is cut, and none is lost
                        # that was asked for before.
                        if answer or not (after or stopped.is_set()):
                            broken.append(answer)
                        return

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        stopped.set()
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert broken == []
        assert set(complete) == {200}
        assert len(complete) > 50
        assert server.process.wait(30) == 0


def mixed(random):
    """A request, and the statuses that are right for it."""
    n = random.choice([1, 3, 40, 200])
    matrix = [[random.random()] * n] * n
    binary = json.dumps({"inputs": [{"name": "v", "shape": [n, 2], "datatype": "FP32", "data": [1.0] * (2 * n)}]})
    sized = {"name": "v", "shape": [n, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8 * n}}
    announced = json.dumps({"inputs": [sized]}).encode()
    raw = announced + struct.pack(f"<{2 * n}f", *range(2 * n))
    sizes = {"inference-header-content-length": str(len(announced))}
    native = "/artifacts/scale/execute"
    infer = "/v2/models/vector/infer"
    return random.choice(
        [
            (native, json.dumps({"attention_matrix": matrix}), {}, 200),
            (
                native,
                gzip.compress(json.dumps({"attention_matrix": matrix}).encode()),
                {"content-encoding": "gzip"},
                200,
            ),
            (native, json.dumps({"attention_matrix": [[1], [1, 2]]}), {}, 422),
            (native, json.dumps({"attention_matrix": matrix})[:-3], {}, 400),
            (native, json.dumps({"attention_matrix": matrix, "unknown": 1}), {}, 422),
            (native, "{}", {"content-type": "text/plain"}, 415),
            (native, "{}", {"content-encoding": "br"}, 415),
            (native, b"x" * 100, {"content-encoding": "gzip"}, 400),
            ("/artifacts/nothing/execute", "{}", {}, 404),
            ("/artifacts/huge/execute", json.dumps({"shape": [10**9, 10**9]}), {}, 413),
            ("/artifacts/picky/execute", json.dumps({"how": "value"}), {}, 422),
            (
                "/chains/execute",
                json.dumps({"pipeline": [{"artifact": "scale"}], "initial_input": {"attention_matrix": matrix}}),
                {},
                200,
            ),
            ("/chains/execute", json.dumps({"pipeline": [{"artifact": "nothing"}]}), {}, 404),
            (infer, binary, {}, 200),
            (infer, raw, sizes, 200),
            (infer, raw[:-1], sizes, 400),
            (infer, raw + b"x", sizes, 400),
            (infer, "[" * 1000, {}, 413),
        ]
    )


LOAD_SECONDS = float(os.environ.get("ZEROCOST_LOAD_SECONDS", "20"))


@pytest.mark.timeout(LOAD_SECONDS + 120)
def test_mixed_load():
    """``make soak`` makes it longer: ten minutes for a release."""
    seconds = LOAD_SECONDS
    with serve_samples(request_timeout=30.0) as server:
        wrong, counts = [], []
        end = time.monotonic() + seconds

        def load(seed):
            chosen = random.Random(seed)
            count = 0
            with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30) as client:
                while time.monotonic() < end and not wrong:
                    path, body, headers, expected = mixed(chosen)
                    headers = {"content-type": "application/json", **headers}
                    try:
                        found = client.post(path, content=body, headers=headers).status_code
                    except httpx2.HTTPError as error:
                        found = repr(error)
                    if found != expected:
                        wrong.append((path, body[:200], found, expected))
                    count += 1
            counts.append(count)

        threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 4)
        early = server.memory
        for thread in threads:
            thread.join(seconds + 60)
            assert not thread.is_alive()
        assert wrong == []
        assert len(counts) == 4
        assert sum(counts) > 10 * seconds
        late = server.memory
        print(
            f"{sum(counts)} requests in {seconds:.0f} s; {early >> 20} MiB after a quarter, {late >> 20} MiB at the end"
        )
        assert late - early < 24 * MIB
