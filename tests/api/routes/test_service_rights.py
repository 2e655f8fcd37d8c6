"""Who may change which artifacts the services use."""

import numpy as np
import pytest

from support.service_registry import ask
from zerocost import (
    SimplifiedModelService,
)


def test_changing_the_server_needs_the_admin_token(serve, registry, monkeypatch):
    client = serve(registry, token="use", admin_token="admin")
    use, admin = {"authorization": "Bearer use"}, {"authorization": "Bearer admin"}
    change = {"artifact_name": "first", "params": {"strength": 0.5}}
    assert ask(client, "model/use_artifact", change, **use).status_code == 403
    assert ask(client, "model/active_artifacts", {}, **use).json() == {"output": {}}
    active = {"attention": {"artifact": "first", "params": {"strength": 0.5}}}
    assert ask(client, "model/use_artifact", change, **admin).json() == {"output": active}
    pooled = ask(client, "model/forward", {"input_ids": [1, 70, 2]}, **use).json()["output"]["pooled"]
    wanted = SimplifiedModelService(registry).forward([1, 70, 2], artifacts=active).pooled
    np.testing.assert_array_equal(np.float32(pooled), wanted)
    assert ask(client, "model/use_artifact", {}, **admin).status_code == 422
    assert ask(client, "model/stop_artifact", {"interface": "attention"}, **admin).json() == {"output": {}}
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert ask(client, "model/use_artifact", change, **admin).status_code == 409


@pytest.mark.parametrize("service", ["tokenizer", "memory"])
def test_the_same_rules_hold_for_the_other_services(serve, registry, service, monkeypatch):
    client = serve(registry, token="use", admin_token="admin")
    use, admin = {"authorization": "Bearer use"}, {"authorization": "Bearer admin"}
    at_first = {} if service == "tokenizer" else {"memory": {"artifact": "lru_cache", "params": {}}}
    assert ask(client, f"{service}/active_artifacts", {}, **use).json() == {"output": at_first}
    change = {"artifact_name": "dict"}
    assert ask(client, f"{service}/use_artifact", change, **use).status_code == 403
    active = {"memory": {"artifact": "dict", "params": {}}}
    assert ask(client, f"{service}/use_artifact", change, **admin).json() == {"output": active}
    if service == "tokenizer":
        ask(client, "tokenizer/encode", {"texts": "a"}, **use)
    else:
        ask(client, "memory/put", {"key": "a", "value": 1}, **use)
    assert len(registry["dict"].implementation.entries) == 1
    assert ask(client, f"{service}/active_artifacts", {}, **use).json() == {"output": active}
    assert ask(client, f"{service}/use_artifact", {"artifact_name": "first"}, **admin).status_code == 422
    stop = {"interface": "memory"}
    assert ask(client, f"{service}/stop_artifact", stop, **use).status_code == 403
    assert ask(client, f"{service}/stop_artifact", {"interface": "attention"}, **admin).status_code == 422
    assert ask(client, f"{service}/stop_artifact", stop, **admin).json() == {"output": at_first}
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    for path, body in [("use_artifact", change), ("stop_artifact", stop)]:
        assert ask(client, f"{service}/{path}", body, **admin).status_code == 409


def test_an_administrator_cannot_change_one_of_several(serve):
    client = serve(admin_token="a", processes=2, model_control=True)
    client.headers["authorization"] = "Bearer a"
    for path, body in (
        ("/services/model/use_artifact", {"artifact_name": "sparse_attention"}),
        ("/services/model/stop_artifact", {"interface": "attention"}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "several_workers")
    assert client.post("/v2/repository/models/lru_cache/unload", json={}).status_code == 409
