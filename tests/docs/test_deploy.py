"""The files in examples/deploy: each is read by the program that it is for, or checked against zerocost's options."""

import contextlib
import dataclasses
import os
import re
import shutil
import ssl
import subprocess
import sys

import httpx2
import numpy as np
import pytest

from support.paths import ROOT
from support.ports import free_port
from support.processes import run_python
from support.waiting import wait_until
from zerocost import create_app, default_registry
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings

DEPLOY = ROOT / "examples" / "deploy"


def needs(program):
    # Debian has it in /usr/sbin, which is not on everybody's path.
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    return path, pytest.mark.skipif(path is None, reason=f"{program} is not installed")


NGINX, needs_nginx = needs("nginx")
SYSTEMD, needs_systemd = needs("systemd-analyze")
OPENSSL, needs_openssl = needs("openssl")


@pytest.mark.parametrize("name", ["zerocost.service", "Containerfile"])
def test_options_and_variables_are_known(name):
    text = (DEPLOY / name).read_text()
    help_text = run_python("-m", "zerocost", "serve", "--help", variables={"COLUMNS": "300"}).stdout
    command = re.search(r"^(?:ExecStart=|ENTRYPOINT ).*", text, re.MULTILINE)[0]
    options = re.findall(r"--[a-z-]+", command)
    assert options
    for option in options:
        assert option in help_text
    known = {f"ZEROCOST_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    variables = set(re.findall(r"ZEROCOST_[A-Z_]+", text))
    assert variables
    assert variables <= known


def test_the_image_copies_what_is_there_and_runs_without_rights():
    text = (DEPLOY / "Containerfile").read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?", text, re.MULTILINE)
    assert [stage for _, stage in stages] == ["build", ""]
    assert re.search(r"^COPY --from=build /wheels /wheels$", text, re.MULTILINE)
    assert text.index("USER zerocost") < text.index("ENTRYPOINT")


@needs_systemd
def test_the_unit_is_valid_and_hardened(tmp_path):
    unit = (DEPLOY / "zerocost.service").read_text()
    (tmp_path / "environment").write_text("ZEROCOST_TOKEN=t\n")
    here = unit.replace("/opt/zerocost/bin/zerocost", sys.executable).replace(
        "/etc/zerocost.env", f"{tmp_path}/environment"
    )
    (tmp_path / "zerocost.service").write_text(here)
    done = subprocess.run(
        [SYSTEMD, "verify", "--man=no", str(tmp_path / "zerocost.service")], capture_output=True, text=True
    )
    assert "zerocost.service" not in done.stderr, done.stderr
    judged = subprocess.run(
        [SYSTEMD, "security", "--offline=yes", "--threshold=20", str(tmp_path / "zerocost.service")],
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stdout[-2000:] + judged.stderr


@needs_nginx
@needs_openssl
@pytest.mark.timeout(120)
def test_requests_go_through_nginx(tmp_path):
    certificate, key = tmp_path / "zerocost.pem", tmp_path / "zerocost.key"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=zerocost.example"),
            *("-addext", "subjectAltName=DNS:zerocost.example", "-keyout", key, "-out", certificate),
        ],
        capture_output=True,
        check=True,
    )
    port = free_port()
    with background_server(create_app(default_registry(), Settings(token="t"))) as url:
        snippet = (DEPLOY / "nginx.conf").read_text()
        for here, there in (
            ("127.0.0.1:8000", url.removeprefix("http://")),
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/ssl/zerocost.pem", str(certificate)),
            ("/etc/ssl/private/zerocost.key", str(key)),
        ):
            assert here in snippet
            snippet = snippet.replace(here, there)
        folders = "\n".join(
            f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = f"daemon off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {folders}\n{snippet} }}"
        (tmp_path / "nginx.conf").write_text(whole)
        command = [NGINX, "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert tested.returncode == 0, tested.stderr
        assert "warn" not in tested.stderr
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            check_proxied(port, certificate)
        finally:
            proxy.terminate()
            proxy.wait(30)


def check_proxied(port, certificate):
    trusting = ssl.create_default_context(cafile=certificate)
    headers = {"host": "zerocost.example", "authorization": "Bearer t"}
    names = {"sni_hostname": "zerocost.example"}
    with httpx2.Client(
        base_url=f"https://127.0.0.1:{port}", verify=trusting, trust_env=False, headers=headers
    ) as client:

        def call(method, path, **options):
            return client.request(method, path, extensions=names, timeout=60, **options)

        def is_ready():
            with contextlib.suppress(httpx2.TransportError):
                return call("GET", "/readyz").status_code == 200
            return False

        wait_until(is_ready)
        matrix = np.random.default_rng(0).random((300, 300))
        answer = call("POST", "/artifacts/sparse_attention/execute", json={"attention_matrix": matrix.tolist()})
        assert answer.status_code == 200
        assert np.count_nonzero(answer.json()["data"]["processed_attention"]) == 300 * 60
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]), "nginx's own id goes all the way"
        assert call("GET", "/artifacts", headers={"authorization": ""}).status_code == 401
        assert call("GET", "/metrics").status_code == 403
        wrong = call("POST", "/artifacts/sparse_attention/execute", json={"attention_matrix": 1})
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
