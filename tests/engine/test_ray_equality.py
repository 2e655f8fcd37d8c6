"""An artifact on a Ray cluster accepts and refuses the same inputs as it does locally."""

import pytest

import zerocost
from support import third_party
from support.contract import context
from support.input_cases import agree, cases_of, outcome
from support.ray import MARKS

pytestmark = MARKS


@pytest.mark.parametrize("name", list(third_party.registry_of_all()))
def test_every_case_gives_the_same_on_ray(cluster, name):
    here = third_party.registry_of_all()
    made = here[name].implementation
    if name in ("lru_cache", "pipeline_parallel", "both"):  # artifacts that cannot be pickled are made in the replica
        made = lambda: third_party.registry_of_all()[name].implementation  # noqa: E731 - an artifact, or what makes one
    there = zerocost.RayArtifact(made, 1)
    registry = zerocost.ArtifactRegistry()
    registry.register_artifact(name, there, "test")
    service = zerocost.ArtifactCommunicationService(registry)
    local = zerocost.ArtifactCommunicationService(here)
    seen = set()
    for case in cases_of(name, here[name].ports):
        wanted = outcome(lambda case=case: local.call_artifact(name, case.inputs, context(name)))
        kind = str(wanted)[:60] if not isinstance(wanted, dict) else "right"
        if kind in seen and kind != "right":
            continue
        seen.add(kind)
        assert agree(outcome(lambda case=case: there.execute(case.inputs, context(name))), wanted), case
        assert agree(outcome(lambda case=case: service.call_artifact(name, case.inputs, context(name))), wanted), case
    there.close()
    assert "right" in seen
    assert len(seen) > 2
