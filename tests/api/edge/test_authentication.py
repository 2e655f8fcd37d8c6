"""Who may call: names of the host, origins of pages, addresses, tokens."""

import pytest

from support.requests import problem
from support.samples import sample_registry
from zerocost.api.settings import Settings
from zerocost.api.wire.request import Request


def test_other_hosts_are_refused_without_a_token(client):
    for host in ("example.com", "localhost.example.com", "10.0.0.1", "127.0.0.1.nip.io", ""):
        problem(client.get("/artifacts", headers={"host": host}), 403, "forbidden")
        assert client.get("/livez", headers={"host": host}).status_code == 200
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1234", "[::1]:8000", "a.localhost", "127.8.8.8"):
        assert client.get("/artifacts", headers={"host": host}).status_code == 200


def test_pages_of_other_origins_are_refused_without_a_token(serve, client):
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.get("/artifacts", headers={"origin": own}).status_code == 200
    for origin in ("http://example.com", "null", "http://localhost:1", own.replace("http", "https")):
        problem(client.get("/artifacts", headers={"origin": origin}), 403, "forbidden")
    allowing = serve(sample_registry(), allowed_origins=("http://example.com",))
    assert allowing.get("/artifacts", headers={"origin": "http://example.com"}).status_code == 200


def test_addresses_beyond_loopback_are_refused_without_a_token():
    from support.servers import serving
    from zerocost.api.edge.authentication import check_caller
    from zerocost.api.wire.problems import HTTPError

    def request(server):
        scope = {"server": server, "headers": [(b"host", b"localhost")], "scheme": "http", "path": "/artifacts"}
        return Request(scope, None)

    for server in (("192.168.1.2", 80), ("0.0.0.0", 80), None, ("::", 80)):
        with pytest.raises(HTTPError, match="loopback"):
            check_caller(request(server), Settings())
        check_caller(request(server), Settings(auth=False))
    for server in (("127.0.0.1", 80), ("::1", 80), ("::ffff:127.0.0.1", 80), ("/run/zerocost.sock", None)):
        check_caller(request(server), Settings())
    with serving(sample_registry(), auth=False) as client:
        assert client.get("/artifacts", headers={"host": "example.com"}).status_code == 200


def test_tokens(serve):
    client = serve(sample_registry(), token="use-it", admin_token="rule-it")
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    answer = client.get("/artifacts")
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    problem(client.get("/artifacts", headers={"authorization": "Basic dXNlLWl0"}), 401)
    for wrong in ("use-i", "use-itt", "USE-IT", "ü"):
        problem(client.get("/artifacts", headers={"authorization": f"Bearer {wrong}".encode()}), 403, "forbidden")
    for right in ("use-it", "rule-it"):
        # With a token the address does not matter.
        headers = {"authorization": f"Bearer {right}", "host": "example.com"}
        assert client.get("/artifacts", headers=headers).status_code == 200


def test_only_allowed_origins_are_answered(serve):
    ours, theirs = "https://pages.example", "https://evil.example"
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    path, body = "/artifacts/scale/execute", {"attention_matrix": [[1.0]]}

    closed = serve(sample_registry())
    assert closed.options(path, headers={"origin": ours, **preflight}).status_code == 403
    assert closed.post(path, json=body, headers={"origin": ours}).status_code == 403

    client = serve(sample_registry(), allowed_origins=(ours,))
    allowed = client.options(path, headers={"origin": ours, **preflight})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ours
    answer = client.post(path, json=body, headers={"origin": ours})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ours
    refused = client.options(path, headers={"origin": theirs, **preflight})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    answer = client.post(path, json=body, headers={"origin": theirs})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
