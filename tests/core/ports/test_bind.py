"""Binding inputs: what the artifact gets, what is accepted unchanged, and what is refused."""

import copy
import gc
import math
import pickle
import sys
import weakref
from typing import Annotated

import jsonschema_rs
import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import zerocost
from support.contract import context
from support.third_party import Blend, Mix, Threshold
from zerocost import (
    Artifact,
    ArtifactRegistry,
    AttentionArtifact,
    DatatypeError,
    InvalidInput,
    InvalidSchema,
    LimitExceeded,
    MissingInput,
    RangeError,
    UndeclaredInput,
    default_registry,
)
from zerocost.core.limits import Limits
from zerocost.core.ports import Bound, Ports
from zerocost.core.ports.checks import plain_check
from zerocost.core.ports.parameters import from_text

LIMITS = Limits(elements=1000, fan_out=10, parts=10, operations=10_000)


def matrix(*shape, dtype=np.float64):
    return np.ones(shape, dtype)


class Looks(AttentionArtifact):
    """Records its inputs."""

    def __init__(self):
        self.seen = []

    def execute(self, input_data, context):
        self.seen.append(input_data)
        return super().execute(input_data, context)

    def process_attention(self, attention_matrix, weight: float = 0.5, extra=None):
        return attention_matrix


# Bound inputs


def test_fitting_inputs_are_passed_on_and_the_caller_s_dict_is_unchanged():
    artifact = Blend()
    given = {"attention_matrix": matrix(2, 2), "weight": 0.5}
    before = dict(given)
    bound = artifact._ports.bind(given)
    assert type(bound) is Bound
    assert bound is not given
    assert given == before
    assert all(bound[name] is value for name, value in given.items())
    assert bound.ports is artifact._ports
    assert artifact._ports.bind(bound) is bound


def test_a_list_is_converted_once_and_the_artifact_gets_that_array():
    registry = ArtifactRegistry()
    artifact = Looks()
    spec = registry.register_artifact("looks", artifact, "attention")
    given = {"attention_matrix": [[1.0, 2.0]]}
    result = zerocost.ArtifactCommunicationService(registry).call_artifact("looks", given, context())
    assert given["attention_matrix"] == [[1.0, 2.0]]
    assert result["processed_attention"] is artifact.seen[0]["attention_matrix"]
    assert artifact.seen[0].ports is spec.ports is artifact._ports


@pytest.mark.parametrize(
    "change",
    [
        lambda bound: bound.update(weight=7),
        lambda bound: bound.__setitem__("weight", 7),
        lambda bound: bound.setdefault("weight", 7),
        lambda bound: bound.__ior__({"weight": 7}),
        lambda bound: bound.pop("attention_matrix"),
        lambda bound: bound.popitem(),
        lambda bound: bound.clear(),
        lambda bound: bound.__delitem__("attention_matrix"),
    ],
)
def test_changed_inputs_are_bound_anew(change):
    ports = Blend()._ports
    bound = ports.bind({"attention_matrix": matrix(2, 2)})
    change(bound)
    with pytest.raises(InvalidInput):
        ports.bind(bound)


def test_inputs_bound_by_another_artifact_are_bound_anew():
    bound = Looks()._ports.bind({"attention_matrix": matrix(2, 2), "weight": 7.0})
    with pytest.raises(RangeError, match="weight"):
        Blend()._ports.bind(bound)


