"""Parameters of the artifacts that services use are validated as those of calls are."""

import asyncio

import jsonschema_rs
import pytest

from support.input_cases import Refused, agree, cases_of, outcome
from support.third_party import Blend, registry_of_all
from zerocost import (
    ArtifactCommunicationService,
    ExecutionContext,
    InvalidInput,
    MemoryService,
    ParallelArtifact,
    SimplifiedModelService,
)


@pytest.fixture(scope="module")
def registry():
    return registry_of_all()


@pytest.fixture(scope="module")
def model(registry):
    return SimplifiedModelService(registry)


def wrong_parameters(registry):
    """Parameters of Blend that a call refuses, with the error."""
    service = ArtifactCommunicationService(registry)
    context = ExecutionContext("blend", "test", "zero_cost", {})
    for case in cases_of("blend", registry["blend"].ports):
        wanted = outcome(lambda case=case: service.call_artifact("blend", case.inputs, context))
        params = {name: value for name, value in case.inputs.items() if name != "attention_matrix"}
        if isinstance(wanted, Refused) and not any("matrix" in where for where in wanted.pointers):
            yield params, wanted


def test_use_artifact(registry, model):
    refused = list(wrong_parameters(registry))
    assert {wanted.code for _, wanted in refused} >= {"undeclared_input", "datatype", "range"}
    for params, wanted in refused:
        assert agree(outcome(lambda params=params: model.use_artifact("blend", **params)), wanted), params
        request = {"artifact_name": "blend", "params": params}
        found = outcome(lambda request=request: asyncio.run(model.post_use_artifact(request)))
        assert agree(found, wanted.moved("/params")), params
        chosen = {"attention": {"artifact": "blend", "params": params}}
        found = outcome(lambda chosen=chosen: model.forward([1, 2], artifacts=chosen))
        assert agree(found, wanted.moved("/artifacts/attention/params")), params


def errors_of(call):
    with pytest.raises(InvalidInput) as refused:
        call()
    return [where for where, _ in refused.value.errors]


def test_errors_about_an_artifact_point_to_its_name(registry, model):
    refused = {"artifact_name": "sparse_attention", "params": {"sparsity_ratio": 0.5}}
    memory = MemoryService(registry)
    assert errors_of(lambda: asyncio.run(memory.post_use_artifact(refused))) == ["/artifact_name"]
    assert errors_of(lambda: memory.use_artifact("sparse_attention")) == ["/artifact_name"]
    registry.register_artifact("transform", Blend(), "transform", replace=True)
    for name in ("transform", "lru_cache"):
        chosen = {"attention": {"artifact": name, "params": {"power": "x"}}}
        assert errors_of(lambda chosen=chosen: model.forward([1, 2], artifacts=chosen)) == ["/artifacts"]


def test_errors_about_what_an_artifact_declares_point_to_an_existing_value(registry, model):
    class Declares(ParallelArtifact):
        def process_parallel(self, tensor, query: float = 1.0):
            return tensor

    registry.register_artifact("declares", Declares(), "parallel", replace=True)
    for params, where in (({}, ""), ({"query": 2.0}, "/params/query")):
        chosen = {"parallel": {"artifact": "declares", "params": params}}
        request = {"artifact_name": "declares", "params": params}
        assert errors_of(lambda request=request: asyncio.run(model.post_use_artifact(request))) == [where]
        found = errors_of(lambda chosen=chosen: model.forward([1, 2], artifacts=chosen))
        assert found == [f"/artifacts/parallel{where}"]


ARTIFACTS = [
    None,
    {},
    {"attention": None},
    {"attention": {"artifact": "blend"}},
    {"attention": {"artifact": "blend", "params": None}},
    {"attention": {"artifact": "blend", "params": {"power": 2}}},
    3,
    [],
    {"other": None},
    {"attention": "blend"},
    {"attention": {}},
    {"attention": {"artifact": 3}},
    {"attention": {"artifact": "blend", "params": [1]}},
    {"attention": {"artifact": "blend", "power": 2}},
]


@pytest.mark.parametrize("artifacts", ARTIFACTS)
def test_the_schema_of_artifacts_says_what_is_taken(model, artifacts):
    schema = type(model).post_forward.schema["properties"]["artifacts"]
    fits = jsonschema_rs.is_valid(schema, artifacts)
    assert fits == (not isinstance(outcome(lambda: model.forward([1, 2], artifacts=artifacts)), Refused))
    assert not any("anyOf" in option for option in schema["anyOf"])


def test_inputs_from_a_service_are_bound(registry):
    seen = []

    class Looks(Blend):
        def execute(self, input_data, context):
            seen.append(input_data)
            return super().execute(input_data, context)

    registry.register_artifact("looks", Looks(), "attention", replace=True)
    SimplifiedModelService(registry).forward([1, 2], artifacts={"attention": {"artifact": "looks"}})
    assert seen
    assert all(inputs.ports is registry["looks"].ports for inputs in seen)


def test_keys_of_services_are_any_object_and_keys_of_callers_are_text(registry):
    memory = MemoryService(registry, "shelf")
    memory.put("a", 1)
    assert memory.get("a") == 1
    shelf = registry["shelf"].implementation
    context = ExecutionContext("shelf", "memory", "zero_cost", {})
    shelf.execute({"operation": "put", "key": ("services", "own"), "value": 2}, context)
    assert shelf.execute({"key": ("services", "own")}, context)["result"] == 2


def test_the_attributes_of_the_specification(registry, model):
    model.use_artifact("blend", power=2)
    assert model.active_artifacts["attention"]["artifact"] is registry["blend"].implementation
    assert model.active_artifacts["attention"]["params"] == {"power": 2}
    model.stop_artifact("attention")
    assert "attention" not in model.active_artifacts
