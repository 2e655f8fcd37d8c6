"""The byte budget: many clients hold memory at once, and others are still served."""

import json
import select
from contextlib import ExitStack

import pytest

from support.raw_http import FINE, head, read_all, status
from support.samples import echo_registry
from support.servers import MIB, needs_proc, serve_samples
from support.waiting import wait_until


@needs_proc
@pytest.mark.parametrize("path", ["/artifacts/scale/execute", "/v2/models/echo/infer"])
@pytest.mark.parametrize("chunked", [False, True])
def test_many_clients_that_upload_slowly(path, chunked):
    with serve_samples(max_body=8 * MIB, max_memory=16 * MIB) as server:
        before = server.memory
        with ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(12)]
            length = {"transfer_encoding": "chunked"} if chunked else {"content_length": 8 * MIB}
            for client in clients:
                client.sendall(head(path, **length))
            for _ in range(6):
                for client in clients:
                    client.sendall(b"100000\r\n" + b" " * MIB + b"\r\n" if chunked else b" " * MIB)
            answers = [read_all(refused) for refused in answered(clients, 6)]
            assert {status(answer) for answer in answers} == {503}
            assert all(b"retry-after: 1\r\n" in answer for answer in answers)
            assert status(server.send(head("/livez", "GET"))) == 200
            assert server.peak - before < 48 * MIB
        wait_until(lambda: status(server.send(FINE)) == 200)
        assert server.peak - before < 48 * MIB


def answered(clients, least):
    """The clients to which something was sent, once there are so many of them."""

    def found():
        readable = select.select(clients, [], [], 0)[0]
        return readable if len(readable) >= least else None

    return wait_until(found)


@needs_proc
def test_many_clients_that_do_not_read():
    with serve_samples(unread_seconds=60.0, max_memory=64 * MIB) as server, ExitStack() as stack:
        body = json.dumps({"shape": [16 * MIB], "written": True}).encode()
        request = head("/artifacts/huge/execute", accept="application/vnd.safetensors", content_length=len(body)) + body
        before = server.memory
        statuses = []
        for _ in range(12):
            client = stack.enter_context(server.connect(receive_buffer=4096))
            client.sendall(request)
            statuses.append(status(client.recv(200)))
        assert statuses == [200] * 3 + [503] * 9
        assert server.peak - before < 128 * MIB
        assert status(server.send(FINE)) == 200


def test_a_body_larger_than_the_byte_budget_is_refused(serve):
    client = serve(echo_registry(), max_memory=1 << 20)
    for content in (b" " * (2 << 20), iter([b" " * (1 << 20)] * 2)):
        answer = client.post("/artifacts/scale/execute", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "limit")
    assert client.post("/artifacts/scale/execute", json={"attention_matrix": [[1.0]]}).status_code == 200
