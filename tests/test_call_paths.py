"""Every artifact over every call path: a right input gives the same bits, a wrong one the same error."""

import json
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import httpx2
import numpy as np
import pytest

from support.contract import context
from support.dtypes import DTYPES, NAMES
from support.input_cases import Refused, agree, cases, outcome
from support.third_party import registry_of_all
from support.typed_json import TYPED, decoded, element, encoded
from zerocost import ArtifactCommunicationService, RemoteArtifact, create_app
from zerocost._kernels import write_json
from zerocost.api.settings import Settings
from zerocost.cli.asgi_transport import ASGITransport
from zerocost.core.safetensors import MEDIA_TYPE, grouped, parse_header, split_values, to_pieces
from zerocost.errors import error_class

REGISTRY = registry_of_all()
CASES = list(cases(REGISTRY))


@pytest.fixture(scope="module")
def expected():
    """The outcomes of calls by name, with which all other call paths are compared."""
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
    with httpx2.Client(base_url="http://127.0.0.1", transport=ASGITransport(app)) as client:
        yield client


NOT_CARRIED = object()
"""What a call path returns for a case that it cannot carry."""


def check(call_path, expected, moved=None, besides=()):
    """Runs every case over one call path, and names all that disagree in one message.

    Args:
        call_path: calls the artifact; see :data:`NOT_CARRIED`.
        expected: what a call by name gives.
        moved: where the call path's pointers begin, by case and refusal.
        besides: artifacts that the call path does not carry. Of every other one it must compare results and refusals.
    """
    compared, wrong = Counter(), []
    for case in CASES:
        wanted = expected[str(case)]
        found = call_path(case)
        if found is NOT_CARRIED:
            continue
        is_refusal = isinstance(wanted, Refused)
        if is_refusal and moved is not None:
            wanted = wanted.moved(moved(case, wanted))
        compared[case.artifact, is_refusal] += 1
        if not agree(found, wanted):
            wrong.append(f"{case}: {found} instead of {wanted}")
    print(f"{compared.total()} of {len(CASES)} cases compared:", dict(compared))
    assert not wrong, "\n".join(wrong[:20])
    for name in REGISTRY:
        count = compared[name, False], compared[name, True]
        assert count == (0, 0) if name in besides else all(count), f"{name}: {count} results and refusals compared"


def test_the_cases_cover_results_and_errors(expected):
    assert len({str(case) for case in CASES}) == len(CASES)
    for name in REGISTRY:
        found = [expected[str(case)] for case in CASES if case.artifact == name]
        assert sum(not isinstance(outcome, Refused) for outcome in found) >= 3, name
        assert sum(isinstance(outcome, Refused) for outcome in found) >= 6, name
    codes = {outcome.code for outcome in expected.values() if isinstance(outcome, Refused)}
    assert codes >= {"missing_input", "undeclared_input", "datatype", "shape", "range", "unknown_operation"}


def test_the_categories_execute_themselves(expected, registry):
    def call_path(case):
        artifact = registry[case.artifact].implementation
        if case.artifact == "mix":
            return NOT_CARRIED  # a plain artifact's execute is its own
        return outcome(lambda: artifact.execute(case.inputs, context(case.artifact)))

    check(call_path, expected, besides=("mix",))


def test_a_chains_initial_input(expected, registry):
    service = ArtifactCommunicationService(registry)

    def call_path(case):
        return outcome(lambda: service.chain_artifacts([{"artifact": case.artifact}], case.inputs))

    check(call_path, expected, lambda case, wanted: "/initial_input")


def test_a_chains_parameters(expected, registry):
    service = ArtifactCommunicationService(registry)

    def call_path(case):
        return outcome(lambda: service.chain_artifacts([{"artifact": case.artifact, "params": case.inputs}], {}))

    def place(case, wanted):
        # A missing input could come with the initial input.
        given = wanted.pointers[0].strip("/") in case.inputs
        return "/initial_input" if wanted.code == "missing_input" and not given else "/pipeline/0/params"

    check(call_path, expected, place)


def test_a_later_step(expected, registry):
    """Inputs from another step are as good as those of a caller."""
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
    def call_path(case):
        body = write_json(encoded(case.inputs))
        headers = {**TYPED, "content-type": "application/json"}
        return answered(client.post(f"/artifacts/{case.artifact}/execute", content=body, headers=headers))

    check(call_path, expected)


def test_safetensors(expected, registry, client):
    def call_path(case):
        tensors, others = split_values(case.inputs)
        body = b"".join(to_pieces(tensors, write_json(others).decode()))
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        response = client.post(f"/artifacts/{case.artifact}/execute", content=body, headers=headers)
        if response.status_code != 200:
            return answered(response)
        data = response.content
        size = int.from_bytes(data[:8], "little")
        slots, metadata = parse_header(json.loads(data[8 : 8 + size]), 2**40, 2**20)
        at, arrays = 8 + size, {}
        for slot in slots:
            arrays[slot.name] = np.frombuffer(data, slot.dtype, slot.nbytes // slot.dtype.itemsize, at).reshape(
                slot.shape
            )
            at += slot.nbytes
        return {**grouped(arrays), **from_json(json.loads(metadata["json"]))}

    check(call_path, expected)


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

    def call_path(case):
        found = outcome(lambda: remotes[case.artifact].execute(case.inputs, context(case.artifact)))
        return from_json(found) if isinstance(found, dict) else found

    check(call_path, expected)


