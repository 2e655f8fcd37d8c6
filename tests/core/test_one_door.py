"""Every artifact through every door: the same right input gives the same bits, the same wrong one the same error."""

import json

import httpx2
import numpy as np
import pytest

from api.wire import DTYPES, NAMES, TYPED, decoded, element, encoded
from one_door import Refused, agree, cases, outcome
from strangers import registry_of_all
from zerocost import ArtifactCommunicationService, ExecutionContext, RemoteArtifact, create_app
from zerocost._kernels import write_json
from zerocost.api.settings import Settings
from zerocost.cli.served import AppTransport
from zerocost.core.safetensors import MEDIA_TYPE, grouped, parse_header, split_values, to_pieces
from zerocost.errors import error_class

REGISTRY = registry_of_all()
CASES = list(cases(REGISTRY))


def context(name):
    return ExecutionContext(name, "test", "zero_cost", {})


@pytest.fixture(scope="module")
def expected():
    """What a call by name gives, which all other doors are compared with."""
    service = ArtifactCommunicationService(registry_of_all())
    return {
        str(case): outcome(lambda case=case: service.call_artifact(case.artifact, case.inputs, context(case.artifact)))
        for case in CASES
    }


@pytest.fixture
def registry():
    return registry_of_all()


@pytest.fixture
def client():
    app = create_app(registry_of_all(), Settings())
    with httpx2.Client(base_url="http://127.0.0.1", transport=AppTransport(app)) as client:
        yield client


def check(door, expected, registry, names=None):
    """Every case through one door, all that disagree in one message."""
    wrong = []
    for case in CASES:
        if names is not None and case.artifact not in names:
            continue
        wanted = expected[str(case)]
        found = door(case, wanted)
        if found is not None and not agree(found, wanted):
            wrong.append(f"{case}: {found} instead of {wanted}")
    assert not wrong, "\n".join(wrong[:20])


def test_the_cases_are_worth_comparing(expected):
    assert len({str(case) for case in CASES}) == len(CASES)
    for name in REGISTRY:
        found = [expected[str(case)] for case in CASES if case.artifact == name]
        assert sum(not isinstance(outcome, Refused) for outcome in found) >= 3, name
        assert sum(isinstance(outcome, Refused) for outcome in found) >= 6, name
    codes = {outcome.code for outcome in expected.values() if isinstance(outcome, Refused)}
    assert codes >= {"missing_input", "undeclared_input", "datatype", "shape", "range", "unknown_operation"}


def test_the_categories_execute_themselves(expected, registry):
    def door(case, wanted):
        artifact = registry[case.artifact].implementation
        if case.artifact == "mix":
            return None  # a plain artifact's execute is its own
        return outcome(lambda: artifact.execute(case.inputs, context(case.artifact)))

    check(door, expected, registry)


def test_a_chains_initial_input(expected, registry):
    service = ArtifactCommunicationService(registry)

    def door(case, wanted):
        found = outcome(lambda: service.chain_artifacts([{"artifact": case.artifact}], case.inputs))
        if isinstance(found, Refused) and isinstance(wanted, Refused):
            assert agree(found, wanted.moved("/initial_input")), f"{case}: {found} instead of {wanted}"
            return None
        return found

    check(door, expected, registry)


def test_a_chains_parameters(expected, registry):
    service = ArtifactCommunicationService(registry)

    def door(case, wanted):
        found = outcome(lambda: service.chain_artifacts([{"artifact": case.artifact, "params": case.inputs}], {}))
        if isinstance(found, Refused) and isinstance(wanted, Refused):
            # What is missing could come with the initial input.
            given = wanted.pointers[0].strip("/") in case.inputs
            place = "/initial_input" if wanted.code == "missing_input" and not given else "/pipeline/0/params"
            assert agree(found, wanted.moved(place)), f"{case}: {found} instead of {wanted}"
            return None
        return found

    check(door, expected, registry)


def test_a_later_step(expected, registry):
    """What a step gets from another one is as good as what a caller gives."""
    service = ArtifactCommunicationService(registry)
    pipeline = [{"artifact": "cut"}, {"artifact": "blend", "each": True}]
    matrix = np.random.default_rng(1).random((2, 4))
    result = service.chain_artifacts(pipeline, {"tensor": matrix})
    halves = np.array_split(matrix, 2, axis=-1)[::-1]
    for half, blended in zip(halves, result["processed_attention"], strict=True):
        single = service.call_artifact("blend", {"attention_matrix": half}, context("blend"))
        assert agree(blended, single["processed_attention"])


