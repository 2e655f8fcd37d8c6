"""The log of a server."""

import json
import logging
import signal

from support.requests import PICKY, post
from support.servers import serve_command


def test_every_line_of_the_log_is_json():

    with serve_command("--log-format", "json", "--workers", "2", *PICKY) as (process, url, log):
        post(url, "/artifacts/picky/execute", {"how": "key"}, headers={"x-request-id": "bad"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    lines = [json.loads(line) for line in log]
    assert any(line.get("status") == 500 and line["request_id"] == "bad" for line in lines)
    assert any("KeyError" in line.get("exception", "") for line in lines)


def test_a_lone_surrogate_is_logged(lines, monkeypatch):
    root = logging.getLogger()
    with monkeypatch.context() as patched:
        patched.setattr(root, "handlers", root.handlers[:1])  # not pytest's: its processes cannot send such text
        logging.getLogger("zerocost.api").error("half \ud800 of it")
    assert lines()[-1]["message"] == "half \ud800 of it"