SQUARE = np.array([[0.5, 0.1], [0.25, 1.0]])
UNUSUAL = {
    "not finite in lists": ("mix", {"m": [[float("nan"), float("-inf")]], "v": np.eye(2, 3)}),
    "NumPy's numbers in lists": ("blend", {"attention_matrix": [[np.float32(0.1)]]}),
    "NumPy's booleans in lists": ("mix", {"m": SQUARE, "v": np.eye(2, 3), "mask": [np.True_, np.False_]}),
    "objects": ("blend", {"attention_matrix": SQUARE.astype(object)}),
    "of the other end": ("blend", {"attention_matrix": SQUARE.astype(">f8")}),
    "long": ("blend", {"attention_matrix": SQUARE.astype(np.longdouble)}),
    "complex": ("blend", {"attention_matrix": SQUARE.astype(complex)}),
    "dates": ("blend", {"attention_matrix": SQUARE.astype("M8[s]")}),
    "objects and another mistake": ("blend", {"attention_matrix": SQUARE.astype(object), "weight": 2}),
    "arrays in a list": ("blend", {"attention_matrix": [np.array([1.0])]}),
    "an object in a list": ("blend", {"attention_matrix": [[object()]]}),
    "bytes for an array": ("blend", {"attention_matrix": b"abc"}),
    "a decimal": ("blend", {"attention_matrix": SQUARE, "weight": Decimal("0.5")}),
    "a fraction": ("blend", {"attention_matrix": SQUARE, "weight": Fraction(1, 2)}),
    "a set": ("blend", {"attention_matrix": SQUARE, "window": {1, 2}}),
    "a range": ("blend", {"attention_matrix": SQUARE, "window": range(2)}),
    "bytes": ("blend", {"attention_matrix": SQUARE, "mode": b"scores"}),
    "deep in an object": ("mix", {"m": SQUARE, "v": np.eye(2, 3), "options": {"deep": Decimal(1)}}),
    "a complex number": ("blend", {"attention_matrix": SQUARE, "weight": np.complex64(0.5)}),
    "a date": ("blend", {"attention_matrix": SQUARE, "weight": np.datetime64("2020")}),
    "a name that is no text": ("blend", {"attention_matrix": SQUARE, 1: 2}),
    "a name that is no text, of an array": ("blend", {"attention_matrix": SQUARE, 1: SQUARE}),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_a_remote_artifact_names_inputs_that_no_message_can_carry(registry, client, what):
    name, inputs = UNUSUAL[what]
    remote = RemoteArtifact("http://127.0.0.1", name, transport=client._transport)
    service = ArtifactCommunicationService(registry)
    wanted = outcome(lambda: service.call_artifact(name, inputs, context(name)))
    assert agree(outcome(lambda: remote.execute(inputs, context(name))), wanted), wanted


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("\ud800", "surrogate"),
        ({1}, "set"),
        (b"x", "bytes"),
        (np.zeros(2, ">f8"), "array of >f8"),
        ({"a": np.zeros(2, "f4,f4")}, "array of"),
        ([object()], "object"),
    ],
)
def test_inputs_without_a_wire_form_are_refused_by_name(client, value, words):
    """In the process anything may be stored."""
    remote = RemoteArtifact("http://127.0.0.1", "lru_cache", transport=client._transport)
    found = outcome(lambda: remote.execute({"operation": "put", "key": "a", "value": value}, context("lru_cache")))
    assert (found.code, found.pointers) == ("datatype", ("/value",))
    assert words in found.message


def test_a_chain_over_http(expected, registry, client):
    def call_path(case):
        body = {"pipeline": [{"artifact": case.artifact}], "initial_input": encoded(case.inputs)}
        headers = {**TYPED, "content-type": "application/json"}
        return answered(client.post("/chains/execute", content=write_json(body), headers=headers))

    check(call_path, expected, lambda case, wanted: "/initial_input")


def test_the_open_inference_protocol(expected, registry, client):
    """It carries a message and a status, no class and no pointer; of the outputs, the arrays are compared."""

    def call_path(case):
        tensors, parameters = [], {}
        ports = registry[case.artifact].ports
        for name, value in case.inputs.items():
            if isinstance(value, list) and ports.is_tensor(name):
                return NOT_CARRIED  # tensors have one shape and a datatype here
            if isinstance(value, np.ndarray):
                data = [element(item) for item in value.ravel()]
                tensors.append({"name": name, "datatype": NAMES[value.dtype], "shape": list(value.shape), "data": data})
            elif isinstance(value, str | bool) or (isinstance(value, int | float) and abs(value) < 2**63):
                parameters[name] = value
            else:
                return NOT_CARRIED
        if not tensors:
            return NOT_CARRIED
        wanted = expected[str(case)]
        body = {"inputs": tensors, "parameters": parameters}
        response = client.post(f"/v2/models/{case.artifact}/infer", json=body)
        document = json.loads(response.content)
        if isinstance(wanted, Refused):
            is_told = response.status_code == 400 and wanted.message in document["error"]
            return wanted if is_told else document
        if response.status_code != 200:
            return document
        sent, others = split_values(wanted)
        found = {}
        for output in document["outputs"]:
            if output["name"] in sent:
                data = np.array([float(item) for item in output["data"]], np.float64)
                found[output["name"]] = data.astype(DTYPES[output["datatype"]]).reshape(output["shape"])
        return {**others, **grouped(found)}

    check(call_path, expected, besides=("lru_cache", "shelf"))
