"""``zerocost serve``: starting, stopping, tokens, and addresses that it refuses."""

import json
import signal
import socket
import urllib.error
import urllib.request

import pytest

from support.command_line import SCALE
from support.servers import serve_command


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_serves_built_in_and_own_artifacts_until_it_is_stopped(tmp_path, kind):
    with serve_command(*SCALE, cwd=tmp_path) as (process, url, log):
        names = [artifact["name"] for artifact in ask(f"{url}/artifacts")["artifacts"]]
        assert {"scale", "tensor_parallel"} <= set(names)
        answer = ask(f"{url}/artifacts/scale/execute", b'{"attention_matrix": [[1, 2]], "factor": 3}')
        assert answer["data"]["processed_attention"] == [[3, 6]]
        process.send_signal(kind)
        assert process.wait(30) == 0
    assert "Traceback" not in "".join(log)


def test_server_reads_its_token_from_the_environment(tmp_path):
    with serve_command(cwd=tmp_path, ZEROCOST_TOKEN="secret") as (_, url, _):
        assert ask(f"{url}/artifacts", Authorization="Bearer secret")["artifacts"]
        with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
            ask(f"{url}/artifacts")
        refusal.value.close()


def test_server_without_authentication(tmp_path):
    with serve_command("--host", "0.0.0.0", "--no-auth", cwd=tmp_path) as (_, url, _):
        assert ask(f"http://127.0.0.1:{url.rpartition(':')[2]}/artifacts", Host="anywhere.example")["artifacts"]


def test_address_that_cannot_be_served_is_refused(refused, monkeypatch):
    assert "0.0.0.0 can be reached from elsewhere, which needs a token" in refused("serve", "--host", "0.0.0.0")
    assert "Cannot assign requested address" in refused("serve", "--host", "192.0.2.1", "--no-auth")
    assert "65535" in refused("serve", "--port", "65536")
    assert "no_such_module" in refused("serve", "--artifact", "x=no_such_module:X")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Address already in use" in refused("serve", "--port", taken.getsockname()[1])
    monkeypatch.setenv("ZEROCOST_MAX_BODY", "much")
    assert "ZEROCOST_MAX_BODY: 'much' cannot be read" in refused("serve")
