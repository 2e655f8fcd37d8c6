"""The access log: one line for a request, with nothing private in it."""

import json

import httpx2
import pytest

from support.samples import echo_registry, sample_registry
from support.servers import serving


def test_every_request_is_one_log_line(lines):
    secret = "s3cr3t"
    with serving(echo_registry(), access_log=True, token=secret) as client:
        client.headers["authorization"] = f"Bearer {secret}"
        answer = client.post("/artifacts/echo/execute", json={"text": "private text"}, headers={"x-request-id": "mine"})
        assert answer.status_code == 200
        client.put("/services/memory/entries/private-key", content=b"private body", headers={"x-request-id": "put"})
        client.get("/private-path")
        client.post("/artifacts/picky/execute", json={"how": "key"}, headers={"x-request-id": "bad"})
    found = [line for line in lines() if line["logger"] == "zerocost.access"]
    first = found[0]
    assert first["time"].endswith("+00:00")
    assert {name: first[name] for name in ("request_id", "method", "route", "artifact", "status", "level")} == {
        "request_id": "mine",
        "method": "POST",
        "route": "/artifacts/{name}/execute",
        "artifact": "echo",
        "status": 200,
        "level": "info",
    }
    assert 0 < first["duration_ms"] < 60_000
    assert [line["status"] for line in found[2:]] == [404, 500]
    assert found[1]["route"] == "/services/memory/entries/{key:path}"
    text = json.dumps(found)
    assert secret not in text
    assert "private" not in text
    failure = next(line for line in lines() if line["level"] == "error")
    assert failure["request_id"] == "bad"
    assert failure["exception"].startswith("Traceback")
    assert "KeyError" in failure["exception"]


def test_a_client_that_disconnects_is_logged_too(lines):
    with serving(sample_registry(), access_log=True, slots=1) as client:
        with pytest.raises(httpx2.TimeoutException):
            client.post("/artifacts/picky/execute", json={"how": "sleep"}, timeout=0.2)
        client.get("/livez")
    assert 499 in [line["status"] for line in lines() if line["logger"] == "zerocost.access"]


def test_there_is_no_access_log_by_default(lines):
    with serving(sample_registry()) as client:
        assert client.get("/livez").status_code == 200
    assert not [line for line in lines() if line["logger"] == "zerocost.access"]
