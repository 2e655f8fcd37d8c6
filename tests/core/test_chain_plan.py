"""Planning chains: the wiring, its errors, and the plan."""

import numpy as np
import pytest

import zerocost
from support.chain_steps import Function, Scale
from support.equality import same
from zerocost import (
    Artifact,
    AttentionArtifact,
    ChainArtifact,
    ExecutionContext,
)


def test_the_main_output_becomes_the_main_input(service, matrix):
    result = service.chain_artifacts([{"artifact": "scale"}, {"artifact": "cut"}], {"attention_matrix": matrix})
    assert same(result["result"], np.array_split(matrix * 2, 2, axis=-1))
    assert result["artifact_used"] == "cut"


def test_the_artifact_gets_the_caller_s_objects(service, registry, matrix):
    seen = []
    registry.register_artifact("look", Function(lambda x, context: seen.append(x) or x), "custom")
    result = service.chain_artifacts([{"artifact": "look"}, {"artifact": "look"}], {"x": matrix})
    assert seen[0] is matrix
    assert seen[1] is matrix
    assert result["y"] is matrix


def test_params_win_over_the_running_result_and_inputs_may_not_repeat_them(service, matrix):
    initial = {"attention_matrix": matrix, "factor": 5.0}
    assert same(service.chain_artifacts([{"artifact": "scale"}], initial)["processed_attention"], matrix * 5)
    step = {"artifact": "scale", "params": {"factor": 3.0}}
    assert same(service.chain_artifacts([step], initial)["processed_attention"], matrix * 3)
    with pytest.raises(zerocost.PlanError, match="given in 'inputs' and in 'params'"):
        service.plan([{**step, "inputs": {"factor": "$.factor"}}], initial)


def test_undeclared_keys_of_the_running_result_are_dropped(service, matrix):
    chain = [{"artifact": "scale"}, {"artifact": "scale"}]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix, "artifact_used": "a result's"})
    assert same(result["processed_attention"], matrix * 4)


@pytest.mark.parametrize(
    ("chain", "extra", "message"),
    [
        ([{"artifact": "scale"}], {"something": 1}, "'something' is not an input of the chain; there are"),
        ([{"artifact": "scale"}], {"facto": 1.0}, "did you mean 'factor'"),
        ([{"artifact": "scale"}, {"artifact": "cut"}], {"num_splits": 3}, r"step 1 \(cut\) takes it from its 'params'"),
    ],
)
def test_a_name_in_the_initial_input_that_no_step_takes_is_refused(service, registry, matrix, chain, extra, message):
    name = next(iter(extra))
    for call in (service.chain_artifacts, service.run_chain, service.plan):
        with pytest.raises(zerocost.UndeclaredInput, match=message) as caught:
            call(chain, {"attention_matrix": matrix, **extra})
        assert [where for where, _ in caught.value.errors] == [f"/initial_input/{name}"]
    context = ExecutionContext("c", "chain", "zero_cost", {})
    with pytest.raises(zerocost.UndeclaredInput) as caught:
        ChainArtifact(chain, registry).execute({"attention_matrix": matrix, **extra}, context)
    assert [where for where, _ in caught.value.errors] == [f"/{name}"]


def test_names_in_the_initial_input_that_a_step_takes(service, registry, matrix):
    # Inputs that the first step declares, even where its params win; required inputs of later steps; `$.name`.
    step = {"artifact": "scale", "params": {"factor": 3.0}}
    assert same(
        service.chain_artifacts([step], {"attention_matrix": matrix, "factor": 5.0})["processed_attention"], matrix * 3
    )
    registry.register_artifact("declares", Renamed(), "custom")
    chain = [{"artifact": "declares"}, {"artifact": "both"}]
    registry.register_artifact("both", Both(), "custom")
    assert service.chain_artifacts(chain, {"x": 1, "later": 2}) == {"sum": 3}
    context = ExecutionContext("c", "chain", "zero_cost", {})
    assert ChainArtifact(chain, registry).execute({"x": 1, "later": 2}, context) == {"sum": 3}
    with pytest.raises(zerocost.PlanError, match="nothing gives its input 'later'"):
        service.chain_artifacts(chain, {"x": 1})
    with pytest.raises(zerocost.MissingInput, match="x required") as caught:
        service.chain_artifacts(chain, {"later": 1})
    assert caught.value.errors == [("/initial_input/x", "x required")]


class Renamed(Artifact):
    """Gives its x as y."""

    def get_schema(self):
        return {"properties": {"x": {}}, "required": ["x"], "x-outputs": {"y": {}}}

    def execute(self, input_data, context):
        return {"y": input_data["x"]}


class Both(Artifact):
    """Adds a y to something that comes later."""

    def get_schema(self):
        return {"properties": {"y": {}, "later": {}}, "required": ["y", "later"], "x-outputs": {"sum": {}}}

    def execute(self, input_data, context):
        return {"sum": input_data["y"] + input_data["later"]}


