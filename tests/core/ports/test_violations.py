"""Violations of a schema: their pointers and messages."""

import ml_dtypes
import numpy as np
import pytest

from zerocost import (
    DatatypeError,
    InvalidInput,
    InvalidSchema,
    MissingInput,
    RangeError,
    ShapeError,
    UndeclaredInput,
)
from zerocost.core.ports import Ports, pointer
from zerocost.errors import merged

SCHEMA = {
    "type": "object",
    "properties": {
        "m": {"x-tensor": {"datatypes": ["FP32", "FP64"], "shape": ["...", "q", "k"]}},
        "v": {"x-tensor": {"datatypes": ["FP32", "FP64"], "shape": ["k", 3]}},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "pair": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "call": {"x-in-process": True},
    },
    "required": ["m"],
}


@pytest.fixture
def ports():
    return Ports(SCHEMA)


def errors(ports, values, *, partial=False):
    """The violations of these inputs."""
    try:
        (ports.bind_partial if partial else ports.bind)(values)
    except InvalidInput as refused:
        return refused.errors
    return []


def floats(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    "values",
    [
        {"m": floats(2, 3)},
        {"m": floats(5, 2, 3), "v": floats(3, 3), "ratio": np.float32(0.5)},
        {"m": [[1, 2], [3, 4]], "ratio": 0, "pair": (1, 2)},
        {"m": floats(0, 3), "pair": np.array([1, 2])},
        {"m": memoryview(floats(2, 2)), "call": print},
    ],
)
def test_values_that_fit_the_schema(ports, values):
    assert errors(ports, values) == []


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({}, "/m", "m required"),
        ({"m": None}, "/m", "m required"),
        ({"m": floats(2)}, "/m", "m: shape [2] was given, [..., q, k] is needed"),
        ({"m": floats(2, 3), "v": floats(4, 3)}, "/v", "[k, 3] is needed with k = 3 as in m"),
        ({"m": floats(2, 3), "v": floats(3, 4)}, "/v", "v: shape [3, 4] was given, [k, 3] is needed"),
        ({"m": floats(2, 3), "v": floats(1, 3, 3)}, "/v", "v: shape [1, 3, 3] was given"),
        ({"m": np.ones((2, 2), np.int64)}, "/m", "m: dtype int64 was given, float32, float64 is allowed; convert"),
        ({"m": np.ones((2, 2), ml_dtypes.bfloat16)}, "/m", "m: dtype bfloat16 was given"),
        ({"m": [[1, 2], [3]]}, "/m", "m: ragged lists were given"),
        ({"m": [["a"]]}, "/m", "m: lists of text were given"),
        ({"m": [[None]]}, "/m", "m: lists of NoneType were given"),
        ({"m": "text"}, "/m", "m: str was given"),
        ({"m": floats(2, 2), "ratio": 1}, "/ratio", "ratio: 1 is greater than or equal to the maximum of 1"),
        ({"m": floats(2, 2), "ratio": True}, "/ratio", 'ratio: true is not of type "number"'),
        ({"m": floats(2, 2), "pair": [1]}, "/pair", "pair: [1] has less than 2 items"),
        ({"m": floats(2, 2), "pair": [1, "b"]}, "/pair/1", 'pair: "b" is not of type "integer"'),
        ({"m": floats(2, 2), "ratio": print}, "/ratio", "ratio: builtin_function_or_method was given"),
        ({"m": floats(2, 2), "rato": 1}, "/rato", "'rato' is not an input; did you mean 'ratio'?"),
        ({"m": floats(2, 2), "a/b~c": 1}, "/a~1b~0c", "'a/b~c' is not an input"),
    ],
)
def test_values_that_break_the_schema(ports, values, where, message):
    [(found, text)] = errors(ports, values)
    assert found == where
    assert message in text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, MissingInput),
        ({"m": floats(2, 2), "rato": 1}, UndeclaredInput),
        ({"m": floats(2)}, ShapeError),
        ({"m": np.ones((2, 2), np.int8)}, DatatypeError),
        ({"m": floats(2, 2), "ratio": 1}, RangeError),
        ({"m": floats(2, 2), "ratio": "x"}, DatatypeError),
        ({"m": floats(2, 2), "pair": [1.0, 2]}, DatatypeError),
    ],
)
def test_a_violation_raises_the_exception_of_a_call_in_the_process(ports, values, kind):
    with pytest.raises(kind) as caught:
        ports.bind(values)
    problem = caught.value
    assert type(problem) is kind
    assert merged([problem]) is problem
    assert type(merged([problem, MissingInput("x required", "x"), RangeError("y", "y")])) is InvalidInput


