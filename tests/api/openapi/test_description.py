"""The OpenAPI description: every route is in it, every example works, and schemathesis finds nothing that breaks it.

By hand and longer: ``zerocost serve`` and ``schemathesis --config-file tests/api/openapi/schemathesis.toml run
--checks all --max-time 1800 http://127.0.0.1:8000/openapi.json``.
"""

import re
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from support.samples import echo_registry, sample_registry
from support.servers import serving
from zerocost import SimplifiedModelService, create_app, default_registry
from zerocost.services.endpoints import Endpoint

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
COMPATIBILITY = re.compile(r"trace/setting|logging|sharedmemory|/versions/|/load$|/unload$|^/v2/$")
"""Routes for clients that expect them: what they do is nothing, or the same as a route that is described."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("settings", [{}, {"admin_token": "secret"}], ids=["open", "token"])
def test_schemathesis_finds_nothing(settings, tmp_path):
    with serving(default_registry(), **settings) as client:
        token = ["-H", "Authorization: Bearer secret"] if settings else []
        program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
        phases = "examples,coverage,fuzzing,stateful" if not settings else "examples,coverage"
        bounds = ["--phases", phases, "--max-examples", "4", "--seed", "20261124", "--no-shrink"]
        url = f"{client.base_url}/openapi.json"
        run = subprocess.run(
            [*program, "--checks", "all", *bounds, *token, "--no-color", url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
        # All operations are tested.
        selected, tested = re.search(r"Selected: (\d+)/\d+\s+Tested: (\d+)", run.stdout).groups()
        assert selected == tested
        assert client.get("/livez").status_code == 200


def test_every_route_is_described():
    app = create_app(default_registry())
    described = default_description()["paths"]
    routes = app.routes
    assert len(routes) > 20
    for route in routes:
        path = re.sub(r":path}", "}", route.path)
        if COMPATIBILITY.search(path):
            continue
        path = path.replace("{name}", "lru_cache")
        assert path in described, path
        methods = {method.lower() for method in route.methods} - {"head"}
        assert methods <= described[path].keys(), path


def default_description():
    with serving(default_registry()) as client:
        return client.get("/openapi.json").json()


def texts_of(value):
    """Every summary and description of a document."""
    for item in value if isinstance(value, list) else value.values():
        if isinstance(item, list | dict):
            yield from texts_of(item)
    if isinstance(value, dict):
        yield from (value[key] for key in ("summary", "description") if isinstance(value.get(key), str))


def test_summaries_and_descriptions_hold_over_http():
    texts = list(texts_of(default_description()))
    assert len(texts) > 100
    for text in texts:
        assert not re.search(r":[a-z]+:`|``when``|the object\)", text), text


def test_the_summary_of_an_overridden_method_is_that_of_its_service():
    described = default_description()["paths"]
    memory, model = (described[f"/services/{name}/stop_artifact"]["post"]["summary"] for name in ("memory", "model"))
    assert memory.startswith("Returns to the first artifact")
    assert model.startswith("Uses no artifact")


class Shouting(SimplifiedModelService):
    def shout(self, text: str) -> list[str]:
        """Says it aloud."""
        return [text.upper()]

    post_shout = Endpoint(shout)


def test_the_methods_of_a_service_of_ones_own_are_described():
    registry = default_registry()
    with TestClient(
        create_app(registry, model=Shouting(registry)), base_url="http://127.0.0.1", client=("127.0.0.1", 1)
    ) as client:
        shout = client.get("/openapi.json").json()["paths"]["/services/model/shout"]["post"]
        answer = client.post("/services/model/shout", json={"text": "a"})
    assert answer.json() == {"output": ["A"]}
    assert shout["summary"] == "Says it aloud."
    schema = shout["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["properties"]["output"] == {"type": "array", "items": {"type": "string"}}
    assert "example" not in shout["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize("make", [default_registry, echo_registry])
def test_every_example_works(make):
    with serving(make(), admin_token="a") as client:
        client.headers["authorization"] = "Bearer a"
        description = client.get("/openapi.json").json()
        identifiers = [
            operation["operationId"]
            for item in description["paths"].values()
            for operation in item.values()
            if isinstance(operation, dict)
        ]
        assert len(identifiers) == len(set(identifiers)) > 20
        for path, item in description["paths"].items():
            if "post" not in item:
                continue
            body = item["post"]["requestBody"]["content"]["application/json"]
            assert "example" in body or path.endswith("/use_artifact"), path
            if "example" in body and not path.endswith("memory/get"):
                answer = client.post(path, json=body["example"])
                assert answer.status_code == 200, (path, answer.text)
                stages = answer.headers["server-timing"]
                assert "copied" in stages or path == "/v2/repository/index", path


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
        execute = description["paths"]["/chains/execute"]["post"]
        chain = execute["requestBody"]["content"]["application/json"]["schema"]
        assert jsonschema_rs.is_valid(chain, {"pipeline": [{"artifact": next(iter(registry))}]})