@pytest.mark.parametrize(
    ("chain", "initial", "kind", "where"),
    [
        ([{"artifact": "scale", "params": {"fcator": 1}}], {}, zerocost.UndeclaredInput, "/pipeline/0/params/fcator"),
        ([{"artifact": "scale", "params": {"factor": "x"}}], {}, zerocost.DatatypeError, "/pipeline/0/params/factor"),
        ([{"artifact": "scale"}], {"factor": "x"}, zerocost.DatatypeError, "/initial_input/factor"),
        (
            [{"artifact": "scale"}],
            {"attention_matrix": [[1], [1, 2]]},
            zerocost.ShapeError,
            "/initial_input/attention_matrix",
        ),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "params": {"num_splits": "many"}}],
            {},
            zerocost.DatatypeError,
            "/pipeline/1/params/num_splits",
        ),
        (
            [
                {"artifact": "scale"},
                {"artifact": "scale", "inputs": {"attention_matrix": "0.processed_attention", "factor": "$.f~"}},
            ],
            {"f~": "x"},
            zerocost.DatatypeError,
            "/initial_input/f~0",
        ),
    ],
)
def test_invalid_values_are_reported_before_the_first_step(service, registry, matrix, chain, initial, kind, where):
    ran = []

    class Notes(Scale):
        def process_attention(self, attention_matrix, factor: float = 2.0):
            ran.append(factor)
            return attention_matrix

    registry.register_artifact("scale", Notes(), "attention", replace=True)
    with pytest.raises(kind) as caught:
        service.chain_artifacts(chain, {"attention_matrix": matrix, **initial})
    assert type(caught.value) is kind
    assert [place for place, _ in caught.value.errors] == [where]
    assert ran == []


def test_outputs_of_another_step_are_not_the_caller_s_mistake(service, registry, matrix):
    registry.register_artifact("text", Function(lambda x, context: "text"), "custom")
    chain = [{"artifact": "text"}, {"artifact": "scale", "inputs": {"attention_matrix": "0.y"}}]
    with pytest.raises(zerocost.DatatypeError) as caught:
        service.chain_artifacts(chain, {"x": 1})
    assert [place for place, _ in caught.value.errors] == ["/pipeline/1"]
    assert caught.value.__notes__ == ["in step 1 (scale) of the chain"]


def test_a_list_is_converted_once_for_all_steps_that_take_it(service, registry):
    seen = []
    registry.register_artifact("look", Seen(seen), "custom")
    chain = [{"artifact": "look"}, {"artifact": "look", "inputs": {"m": "$.m"}}]
    run = service.run_chain(chain, {"m": [[1.0, 2.0]]})
    assert seen[0] is seen[1]
    assert [step.bytes_copied for step in run.trace] == [16, 0]


class Seen(Artifact):
    """Notes its array."""

    def __init__(self, seen):
        self.seen = seen

    def get_schema(self):
        return {"properties": {"m": {"x-tensor": {}}}, "required": ["m"], "x-outputs": {"m": {}}}

    def execute(self, input_data, context):
        self.seen.append(input_data["m"])
        return {"m": input_data["m"]}


def test_mapped_inputs(service, matrix):
    chain = [
        {"artifact": "scale", "id": "twice"},
        {"artifact": "scale", "id": "both", "inputs": {"attention_matrix": "$.attention_matrix"}},
        {
            "artifact": "scale",
            "params": {"factor": 1.0},
            "inputs": {"attention_matrix": "twice.processed_attention", "bias": "both.processed_attention"},
        },
    ]
    result = service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert same(result["processed_attention"], matrix * 4)


def test_undeclared_outputs_are_bound_by_name_when_it_runs(service, registry, matrix):
    result = service.chain_artifacts([{"artifact": "free"}, {"artifact": "scale"}], {"attention_matrix": matrix})
    assert same(result["processed_attention"], matrix * 4)
    result = service.chain_artifacts([{"artifact": "scale"}, {"artifact": "free"}], {"attention_matrix": matrix})
    assert result["seen"] == ["artifact_used", "processed_attention"]


