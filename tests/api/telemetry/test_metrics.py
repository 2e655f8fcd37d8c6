"""The metrics page, and the timings in answers."""

import re

import pytest

from support.samples import sample_registry
from support.servers import serving
from zerocost import default_registry

MATRIX = [[1.0, 2.0], [3.0, 4.0]]


def test_metrics_and_timings(client):
    answer = client.post("/artifacts/scale/execute", json={"attention_matrix": MATRIX})
    timing = answer.headers["server-timing"]
    for stage in ("read", "queue", "compute", "write"):
        assert re.search(rf"{stage};dur=\d+\.\d+", timing), timing
    assert 'copied;desc="0 bytes"' in timing, "a list is read straight into the array that the kernel uses"
    client.post("/artifacts/scale/execute", json={"attention_matrix": 1})
    page = client.get("/metrics").text
    assert 'zerocost_answers_total{status="200"}' in page
    assert 'zerocost_answers_total{status="422"} 1.0' in page
    assert 'zerocost_stage_seconds_bucket{artifact="scale",le="+Inf",stage="compute"} 1.0' in page
    assert "zerocost_pending_requests 0.0" in page


def test_metrics_of_the_memory_that_is_served():
    with serving(default_registry()) as client:
        for key in ("a", "b"):
            client.post("/artifacts/lru_cache/execute", json={"operation": "put", "key": key, "value": key * 10})
        client.post("/artifacts/lru_cache/execute", json={"key": "a"})
        client.post("/artifacts/lru_cache/execute", json={"key": "c"})
        client.post("/artifacts/lru_cache/execute", json={"operation": "delete", "key": "b"})
        page = client.get("/metrics").text
    for line in (
        'zerocost_memory_hits_total{artifact="lru_cache"} 1.0',
        'zerocost_memory_misses_total{artifact="lru_cache"} 1.0',
        'zerocost_memory_entries{artifact="lru_cache"} 1.0',
        'zerocost_memory_evictions_total{artifact="lru_cache",cause="explicit"} 1.0',
        'zerocost_stage_seconds_count{artifact="lru_cache",stage="total"} 5.0',
        "zerocost_workers 1.0",
        "zerocost_ready 1.0",
    ):
        assert line in page, line
    assert "process_resident_memory_bytes" in page


def test_services_are_timed_and_counted():
    with serving(default_registry()) as client:
        answer = client.post("/services/tokenizer/count", json={"texts": "a"})
        assert re.fullmatch(r"read;dur=\S+, compute;dur=\S+, write;dur=\S+, copied.*", answer.headers["server-timing"])
        assert client.get("/services/memory/entries/nothing").status_code == 404
        page = client.get("/metrics").text
    assert 'zerocost_stage_seconds_count{artifact="services/tokenizer/count",stage="total"} 1.0' in page
    assert 'zerocost_failures_total{artifact="services/memory/entries"} 1.0' in page


@pytest.mark.parametrize("path", ["/livez", "/artifacts", "/metrics", "/openapi.json", "/", "/nothing", "/v2", "/v2/x"])
def test_every_answer_says_how_long_it_took(serve, path):
    answer = serve(sample_registry()).get(path)
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", answer.headers["server-timing"])
