"""Chains over HTTP: the text of a tensor is scanned once and parsed once, and plans are shared."""

import json

import numpy as np
import pytest

from support.samples import sample_registry
from zerocost.api.artifact_api import ArtifactRESTAPI
from zerocost.api.routes.chains import ChainRequest
from zerocost.api.wire import json as json_body

MATRIX = np.random.default_rng(0).random((40, 50))
STEPS = [{"artifact": "scale", "params": {"factor": 3}}, {"artifact": "pieces"}]


@pytest.fixture
def looked_at(monkeypatch):
    """The bytes that each function was handed, for those that got the matrix."""
    seen = []

    def noting(name):
        function = getattr(json_body, name)

        def note(data, *arguments, **keywords):
            if len(data) > MATRIX.size:
                seen.append(name)
            return function(data, *arguments, **keywords)

        monkeypatch.setattr(json_body, name, note)

    noting("json_spans")
    noting("read_json")
    return seen


@pytest.mark.parametrize("order", [1, -1])
def test_one_structural_pass_and_one_reading(looked_at, order):
    api = ArtifactRESTAPI(sample_registry())
    body = {"pipeline": STEPS, "initial_input": {"attention_matrix": MATRIX.tolist()}}
    text = json.dumps(dict(list(body.items())[::order])).encode()
    result, trace = ChainRequest(text, api).run({})
    assert trace is None
    assert np.array_equal(np.concatenate(result["result"], axis=-1), MATRIX * 3)
    assert looked_at == ["json_spans", "read_json"]


def test_plans_are_shared_by_requests(monkeypatch):
    api = ArtifactRESTAPI(sample_registry())
    body = json.dumps({"pipeline": STEPS, "initial_input": {"attention_matrix": MATRIX.tolist()}}).encode()
    ChainRequest(body, api).run({})
    known = len(api.plans)
    assert known == 2  # with the names that were given, and with all that could be
    ChainRequest(body, api).run({})
    assert len(api.plans) == known