@pytest.mark.parametrize(
    ("chain", "step", "port", "message"),
    [
        ([], None, None, "it has no step"),
        ("scale", None, None, "a list of steps is needed"),
        ([3], 0, None, "step 0: int was given"),
        ([{"params": {}}], 0, None, "'artifact' must be the name"),
        ([{"artifact": "scale", "parms": {}}], 0, None, "unknown key 'parms'; did you mean 'params'?"),
        ([{"artifact": "scale", "params": [1]}], 0, None, "params: list was given"),
        ([{"artifact": "scale"}, {"artifact": "cut", "inputs": {"n": "$.n"}}], 1, None, "'n' is not an input"),
        ([{"artifact": "scale", "params": {"bias": np.ones(3, complex)}}], 0, None, None),
        (
            [{"artifact": "scale"}, {"artifact": "scale", "inputs": {}}, {"artifact": "cut", "inputs": {}}],
            2,
            "tensor",
            "nothing gives its input 'tensor'",
        ),
        ([{"artifact": "scale", "id": "a b"}], 0, None, "letters, digits"),
        ([{"artifact": "scale", "id": "1"}, {"artifact": "scale"}], 1, None, "is step 0's already"),
        ([{"artifact": "scale", "inputs": {"attention_matrix": "x.y"}}], 0, None, "no step 'x'"),
        ([{"artifact": "scale", "inputs": {"attention_matrix": "$.y"}}], 0, "attention_matrix", "has no 'y'"),
        (
            [{"artifact": "scale", "inputs": {"attention_matrix": "y"}}],
            0,
            "attention_matrix",
            "'step.port' or '$.name'",
        ),
        ([{"artifact": "scale", "id": "a", "inputs": {"attention_matrix": "a.y"}}], 0, None, "does not come before"),
        (
            [{"artifact": "scale", "inputs": {"attention_matrix": "b.y"}}, {"artifact": "scale", "id": "b"}],
            0,
            None,
            "does not come before this one",
        ),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "inputs": {"tensor": "0.result"}}],
            1,
            "tensor",
            "step '0' has no output 'result'; there are",
        ),
        ([{"artifact": "scale", "after": "0"}], 0, None, "a list of step ids is needed"),
        ([{"artifact": "scale", "after": ["9"]}], 0, None, "after: no step '9'"),
        ([{"artifact": "scale", "each": "factor"}], 0, "factor", "nothing gives the input 'factor'"),
        ([{"artifact": "scale", "each": "nothing"}], 0, "nothing", "'nothing' is not an input"),
        ([{"artifact": "scale"}, {"artifact": "cut", "inputs": {}}], 1, "tensor", "nothing gives its input 'tensor'"),
        (
            [{"artifact": "scale"}, {"artifact": "cut", "inputs": {"tensor": "0.artifact_used"}}],
            1,
            "tensor",
            "is a string",
        ),
    ],
)
def test_a_chain_that_cannot_work_fails_before_its_first_step(service, matrix, chain, step, port, message):
    if message is None:
        service.plan(chain, {"attention_matrix": matrix})  # complex is fine for a tensor of any datatype
        return
    with pytest.raises(zerocost.PlanError) as caught:
        service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert message in str(caught.value)
    assert caught.value.step == step
    if port is not None:
        assert caught.value.port == port
        assert caught.value.artifact == chain[step]["artifact"]


def test_an_unknown_artifact_says_which_step(service, matrix):
    with pytest.raises(zerocost.UnknownArtifact, match="did you mean 'scale'") as caught:
        service.chain_artifacts([{"artifact": "scale"}, {"artifact": "scal"}], {"attention_matrix": matrix})
    assert caught.value.__notes__ == ["in step 1 of the chain"]


def test_a_plan_is_plain_json(service, matrix):
    plan = service.plan(
        [{"artifact": "scale", "params": {"factor": 2}}, {"artifact": "cut", "id": "c"}], ["attention_matrix"]
    )
    assert plan.to_dict() == {
        "inputs": ["attention_matrix"],
        "required": ["attention_matrix"],
        "steps": [
            {
                "index": 0,
                "id": "0",
                "artifact": "scale",
                "waits_for": [],
                "inputs": {"factor": "params", "attention_matrix": "$.attention_matrix"},
            },
            {
                "index": 1,
                "id": "c",
                "artifact": "cut",
                "waits_for": ["0"],
                "inputs": {"tensor": "0.processed_attention"},
            },
        ],
    }


@pytest.mark.parametrize("after", [[[]], [{}], [0], [None]])
def test_after_takes_ids_only(service, matrix, after):
    with pytest.raises(zerocost.PlanError, match="the id of a step is needed"):
        service.plan([{"artifact": "scale", "after": after}], {"attention_matrix": matrix})


@pytest.mark.parametrize("value", [None, [1], "x"])
def test_inputs_that_are_not_a_dict_are_named(service, value):
    context = ExecutionContext("c", "chain", "zero_cost", {})
    with pytest.raises(TypeError, match=r"initial_input: .* was given, a dict is needed"):
        service.chain_artifacts([{"artifact": "scale"}], value)
    with pytest.raises(TypeError, match=r"input_data: .* was given, a dict is needed"):
        service.call_artifact("scale", value, context)


def test_a_list_of_arrays_is_not_stacked(service, registry, matrix):
    class Kernel(AttentionArtifact):
        """Reads as a kernel does."""

        def process_attention(self, attention_matrix):
            return zerocost.core.arrays.as_floating(attention_matrix, "attention_matrix")

    registry.register_artifact("kernel", Kernel(), "attention")
    with pytest.raises(TypeError, match="in a chain 'each' runs a step once"):
        service.chain_artifacts([{"artifact": "cut"}, {"artifact": "kernel"}], {"tensor": matrix})
