"""``zerocost serve`` with several workers."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from support.requests import JSON, PICKY, get, post
from support.servers import metric, needs_proc, serve_command
from support.waiting import wait_until
from zerocost import ServiceUnavailable
from zerocost.api.server.run import listen
from zerocost.api.server.supervisor import serve_workers
from zerocost.api.settings import Settings


def figure(url, name):
    return metric(get(url, "/metrics").text, name)


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@needs_proc
@pytest.mark.timeout(180)
def test_workers_share_their_figures_and_are_replaced():
    with serve_command(*PICKY, "--workers", "2") as (process, url, log):
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        for _ in range(40):
            assert post(url, "/artifacts/picky/execute", {"how": "fine"}).status_code == 200
        for _ in range(4):
            put = httpx2.put(f"{url}/services/memory/entries/a", content=b"1", headers=JSON, trust_env=False)
            assert put.status_code == 204
        name = 'zerocost_stage_seconds_count{artifact="picky",stage="total"}'
        wait_until(lambda: figure(url, name) == 40)
        wait_until(lambda: figure(url, 'zerocost_memory_entries{artifact="lru_cache"}') >= 1)

        def counted():
            return get(url, "/v2/models/picky/stats").json()["model_stats"][0]["inference_count"]

        wait_until(lambda: counted() == 40)
        # A change in one worker would not reach the others; without a token it is refused in any case.
        change = {"artifact_name": "sparse_attention"}
        answer = post(url, "/services/model/use_artifact", change)
        assert answer.status_code == 403, answer.text
        # Each worker answers with its own figures and what the others have written down.
        wait_until(lambda: [figure(url, name) for _ in range(12)] == [40] * 12)
        victim = children(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(set(children(process.pid)) - {victim}) == 2)
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        assert figure(url, name) == 40, "what a worker counted outlives it"
        assert any("is replaced" in line for line in log)
        # Under load, no accepted request is lost.
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(post, url, "/artifacts/picky/execute", {"how": "sleep"}) for _ in range(4)]
            # No figure tells in time that all of them have arrived: a worker learns from the others once a second.
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            assert [answer.result().status_code for answer in answers] == [200] * 4
        assert process.wait(30) == 0


@needs_proc
@pytest.mark.timeout(120)
def test_workers_end_with_a_supervisor_that_is_killed():
    with serve_command("--workers", "2") as (process, url, _):
        wait_until(lambda: figure(url, "zerocost_workers") == 2)
        workers = children(process.pid)
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() and is_running(pid) for pid in workers))


def is_running(pid):
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def broken_app(settings):
    raise RuntimeError("no app today")


@pytest.mark.timeout(60)
def test_workers_that_do_not_start_end_the_server():
    with pytest.raises(ServiceUnavailable, match="did not start"):
        serve_workers(broken_app, Settings(processes=2), listen("127.0.0.1", 0))
