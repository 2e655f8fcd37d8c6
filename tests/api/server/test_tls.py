"""TLS: certificates of the server and of its clients."""

import shutil
import signal
import ssl
import subprocess
import sys

import httpx2
import pytest

from support.requests import get
from support.servers import serve_command


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost and 127.0.0.1, and its key with and without a password."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:word", "-in", "key.pem", "-out", "locked.pem"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_tls(certificate, workers):
    files = ("--ssl-certfile", certificate / "certificate.pem", "--ssl-keyfile", certificate / "locked.pem")
    options = (*map(str, files), "--ssl-keyfile-password", "word", "--workers", workers)
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem")
    with serve_command(*options, ZEROCOST_TOKEN="t") as (process, url, _):
        assert url.startswith("https://127.0.0.1:")
        assert get(url, "/livez", verify=trusting).status_code == 200
        assert get(url, "/artifacts", verify=trusting).status_code == 401
        token = {"authorization": "Bearer t"}
        assert get(url, "/artifacts", verify=trusting, headers=token).status_code == 200
        with pytest.raises(httpx2.TransportError):
            get(url, "/livez", verify=ssl.create_default_context())
        with pytest.raises(httpx2.TransportError):
            get(url.replace("https", "http"), "/livez")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.timeout(60)
def test_clients_may_need_a_certificate(certificate):
    own, key = str(certificate / "certificate.pem"), str(certificate / "key.pem")
    with serve_command("--ssl-certfile", own, "--ssl-keyfile", key, "--ssl-ca-certs", own) as (_, url, _):
        context = ssl.create_default_context(cafile=own)
        with pytest.raises(httpx2.TransportError):
            get(url, "/livez", verify=context)
        context.load_cert_chain(own, key)
        assert get(url, "/livez", verify=context).status_code == 200
        # The rules for callers without a token hold as they do without TLS.
        headers = {"origin": url}
        assert get(url, "/artifacts", verify=context, headers=headers).status_code == 200
        assert get(url, "/artifacts", verify=context, headers={"origin": "https://evil.example"}).status_code == 403
        assert get(url, "/artifacts", verify=context, headers={"host": "evil.example"}).status_code == 403


def test_tls_that_cannot_work_is_refused_at_once(certificate):
    def refused(*options):
        done = subprocess.run(
            [sys.executable, "-m", "zerocost", "serve", *options],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    own, key = str(certificate / "certificate.pem"), str(certificate / "locked.pem")
    assert "certificate is needed" in refused("--ssl-keyfile", key)
    assert "No such file" in refused("--ssl-certfile", "nowhere.pem")
    refused("--ssl-certfile", own, "--ssl-keyfile", key)
    refused("--ssl-certfile", own, "--ssl-keyfile", own)
    assert "needs a token" in refused(
        "--ssl-certfile", own, "--ssl-keyfile", str(certificate / "key.pem"), "--host", "::"
    )