def refused(document):
    errors = document.get("errors", [])
    kind = error_class(document["code"])
    return Refused(kind, document["code"], tuple(error["pointer"] for error in errors), document["detail"])


def answered(response):
    document = json.loads(response.content)
    if response.status_code == 200:
        return from_json(decoded(document["data"]))
    assert response.status_code == 422, response.text
    return refused(document)


def test_json(expected, registry, client):
    def door(case, wanted):
        body = write_json(encoded(case.inputs)) if not isinstance(case.inputs, bytes) else case.inputs
        headers = {**TYPED, "content-type": "application/json"}
        return answered(client.post(f"/artifacts/{case.artifact}/execute", content=body, headers=headers))

    check(door, expected, registry)


def test_safetensors(expected, registry, client):
    def door(case, wanted):
        tensors, others = split_values(case.inputs)
        body = b"".join(to_pieces(tensors, write_json(others).decode()))
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        response = client.post(f"/artifacts/{case.artifact}/execute", content=body, headers=headers)
        if response.status_code != 200:
            return answered(response)
        data = response.content
        size = int.from_bytes(data[:8], "little")
        slots, text = parse_header(json.loads(data[8 : 8 + size]), 2**40, 2**20)
        at, arrays = 8 + size, {}
        for slot in slots:
            arrays[slot.name] = np.frombuffer(data, slot.dtype, slot.nbytes // slot.dtype.itemsize, at).reshape(
                slot.shape
            )
            at += slot.nbytes
        return {**grouped(arrays), **from_json(json.loads(text))}

    check(door, expected, registry)


def from_json(value):
    """Numbers that JSON writes as text."""
    numbers = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
    if isinstance(value, dict):
        return {name: from_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return numbers.get(value, value) if isinstance(value, str) else value


def test_a_remote_artifact(expected, registry, client):
    remotes = {name: RemoteArtifact("http://127.0.0.1", name, transport=client._transport) for name in registry}

    def door(case, wanted):
        found = outcome(lambda: remotes[case.artifact].execute(case.inputs, context(case.artifact)))
        return from_json(found) if isinstance(found, dict) else found

    check(door, expected, registry)


def test_a_chain_over_http(expected, registry, client):
    def door(case, wanted):
        body = {"pipeline": [{"artifact": case.artifact}], "initial_input": encoded(case.inputs)}
        headers = {**TYPED, "content-type": "application/json"}
        found = answered(client.post("/chains/execute", content=write_json(body), headers=headers))
        if isinstance(found, Refused) and isinstance(wanted, Refused):
            assert agree(found, wanted.moved("/initial_input")), f"{case}: {found} instead of {wanted}"
            return None
        return found

    check(door, expected, registry)


def test_the_open_inference_protocol(expected, registry, client):
    """It carries a message and a status, no class and no pointer."""

    def door(case, wanted):
        tensors, parameters = [], {}
        ports = registry[case.artifact].ports
        for name, value in case.inputs.items():
            if isinstance(value, list) and ports.is_tensor(name):
                return  # tensors have one shape and a datatype here
            if isinstance(value, np.ndarray):
                data = [element(item) for item in value.ravel()]
                tensors.append({"name": name, "datatype": NAMES[value.dtype], "shape": list(value.shape), "data": data})
            elif isinstance(value, str | bool) or (isinstance(value, int | float) and abs(value) < 2**63):
                parameters[name] = value
            else:
                return
        if not tensors:
            return
        body = {"inputs": tensors, "parameters": parameters}
        response = client.post(f"/v2/models/{case.artifact}/infer", json=body)
        if isinstance(wanted, Refused):
            assert response.status_code == 400, f"{case}: {response.text}"
            assert wanted.message in json.loads(response.content)["error"], f"{case}: {response.text}"
            return
        assert response.status_code == 200, f"{case}: {response.text}"
        outputs = {output["name"]: output for output in json.loads(response.content)["outputs"]}
        for name, value in wanted.items():
            if isinstance(value, np.ndarray):
                data = np.array([float(item) for item in outputs[name]["data"]], np.float64)
                array = data.astype(DTYPES[outputs[name]["datatype"]]).reshape(outputs[name]["shape"])
                assert agree(array, value), f"{case}: {name}"
        return

    check(door, expected, registry)
