"""Valid and invalid requests in any order on a real server."""

import gzip
import json
import os
import random
import struct
import threading
import time

import httpx2
import pytest

from support.servers import MIB, needs_proc, serve_samples

pytestmark = needs_proc


def mixed(random):
    """A request, and its right status."""
    n = random.choice([1, 3, 40, 200])
    matrix = [[random.random()] * n] * n
    binary = json.dumps({"inputs": [{"name": "v", "shape": [n, 2], "datatype": "FP32", "data": [1.0] * (2 * n)}]})
    sized = {"name": "v", "shape": [n, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8 * n}}
    announced = json.dumps({"inputs": [sized]}).encode()
    raw = announced + struct.pack(f"<{2 * n}f", *range(2 * n))
    sizes = {"inference-header-content-length": str(len(announced))}
    native = "/artifacts/scale/execute"
    infer = "/v2/models/vector/infer"
    return random.choice(
        [
            (native, json.dumps({"attention_matrix": matrix}), {}, 200),
            (
                native,
                gzip.compress(json.dumps({"attention_matrix": matrix}).encode()),
                {"content-encoding": "gzip"},
                200,
            ),
            (native, json.dumps({"attention_matrix": [[1], [1, 2]]}), {}, 422),
            (native, json.dumps({"attention_matrix": matrix})[:-3], {}, 400),
            (native, json.dumps({"attention_matrix": matrix, "unknown": 1}), {}, 422),
            (native, "{}", {"content-type": "text/plain"}, 415),
            (native, "{}", {"content-encoding": "br"}, 415),
            (native, b"x" * 100, {"content-encoding": "gzip"}, 400),
            ("/artifacts/nothing/execute", "{}", {}, 404),
            ("/artifacts/huge/execute", json.dumps({"shape": [10**9, 10**9]}), {}, 413),
            ("/artifacts/picky/execute", json.dumps({"how": "value"}), {}, 422),
            (
                "/chains/execute",
                json.dumps({"pipeline": [{"artifact": "scale"}], "initial_input": {"attention_matrix": matrix}}),
                {},
                200,
            ),
            ("/chains/execute", json.dumps({"pipeline": [{"artifact": "nothing"}]}), {}, 404),
            (infer, binary, {}, 200),
            (infer, raw, sizes, 200),
            (infer, raw[:-1], sizes, 400),
            (infer, raw + b"x", sizes, 400),
            (infer, "[" * 1000, {}, 413),
        ]
    )


LOAD_SECONDS = float(os.environ.get("ZEROCOST_LOAD_SECONDS", "20"))


@pytest.mark.alone
@pytest.mark.timeout(LOAD_SECONDS + 120)
def test_mixed_load():
    """``make soak`` makes it longer: ten minutes for a release."""
    seconds = LOAD_SECONDS
    with serve_samples(request_timeout=30.0) as server:
        wrong, counts = [], []
        end = time.monotonic() + seconds

        def load(seed):
            chosen = random.Random(seed)
            count = 0
            with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30) as client:
                while time.monotonic() < end and not wrong:
                    path, body, headers, expected = mixed(chosen)
                    headers = {"content-type": "application/json", **headers}
                    try:
                        found = client.post(path, content=body, headers=headers).status_code
                    except httpx2.HTTPError as error:
                        found = repr(error)
                    if found != expected:
                        wrong.append((path, body[:200], found, expected))
                    count += 1
            counts.append(count)

        threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 4)
        early = server.memory
        for thread in threads:
            thread.join(seconds + 60)
            assert not thread.is_alive()
        assert wrong == []
        assert len(counts) == 4
        assert sum(counts) > 10 * seconds
        late = server.memory
        print(
            f"{sum(counts)} requests in {seconds:.0f} s; {early >> 20} MiB after a quarter, {late >> 20} MiB at the end"
        )
        assert late - early < 24 * MIB
