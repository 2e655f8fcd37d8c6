"""Cached plans of chains: equal to fresh ones, bounded in number, dropped when the registry changes."""

import copy
import pickle

import numpy as np
import pytest

import zerocost
from support.third_party import Blend, Cut, registry_of_all
from support.threads import together
from zerocost import ArtifactCommunicationService, PlanError
from zerocost.core import chain_cache
from zerocost.core.chain_plan import plan_chain

MATRIX = np.random.default_rng(0).random((3, 3))
CHAIN = [{"artifact": "blend", "params": {"weight": 0.5}}, {"artifact": "cut", "params": {"count": 3}}]


@pytest.fixture
def registry():
    return registry_of_all()


@pytest.fixture
def service(registry):
    return ArtifactCommunicationService(registry)


@pytest.fixture
def planned(monkeypatch):
    """How often a chain was wired."""
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return plan_chain(*arguments)

    monkeypatch.setattr(chain_cache, "plan_chain", count)
    return calls


def run(service, pipeline=CHAIN, **initial):
    return service.chain_artifacts(pipeline, {"attention_matrix": MATRIX, **initial})


def test_a_chain_is_wired_once_and_takes_new_values(service, planned):
    first = run(service)
    for weight in (0.25, 0.75):
        pipeline = [{**CHAIN[0], "params": {"weight": weight}}, CHAIN[1]]
        run(service, pipeline)
        with pytest.raises(zerocost.RangeError):
            run(service, [{**CHAIN[0], "params": {"weight": 2}}, CHAIN[1]])
    assert len(planned) == 1
    assert len(service.artifact_cache) == 1
    for again, before in zip(run(service)["result"], first["result"], strict=True):
        assert again.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "pipeline",
    [
        [CHAIN[0], {"artifact": "cut", "params": {"label": "x"}}],
        [{**CHAIN[0], "id": "a"}, CHAIN[1]],
        [CHAIN[0], {**CHAIN[1], "inputs": {"tensor": "0.processed_attention"}}],
        [CHAIN[0], {**CHAIN[1], "inputs": {"tensor": "$.attention_matrix"}, "after": ["0"]}],
        [CHAIN[0]],
        [{"artifact": "cut", "params": {"count": 1}}, {"artifact": "blend", "each": True}],
        tuple(CHAIN),
    ],
)
def test_a_change_of_what_a_plan_depends_on_makes_another_plan(registry, service, planned, pipeline):
    run(service)
    initial = {"tensor": MATRIX} if pipeline[0]["artifact"] == "cut" else {"attention_matrix": MATRIX}
    cached = [service.artifact_cache.plan(pipeline, initial) for _ in range(2)]
    assert cached[0] is cached[1]
    assert cached[0].to_dict() == plan_chain(registry, pipeline, initial).to_dict()
    assert len(planned) == (1 if pipeline == tuple(CHAIN) else 2)


def test_other_initial_names_make_another_plan(service, planned):
    run(service)
    run(service, causal=True)
    run(service, causal=False)
    assert len(planned) == 2


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"each": 1}, PlanError),
        ({"each": []}, PlanError),
        ({"inputs": {"attention_matrix": 1}}, PlanError),
        ({"after": [1]}, PlanError),
        ({"id": 1}, PlanError),
        ({"unknown": "x"}, PlanError),
        ({"params": {"wieght": 1}}, zerocost.UndeclaredInput),
    ],
)
def test_an_error_is_raised_every_time(service, step, kind):
    service.artifact_cache.plan([{"artifact": "cut", "each": True}], {"tensor": MATRIX})
    for _ in range(2):
        with pytest.raises(kind):
            run(service, [{**CHAIN[0], **step}])


def test_a_changed_registry_drops_its_plans(registry, service, planned):
    run(service)

    class Other(Blend):
        def process_attention(self, attention_matrix, weight: float = 0.5):
            return attention_matrix * 0

    registry.register_artifact("blend", Other(), "attention", replace=True)
    assert not np.concatenate(run(service)["result"], axis=-1).any()
    assert len(planned) == 2
    assert len(service.artifact_cache) == 1


def test_a_plan_made_while_the_registry_changed_is_not_cached(registry, service, monkeypatch):
    def changes(*arguments):
        plan = plan_chain(*arguments)
        registry.register_artifact("cut", Cut(), "parallel", replace=True)
        return plan

    monkeypatch.setattr(chain_cache, "plan_chain", changes)
    run(service)
    monkeypatch.setattr(chain_cache, "plan_chain", plan_chain)
    plan = service.artifact_cache.plan(CHAIN, ["attention_matrix"])
    assert plan.steps[1].spec is registry["cut"]


def test_plans_are_bounded_in_number(service):
    for index in range(chain_cache._MOST_PLANS + 10):
        service.artifact_cache.plan([{**CHAIN[0], "id": f"step{index}"}], ["attention_matrix"])
    assert len(service.artifact_cache) == chain_cache._MOST_PLANS
    service.artifact_cache.clear()
    assert len(service.artifact_cache) == 0


def test_threads_share_plans(service, registry):
    def work(number):
        for index in range(200):
            chain = [{**CHAIN[0], "id": f"step{(number * 7 + index) % 300}"}]
            service.artifact_cache.plan(chain, ["attention_matrix"])
            if index % 50 == 0:
                registry.register_artifact(f"other{number}", Cut(), "parallel", replace=True)

    assert together(8, work, seconds=60) == [None] * 8
    assert len(service.artifact_cache) <= chain_cache._MOST_PLANS


def test_plans_hold_no_values_and_are_not_pickled(service):
    class Big:
        """Something that must not be kept."""

    marker = Big()
    free = [{"artifact": "shelf", "params": {"operation": "put", "key": "a", "value": marker}}]
    service.chain_artifacts(free, {})
    assert len(service.artifact_cache) == 1
    assert not any(step is marker for plan in service.artifact_cache._plans.values() for step in vars(plan).values())
    assert "Big" not in repr(service.artifact_cache._plans)
    cache = chain_cache.PlanCache(zerocost.ArtifactRegistry())
    assert len(copy.copy(service.artifact_cache)) == 0
    assert cache.__reduce__() == (chain_cache.PlanCache, (cache._registry,))
    with pytest.raises(TypeError):  # a registry's lock cannot be pickled yet, and its plans are not tried
        pickle.dumps(service.artifact_cache)