def test_numpys_scalars_are_the_numbers_that_they_print_as():
    ports = Mix()._ports
    given = {"m": matrix(2, 2), "v": matrix(2, 3)}
    for value, number in (
        (np.float32(0.1), 0.1),
        (np.float16(0.1), 0.1),
        (ml_dtypes.bfloat16(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int8(3), 3),
    ):
        found = ports.bind({**given, "scale": value})["scale"]
        assert (type(found), found) == (type(number), number)
    opaque = np.float32(0.1)
    assert Ports({"properties": {"x": {}}}).bind({"x": opaque})["x"] is opaque


def test_unbound_inputs_are_bound():
    with pytest.raises(RangeError):
        Blend()._ports.bind(Bound(attention_matrix=matrix(2, 2), weight=2))


def test_a_copy_of_bound_inputs_is_a_plain_dict():
    bound = Blend()._ports.bind({"attention_matrix": matrix(2, 2)})
    for other in (bound.copy(), dict(bound), {**bound}, copy.copy(bound), pickle.loads(pickle.dumps(bound))):
        assert type(other) is dict
        assert other.keys() == bound.keys()


class Labelled(np.ndarray):
    """An array that is more than an array."""


def test_subclasses_of_arrays_pass_where_anything_does_and_are_views_elsewhere():
    ports = Ports({"properties": {"any": {"x-tensor": {}}, "floats": {"x-tensor": {"datatypes": ["FP64"]}}}})
    labelled = matrix(2).view(Labelled)
    bound = ports.bind({"any": labelled, "floats": labelled})
    assert bound["any"] is labelled
    assert type(bound["floats"]) is np.ndarray
    assert np.shares_memory(bound["floats"], labelled)


@pytest.mark.parametrize("tensor", [{}, {"datatypes": ["FP64"]}, {"shape": ["n"]}])
def test_masked_arrays_are_refused_at_every_tensor(tensor):
    ports = Ports({"properties": {"t": {"x-tensor": tensor}, "other": {}}})
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    with pytest.raises(DatatypeError, match=r"array.filled\("):
        ports.bind({"t": masked})
    assert ports.bind({"other": masked})["other"] is masked


def test_inputs_not_declared_as_tensors_arrive_unchanged():
    value = [[1.0], object()]
    assert Ports({"properties": {"x": {}}}).bind({"x": value})["x"] is value
    assert Ports({}).bind({"x": value})["x"] is value


def test_bfloat16_and_strides_are_accepted_as_they_are():
    ports = default_registry()["sparse_attention"].ports
    for array in (
        matrix(2, 2, dtype=ml_dtypes.bfloat16),
        matrix(4, 4)[::2, ::-1],
        np.broadcast_to(1.0, (3, 3)),
        matrix(2, 3).T,
        np.zeros((0, 3)),
    ):
        assert ports.bind({"attention_matrix": array})["attention_matrix"] is array
        assert ports._accepts({"attention_matrix": array})


@pytest.mark.parametrize("values", [None, [1], "text", [("attention_matrix", 1)], 3])
def test_inputs_that_are_not_a_dict_are_refused(values):
    with pytest.raises(DatatypeError, match=r"input_data: .* was given, a dict is needed"):
        Blend()._ports.bind(values)


@pytest.mark.parametrize(
    "artifact", [Blend(), type("Open", (Artifact,), {"get_schema": lambda self: {}, "execute": dict})()]
)
def test_names_are_text(artifact):
    with pytest.raises(UndeclaredInput, match="'3' is not an input"):
        artifact._ports.bind({"attention_matrix": matrix(2, 2), 3: 4})


# Over a network


def test_limits_and_what_stays_in_the_process():
    registry = default_registry()
    tensor, sparse = registry["tensor_parallel"].ports, registry["sparse_attention"].ports
    with pytest.raises(RangeError, match="num_splits: 11 was given, at most 10"):
        tensor.bind({"tensor": matrix(4), "num_splits": 11}, LIMITS)
    with pytest.raises(LimitExceeded, match="the outputs would have"):
        tensor.bind({"tensor": matrix(1000)}, LIMITS)
    fused = registry["scaled_dot_product_attention"].ports
    with pytest.raises(LimitExceeded, match="this would take"):
        fused.bind({name: matrix(60, 4) for name in ("query", "key", "value")}, LIMITS)
    inputs = {"attention_matrix": matrix(2, 2), "out": matrix(2, 2)}
    assert sparse.bind(inputs)["out"] is inputs["out"]
    with pytest.raises(UndeclaredInput, match="in the same process only") as caught:
        sparse.bind(inputs, LIMITS)
    assert [where for where, _ in caught.value.errors] == ["/out"]


def test_keys_are_any_object_in_the_process_and_text_over_http():
    ports = default_registry()["lru_cache"].ports
    for key in (("a", "b"), 3, None, frozenset()):
        assert ports.bind({"key": key})["key"] is key
        with pytest.raises(DatatypeError, match="text is needed"):
            ports.bind({"key": key}, LIMITS)
    with pytest.raises(DatatypeError, match="a hashable object is needed"):
        ports.bind({"key": []})


def test_numbers_that_json_cannot_write():
    ports = Ports(
        {
            "properties": {
                "a": {"type": ["number", "null"]},
                "b": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
                "text": {"type": "string"},
                "both": {"type": ["number", "string"]},
                "whole": {"type": "integer"},
            }
        }
    )
    values = {"a": "-Infinity", "b": ["Infinity", 1, None], "text": "NaN", "both": "NaN"}
    assert ports.bind(values, LIMITS) == {"a": -math.inf, "b": [math.inf, 1, None], "text": "NaN", "both": "NaN"}
    assert math.isnan(ports.bind({"a": "NaN"}, LIMITS)["a"])
    for refused, limits in (({"a": "NaN"}, None), ({"whole": "NaN"}, LIMITS), ({"b": ["nan"]}, LIMITS)):
        with pytest.raises(InvalidInput):
            ports.bind(refused, limits)
    assert from_text([1, "NaN"], {}) == [1, "NaN"]


# Refusals beyond the schema


def test_overrides_see_bound_values_on_every_call_path():
    seen = []

    class Asks(Blend):
        def validate_input(self, input_data):
            seen.append(type(input_data["attention_matrix"]))
            return super().validate_input(input_data) and bool(input_data["attention_matrix"].sum() > 0)

    artifact = Asks()
    registry = ArtifactRegistry()
    registry.register_artifact("asks", artifact, "attention")
    service = zerocost.ArtifactCommunicationService(registry)
    api = zerocost.ArtifactRESTAPI(registry)
    calls = [
        lambda inputs: artifact.execute(inputs, context()),
        lambda inputs: service.call_artifact("asks", inputs, context()),
        lambda inputs: service.chain_artifacts([{"artifact": "asks"}], inputs),
        lambda inputs: api.run("asks", inputs),
    ]
    for call in calls:
        call({"attention_matrix": [[1.0]]})
        with pytest.raises(InvalidInput, match="Asks does not take this input"):
            call({"attention_matrix": [[-1.0]]})
        with pytest.raises(zerocost.ShapeError):
            call({"attention_matrix": [[1.0, 2.0]]})
    assert set(seen) == {np.ndarray}


def test_an_override_that_asks_the_base_class_first():
    artifact = Threshold(3.0)
    assert artifact.input_errors({"attention_matrix": matrix(1, 1, 1, 1, 1)}) == [
        ("/attention_matrix", "more than four axes")
    ]
    with pytest.raises(InvalidInput, match="more than four axes"):
        artifact.execute({"attention_matrix": matrix(1, 1, 1, 1, 1)}, context())
    assert not artifact.validate_input({"attention_matrix": 3})


def test_ports_do_not_hold_their_artifact():
    artifact = Mix()
    artifact._ports.bind({"m": matrix(1, 1), "v": matrix(1, 3)})
    gone = weakref.ref(artifact)
    gc.disable()
    try:
        del artifact
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda artifact: pickle.loads(pickle.dumps(artifact))])
def test_a_copy_has_ports_of_its_own(copied):
    artifact = Threshold(3.0)
    artifact.execute({"attention_matrix": matrix(1)}, context())
    other = copied(artifact)
    other.highest = 5.0
    assert other.execute({"attention_matrix": matrix(1), "threshold": 4.0}, context())
    with pytest.raises(RangeError):
        artifact.execute({"attention_matrix": matrix(1), "threshold": 4.0}, context())
    with pytest.raises(InvalidInput, match="more than four axes"):
        other.execute({"attention_matrix": matrix(1, 1, 1, 1, 1)}, context())


