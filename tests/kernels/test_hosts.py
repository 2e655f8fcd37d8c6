"""Kernels in the workers of other programs: joblib, and gunicorn with a preloaded application."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from support.processes import environment, run_python
from support.waiting import wait_until

WORK = """
import hashlib, os, threading, time
import numpy
import zerocost

CALLS = zerocost.default_registry()
MATRIX = numpy.random.default_rng(0).standard_normal((512, 1024), dtype=numpy.float32)
QUERY = numpy.random.default_rng(1).standard_normal((4, 512, 32), dtype=numpy.float32)

def work(_=None):
    digest = hashlib.sha256()
    for name in ("sparse_attention", "sliding_window_attention"):
        call = CALLS[name].implementation.process_attention
        digest.update(call(MATRIX, normalization="softmax").tobytes())
    attend = CALLS["scaled_dot_product_attention"].implementation.process_attention
    digest.update(attend(QUERY, QUERY, QUERY, is_causal=True).tobytes())
    end = time.monotonic() + 20
    while True:  # calls do not wait for helpers to start
        tasks = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
        helpers = sum(name.startswith("zerocost") for name in tasks)
        if helpers >= zerocost.num_threads() - 1 or time.monotonic() > end:
            break
        time.sleep(0.01)
    return digest.hexdigest(), zerocost.num_threads(), helpers, os.getpid()
"""


def answer(folder, code, **more):
    """Runs a program in the folder of ``work.py``, and returns what it prints as JSON."""
    (folder / "work.py").write_text(WORK)
    script = folder / "program.py"
    script.write_text(code)
    finished = run_python(script, seconds=90, without="NUM_THREADS", variables=more)
    return json.loads(finished.stdout)


JOBLIB = """
import json
from joblib import Parallel, cpu_count, delayed, parallel_config
from work import work

if __name__ == "__main__":
    expected, here, _, _ = work()
    with parallel_config({config}):
        results = Parallel(n_jobs=2)(delayed(work)(index) for index in range(12))
    print(json.dumps({{"expected": expected, "here": here, "results": results, "cores": cpu_count()}}))
"""


@pytest.mark.parametrize("limit", ["", ", inner_max_num_threads=1"])
def test_processes_of_joblib_share_the_cores(tmp_path, limit):
    found = answer(tmp_path, JOBLIB.format(config=f"'loky'{limit}"))
    fair = 1 if limit else max(1, found["cores"] // 2)
    assert len(found["results"]) == 12
    for digest, threads, helpers, _ in found["results"]:
        assert digest == found["expected"]
        assert threads == fair
        assert helpers < fair


def test_threads_of_joblib_share_the_pool(tmp_path):
    found = answer(tmp_path, JOBLIB.format(config="'threading'"), ZEROCOST_NUM_THREADS="3")
    assert found["here"] == 3
    assert len(found["results"]) == 12
    for digest, threads, helpers, _ in found["results"]:
        assert digest == found["expected"]
        assert threads == 3
        assert helpers == 2, "as many helpers as threads were asked for, less the caller; made once for all"


APPLICATION = """
import json
from work import work
BEFORE = work()  # in the master, before it forks

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"before": BEFORE, "now": work()}).encode()]
"""


@pytest.mark.parametrize(("asked", "in_a_worker"), [({}, 1), ({"ZEROCOST_NUM_THREADS": "2"}, 2)])
def test_workers_of_gunicorn_that_were_forked_from_a_master_with_a_pool(tmp_path, asked, in_a_worker):
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "program.py").write_text(APPLICATION)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "program:application", "--preload", "-w", "2", "-b", "127.0.0.1:0"]
    with log.open("w") as written:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment("NUM_THREADS", **asked), stdout=written, stderr=written
        )
    try:
        address = listening(server, log)
        answers = []
        deadline = time.monotonic() + 60
        while len({answer["now"][3] for answer in answers}) < 2 or len(answers) < 8:
            assert time.monotonic() < deadline, "only one of the workers answers"
            with urllib.request.urlopen(address, timeout=30) as response:
                answers.append(json.load(response))
        for answer in answers:
            assert answer["before"][3] == server.pid, "the kernels were used in the master"
            assert answer["now"][:3] == [answer["before"][0], in_a_worker, in_a_worker - 1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
    finally:
        server.kill()
        server.wait()
    assert "WORKER TIMEOUT" not in log.read_text()
    for worker in {answer["now"][3] for answer in answers}:
        assert not Path(f"/proc/{worker}").exists(), "a worker was left behind"


def listening(server, log):
    """The address at which gunicorn listens, once its log says so."""

    def address():
        assert server.poll() is None, log.read_text()
        return re.search(r"Listening at: (\S+)", log.read_text())

    return wait_until(address, 60)[1]