@pytest.mark.parametrize("value", [2.0, [1, 2.0]])
def test_a_whole_float_is_not_an_integer(value):
    schema = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}
    ports = Ports({"properties": {"p": schema}})
    assert errors(ports, {"p": value}) == [("/p", f"p: {value!r} was given, a whole number is needed")]
    assert errors(ports, {"p": 2}) == errors(ports, {"p": [1, 2]}) == []


def test_alternatives_are_listed_in_the_message():
    window = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
    ports = Ports({"properties": {"w": window, "e": {"enum": ["a", "b", "c", "d", "e"]}}})
    assert errors(ports, {"w": 0}) == [("/w", "w: 0 was given, a whole number at least 1 or null is allowed")]
    assert errors(ports, {"e": "f"}) == [("/e", 'e: "f" was given, "a", "b", "c", "d", "e" is allowed')]


def test_several_errors_are_all_named(ports):
    assert {where for where, _ in errors(ports, {"ratio": 2, "pair": 1, "x": 0})} == {"/m", "/ratio", "/pair", "/x"}


def test_parameters_alone_may_lack_the_required(ports):
    assert errors(ports, {"ratio": 0.5}, partial=True) == []
    assert errors(ports, {"ratio": 2}, partial=True) != []


def test_the_published_schema_leaves_out_what_is_in_process_only(ports):
    assert "call" not in ports.published["properties"]
    assert set(SCHEMA["properties"]) - set(ports.published["properties"]) == {"call"}


def test_conditional_requirements_see_opaque_values():
    ports = Ports(
        {
            "properties": {"op": {"enum": ["get", "put"]}, "value": {}},
            "allOf": [
                {"if": {"properties": {"op": {"const": "put"}}, "required": ["op"]}, "then": {"required": ["value"]}}
            ],
        }
    )
    assert errors(ports, {"op": "get"}) == []
    assert errors(ports, {"op": "put", "value": object()}) == []
    assert errors(ports, {"op": "put"}) != []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"x-tensor": {"datatypes": ["FP8"]}}}}, "x-tensor datatypes"),
        ({"properties": {"a": {"x-tensor": {"shape": ["n", "..."]}}}}, "'...' only in front"),
        ({"properties": {"a": {"x-tensor": {"dtype": "FP32"}}}}, "at most 'datatypes' and 'shape'"),
        ({"properties": {"a": {"x-tensor": {}, "minItems": 1}}}, "minItems beside x-tensor"),
        ({"properties": {"a": {}}, "x-outputs": {"b": {}}, "x-main": {"output": "c"}}, "x-main names the output 'c'"),
        ({"properties": {"a": {"$ref": "https://example.com/schema"}}}, "only references within the schema"),
        ({"required": "a"}, "'required' must be a list of names"),
        ({"properties": []}, "'properties' must be an object"),
        ({"properties": {"a": {"pattern": "("}}}, "regex"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "is needed"),
    ],
)
def test_an_invalid_schema_is_refused(schema, message):
    with pytest.raises(InvalidSchema) as caught:
        Ports(schema).check_schema()
    assert message in str(caught.value)


def test_pointers_are_escaped():
    assert pointer("a/b", 0, "c~d") == "/a~1b/0/c~0d"