def test_ports_alone_can_be_pickled():
    ports = Blend()._ports
    with pytest.raises(RangeError):
        pickle.loads(pickle.dumps(ports)).bind({"attention_matrix": matrix(1, 1), "weight": 2})


# Schemas


def test_defaults_are_checked_at_registration_and_never_filled_in():
    class Wrong(AttentionArtifact):
        """Its default is not allowed."""

        def process_attention(self, attention_matrix, weight: Annotated[float, {"maximum": 1}] = 2.0):
            return attention_matrix

    with pytest.raises(InvalidSchema, match=r"the default of weight: 2\.0 is greater"):
        ArtifactRegistry().register_artifact("wrong", Wrong(), "attention")
    assert "weight" not in Blend()._ports.bind({"attention_matrix": matrix(1, 1)})


def test_none_as_a_default_may_be_given():
    class Optional(AttentionArtifact):
        """Says int and means int or None, as many do."""

        def process_attention(
            self,
            attention_matrix,
            size: int = None,  # noqa: RUF013 - what is tested
            high: Annotated[int, {"minimum": 1}] = None,  # noqa: RUF013
            other: float | None = None,
        ):
            return attention_matrix

    ArtifactRegistry().register_artifact("optional", Optional(), "attention")
    given = {"attention_matrix": matrix(1), "size": None, "high": None, "other": None}
    assert Optional().execute(given, context())
    with pytest.raises(RangeError, match="high"):
        Optional().execute({"attention_matrix": matrix(1), "high": 0}, context())


# Plain checks against JSON Schema

