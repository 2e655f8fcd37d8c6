"""Requests of the native routes, and the problems that they are answered with."""

import httpx2

JSON = {"content-type": "application/json"}
PICKY = ("--artifact", "picky=support.samples:Picky")
"""An option of ``zerocost serve``."""

MATRIX = [[1.0, 0.5, 0.25], [0.5, 1.0, 0.125], [0.25, 0.125, 1.0]]


def problem(response, status, code=None):
    """The problem document of an answer, which must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["error"] == document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    if code is not None:
        assert document["code"] == code, document
    return document


def execute(client, name="scale", **inputs):
    return client.post(f"/artifacts/{name}/execute", json=inputs)


def chain(client, pipeline, initial_input=None, path="/chains/execute", **more):
    body = {"pipeline": pipeline, **({} if initial_input is None else {"initial_input": initial_input}), **more}
    return client.post(path, json=body)


def get(url, path, **options):
    return httpx2.get(f"{url}{path}", trust_env=False, timeout=30, **options)


def post(url, path, body, **options):
    return httpx2.post(f"{url}{path}", json=body, trust_env=False, timeout=30, **options)


MEMORY_REQUESTS = ["get", "put", "delete", "method", "artifact"]


def memory_request(client, kind, **headers):
    """Sends a request that a memory artifact answers: one of ``MEMORY_REQUESTS``."""
    entry = "/services/memory/entries/k"
    if kind == "get":
        return client.get(entry, headers=headers)
    if kind == "put":
        return client.put(entry, content=b"1", headers={**JSON, **headers})
    if kind == "delete":
        return client.delete(entry, headers=headers)
    if kind == "method":
        return client.post("/services/memory/get", json={"key": "k"}, headers=headers)
    return client.post("/artifacts/lru_cache/execute", json={"operation": "get", "key": "k"}, headers=headers)
