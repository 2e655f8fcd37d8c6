"""Metrics, timings, the OpenAPI description and its page."""

import json
import re

import jsonschema_rs
import pytest

from api.conftest import serving
from api.samples import sample_registry
from zerocost import default_registry

MATRIX = [[1.0, 2.0], [3.0, 4.0]]


@pytest.fixture(scope="module")
def client():
    with serving(sample_registry()) as client:
        yield client


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


@pytest.mark.parametrize("make", [sample_registry, default_registry])
def test_the_description_is_made_of_the_artifacts_schemas(make):
    registry = make()
    with serving(registry) as client:
        description = client.get("/openapi.json").json()
        assert description["openapi"] == "3.1.0"
        for name in registry:
            post = description["paths"][f"/artifacts/{name}/execute"]["post"]
            body = post["requestBody"]["content"]["application/json"]
            schema = {**body["schema"], "components": description["components"]}
            validator = jsonschema_rs.Draft202012Validator(schema)
            assert not any(key.startswith("x-") for key in body["schema"])
            example = body.get("example")
            assert example is not None, f"{name} has no example"
            assert validator.is_valid(example), list(validator.iter_errors(example))
            answer = client.post(f"/artifacts/{name}/execute", json=example)
            assert answer.status_code == 200, answer.text
        chain = description["components"]["schemas"]["Chain"]
        assert jsonschema_rs.is_valid(chain, {"pipeline": [{"artifact": "scale"}]})


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page.text)
    assert json.dumps(page.text)