NUMBERS = st.integers(-5, 5) | st.sampled_from([0.5, -0.5, 2.0, 1e300, 2**53 + 1, -(2**70)])
BOUNDS = st.dictionaries(
    st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), NUMBERS, max_size=2
)
SCALARS = (
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | st.text("abé", max_size=4)
)
PLAIN = st.one_of(
    st.builds(lambda kind, bounds: {"type": kind, **bounds}, st.sampled_from(["number", "integer"]), BOUNDS),
    st.builds(
        lambda low, high: {"type": "string", "minLength": low, "maxLength": high}, st.integers(0, 2), st.integers(0, 4)
    ),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "string"}, {"type": "object"}, {"type": "array"}, True, {}]
    ),
    st.builds(lambda options: {"enum": options}, st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda option: {"const": option}, SCALARS),
    st.builds(
        lambda options, kind: {"enum": options, "type": kind},
        st.lists(SCALARS, min_size=1),
        st.sampled_from(["string", "number"]),
    ),
    st.builds(
        lambda kinds, bounds: {"type": kinds, **bounds},
        st.lists(st.sampled_from(["number", "integer", "null", "string", "boolean"]), min_size=1, unique=True),
        BOUNDS,
    ),
)
SUBSCHEMAS = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda items, low, high: {"type": "array", "items": items, "minItems": low, "maxItems": high},
            inner,
            st.integers(0, 2),
            st.integers(0, 3),
        ),
        st.builds(
            lambda first, items: {"type": "array", "prefixItems": first, "items": items},
            st.lists(inner, min_size=1, max_size=2),
            inner,
        ),
    ),
    max_leaves=4,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=400)
@given(SUBSCHEMAS, VALUES)
def test_plain_checks_accept_what_json_schema_does(subschema, value):
    check = plain_check(subschema)
    assert check is not None
    valid = jsonschema_rs.Draft202012Validator(subschema).is_valid(value)
    if check(value):
        assert valid
    accepted = Ports({"properties": {"p": subschema}}).errors({"p": value}) == []
    if accepted:
        assert valid
    elif valid:
        # JSON Schema takes 2.0 for an integer; a signature that says int does not.
        assert "integer" in str(subschema)
        assert holds_whole_float(value)


def holds_whole_float(value):
    if isinstance(value, list):
        return any(map(holds_whole_float, value))
    if isinstance(value, dict):
        return any(map(holds_whole_float, value.values()))
    return isinstance(value, float) and value.is_integer()


@example({"type": ["number"], "maximum": sys.float_info.max}, math.inf)
@example({"type": ["number"], "exclusiveMinimum": -sys.float_info.max}, -math.inf)
@example({"type": ["number"], "enum": [1, 2]}, -math.inf)
@given(PLAIN, st.sampled_from([math.inf, -math.inf, math.nan]))
def test_infinity_and_nan_are_numbers_and_nan_is_within_no_bound(subschema, value):
    errors = Ports({"properties": {"p": subschema}}).errors({"p": value})
    if not isinstance(subschema, dict) or not subschema:
        assert errors == []
        return
    kinds = subschema.get("type", [])
    fits = "number" in kinds and "enum" not in subschema
    low = max(subschema.get("minimum", -math.inf), subschema.get("exclusiveMinimum", -math.inf))
    high = min(subschema.get("maximum", math.inf), subschema.get("exclusiveMaximum", math.inf))
    bounded = any(key in subschema for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
    within = not bounded if value != value else low <= value <= high
    assert (errors == []) == (fits and within)
    largest = "17976931348623159077"  # stands for infinity, which JSON cannot write
    for _, message in errors:
        assert largest not in message


def test_other_keywords_are_left_to_json_schema():
    ports = Mix()._ports
    given = {"m": matrix(2, 2), "v": matrix(2, 3)}
    assert ports.errors({**given, "word": "abc", "options": {"deep": 5}}) == []
    assert ports.errors({**given, "word": "ABC"}) != []
    assert ports.errors({**given, "options": {"deep": 6}}) == [
        ("/options/deep", "options: 6 is greater than the maximum of 5")
    ]
    assert plain_check({"type": "string", "pattern": "a"}) is None
    assert plain_check({"type": "number", "multipleOf": 2}) is None
    with pytest.raises(MissingInput):
        Ports({"properties": {"a": {}, "b": {}}, "required": ["a"], "dependentRequired": {"a": ["b"]}}).bind({})


def test_shared_symbols_agree_in_whatever_order_they_are_given():
    ports = Mix()._ports
    for values in ({"m": matrix(2, 4), "v": matrix(5, 3)}, {"v": matrix(5, 3), "m": matrix(2, 4)}):
        assert ports.errors(values) == [("/v", "v: shape [5, 3] was given, [k, 3] is needed with k = 4 as in m")]
    assert ports.errors({"m": matrix(2, 4), "v": matrix(4, 3), "mask": np.ones(2, bool)}) == []
    assert ports.errors({"m": matrix(2, 4), "v": matrix(4, 3), "mask": np.ones(3, bool)}) != []
