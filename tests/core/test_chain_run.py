"""Running chains: steps side by side, elements one by one, errors, deadlines, the trace."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from support.chain_steps import Cut, Free, Function, Scale
from support.equality import same
from zerocost import (
    ArtifactCommunicationService,
    ArtifactRegistry,
    AttentionArtifact,
    ExecutionContext,
)


def test_each_runs_once_per_element_and_outputs_become_lists(service, matrix):
    chain = [{"artifact": "cut", "params": {"num_splits": 3}}, {"artifact": "scale", "each": True}]
    result = service.chain_artifacts(chain, {"tensor": matrix})
    assert same(result["processed_attention"], [part * 2 for part in np.array_split(matrix, 3, axis=-1)])
    assert result["artifact_used"] == ["scale"] * 3
    named = [{"artifact": "scale", "each": "factor", "params": {"factor": [1.0, 2.0]}}]
    with pytest.raises(zerocost.DatatypeError, match="factor"):
        service.plan(named, {"attention_matrix": matrix})
    mapped = [{"artifact": "scale", "each": "factor", "inputs": {"factor": "$.factors"}}]
    result = service.chain_artifacts(mapped, {"attention_matrix": matrix, "factors": [1.0, 2.0]})
    assert same(result["processed_attention"], [matrix, matrix * 2])


def test_each_over_nothing_gives_empty_lists(service):
    result = service.chain_artifacts([{"artifact": "scale", "each": True}], {"attention_matrix": []})
    assert result == {"processed_attention": [], "artifact_used": []}


def test_each_needs_a_list(service, matrix):
    with pytest.raises(TypeError, match="attention_matrix: ndarray was given, 'each' needs a list"):
        service.chain_artifacts([{"artifact": "scale", "each": True}], {"attention_matrix": matrix})


def test_an_error_in_one_of_each_keeps_its_class_and_leaves_no_thread(service, registry):
    def fail(x, context):
        if x == 3:
            raise LookupError("three")
        return x

    registry.register_artifact("fail", Function(fail), "custom")
    before = threading.active_count()
    with pytest.raises(LookupError, match="three") as caught:
        service.chain_artifacts([{"artifact": "fail", "each": True}], {"x": list(range(100))})
    assert caught.value.__notes__ == ["in step 0 (fail) of the chain"]
    assert threading.active_count() == before


def test_steps_without_a_common_input_run_beside_each_other(service, registry):
    barrier = threading.Barrier(2, timeout=10)
    registry.register_artifact("meet", Function(lambda x, context: (barrier.wait(), x)[1]), "custom")
    chain = [
        {"artifact": "meet", "id": "a"},
        {"artifact": "meet", "id": "b", "inputs": {"x": "$.x"}},
    ]
    assert service.run_chain(chain, {"x": 1}).outputs == {"a": {"y": 1}, "b": {"y": 1}}


def test_after_orders_steps_that_share_nothing(service, registry):
    order = []

    def note(x, context):
        time.sleep(0.02 if x == "first" else 0)
        order.append(x)
        return x

    registry.register_artifact("note", Function(note), "custom")
    chain = [
        {"artifact": "note", "id": "a", "inputs": {"x": "$.p"}},
        {"artifact": "note", "id": "b", "inputs": {"x": "$.q"}, "after": ["a"]},
        {"artifact": "note", "id": "c", "inputs": {"x": "$.q"}, "after": ["a", "b"]},
    ]
    service.chain_artifacts(chain, {"p": "first", "q": "then"})
    assert order == ["first", "then", "then"]


def test_after_a_failure_waiting_steps_do_not_run(service, registry):
    ran = []
    registry.register_artifact("run", Function(lambda x, context: ran.append(x)), "custom")
    registry.register_artifact("fail", Function(lambda x, context: 1 / 0), "custom")
    chain = [
        {"artifact": "fail", "id": "a", "inputs": {"x": "$.x"}},
        {"artifact": "run", "id": "b", "inputs": {"x": "a.y"}},
    ]
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError) as caught:
        service.chain_artifacts([*chain, {"artifact": "fail", "inputs": {"x": "$.x"}, "after": ["b"]}], {"x": 1})
    assert caught.value.__notes__ == ["in step 0 (fail) of the chain"]
    assert ran == []
    assert threading.active_count() == before


def test_steps_know_where_they_are(service, registry):
    contexts = []
    registry.register_artifact("look", Function(lambda x, context: contexts.append(context)), "custom")
    context = ExecutionContext("c", "chain", "restful", {"request_id": "r1"})
    service.chain_artifacts([{"artifact": "look"}, {"artifact": "look"}], {"x": 1}, context)
    assert [entry.metadata["step"] for entry in contexts] == [0, 1]
    assert {entry.metadata["steps"] for entry in contexts} == {2}
    assert {entry.metadata["request_id"] for entry in contexts} == {"r1"}
    assert len({entry.metadata["chain_id"] for entry in contexts}) == 1
    assert {(entry.mode, entry.interface, entry.artifact_name) for entry in contexts} == {("restful", "chain", "look")}


def test_a_deadline_holds_for_the_whole_chain(service, registry):
    deadline = time.monotonic() + 0.5
    past = Function(lambda x, context: time.sleep(max(0.0, deadline - time.monotonic()) + 0.01) or x)
    registry.register_artifact("wait", past, "custom")
    context = ExecutionContext("c", "chain", "zero_cost", {"deadline": deadline})
    with pytest.raises(TimeoutError, match="the deadline passed") as caught:
        service.chain_artifacts([{"artifact": "wait"}, {"artifact": "wait"}], {"x": 1}, context)
    assert caught.value.__notes__ == ["in step 1 (wait) of the chain"]


def test_a_deadline_holds_between_the_elements_of_each(service, registry):
    registry.register_artifact("wait", Function(lambda x, context: time.sleep(0.05) or x), "custom")
    context = ExecutionContext("c", "chain", "zero_cost", {"deadline": time.monotonic() + 0.12})
    with pytest.raises(TimeoutError, match="the deadline passed"):
        service.chain_artifacts([{"artifact": "wait", "each": True}], {"x": list(range(100))}, context)


def test_the_trace_counts_bytes_and_copies(service, registry, matrix):
    class Kernel(AttentionArtifact):
        """Reads as a kernel does."""

        def process_attention(self, attention_matrix):
            return zerocost.core.arrays.as_floating(attention_matrix, "attention_matrix")

    registry.register_artifact("kernel", Kernel(), "attention")
    run = service.run_chain([{"artifact": "kernel"}, {"artifact": "cut"}], {"attention_matrix": matrix})
    assert [(step.bytes_in, step.bytes_out, step.bytes_copied) for step in run.trace] == [(96, 96, 0), (96, 96, 0)]
    assert all(np.shares_memory(part, matrix) for part in run.result["result"])
    assert run.trace[0].thread == threading.current_thread().name
    assert 0 <= run.trace[0].start <= run.trace[1].start
    listed = service.run_chain([{"artifact": "kernel"}], {"attention_matrix": matrix.tolist()})
    assert listed.trace[0].bytes_copied == 96
    assert (
        service.chain_artifacts([{"artifact": "kernel"}], {"attention_matrix": matrix})["processed_attention"] is matrix
    )


def test_an_artifact_that_does_not_return_a_dict_is_named(service, registry):
    class Wrong(Free):
        def execute(self, input_data, context):
            return [1]

    registry.register_artifact("wrong", Wrong(), "custom")
    with pytest.raises(TypeError, match="execute returned list"):
        service.chain_artifacts([{"artifact": "wrong"}], {"x": 1})


@given(factors=st.lists(st.floats(-3, 3), min_size=1, max_size=6), splits=st.integers(1, 5))
def test_a_chain_equals_the_calls_one_after_another(factors, splits):
    registry = ArtifactRegistry()
    registry.register_artifact("scale", Scale(), "attention")
    registry.register_artifact("cut", Cut(), "parallel")
    service = ArtifactCommunicationService(registry)
    matrix = np.random.default_rng(splits).standard_normal((2, 7))
    chain = [{"artifact": "scale", "params": {"factor": factor}} for factor in factors]
    chain.append({"artifact": "cut", "params": {"num_splits": splits}})
    expected = matrix
    for factor in factors:
        expected = expected * factor
    result = service.chain_artifacts(chain, {"attention_matrix": matrix})
    assert same(result["result"], np.array_split(expected, splits, axis=-1))


@st.composite
def graphs(draw):
    """Random chains: every step takes its x from an earlier step or from the initial input."""
    size = draw(st.integers(1, 7))
    sources = [draw(st.integers(-1, index - 1)) for index in range(size)]
    after = [draw(st.lists(st.integers(0, index - 1), max_size=2)) if index else [] for index in range(size)]
    return sources, after


@given(graphs())
def test_random_graphs_respect_their_order(graph):
    sources, after = graph
    finished, lock = [], threading.Lock()

    def work(x, context):
        with lock:
            finished.append(context.metadata["step"])
        return x + 1

    registry = ArtifactRegistry()
    registry.register_artifact("f", Function(work), "custom")
    chain = [
        {
            "artifact": "f",
            "id": f"s{index}",
            "inputs": {"x": "$.x" if source < 0 else f"s{source}.y"},
            "after": [f"s{other}" for other in after[index]],
        }
        for index, source in enumerate(sources)
    ]
    run = ArtifactCommunicationService(registry).run_chain(chain, {"x": 0})
    depth = {-1: 0}
    for index, source in enumerate(sources):
        depth[index] = depth[source] + 1
        assert run.outputs[f"s{index}"]["y"] == depth[index]
        position = {step: place for place, step in enumerate(finished)}
        for earlier in {source, *after[index]} - {-1}:
            assert position[earlier] < position[index]
