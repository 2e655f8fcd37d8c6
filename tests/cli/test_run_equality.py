"""``zerocost run`` gives the result, or the error message, of a call in the process."""

import json

import pytest

from support.equality import same_values
from support.input_cases import Refused, cases_of, outcome
from support.third_party import registry_of_all
from support.typed_json import encoded
from zerocost import ArtifactCommunicationService, ExecutionContext
from zerocost._kernels import write_json

ADDED = ["blend=support.third_party:Blend", "mix=support.third_party:Mix", "shelf=support.service_artifacts:Dict"]
ARTIFACTS = ["sparse_attention", "tensor_parallel", "lru_cache", "blend", "mix"]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_run_gives_the_result_or_the_error_of_a_call(cli, tmp_path, name):
    registry = registry_of_all()
    service = ArtifactCommunicationService(registry)
    context = ExecutionContext(name, "test", "zero_cost", {})
    added = [argument for text in ADDED if text.startswith(name) for argument in ("--artifact", text)]
    seen = set()
    for case in cases_of(name, registry[name].ports):
        wanted = outcome(lambda case=case: service.call_artifact(name, case.inputs, context))
        kind = (wanted.code, wanted.pointers) if isinstance(wanted, Refused) else type(wanted)
        if kind in seen or case.what in ("read", "stored"):
            continue  # one of each: the whole table is in tests/core
        seen.add(kind)
        (tmp_path / "inputs.json").write_bytes(write_json(encoded(case.inputs)))
        code, out, err = cli("run", name, *added, "--input", "inputs.json", "--json")
        if isinstance(wanted, Refused):
            assert (code, out) == (2, ""), case
            # The command line reads lists from the text, with messages of its own.
            lists = [key for key, value in case.inputs.items() if isinstance(value, list | dict)]
            assert " ".join(wanted.message.split()) in err or any(f"{key}: " in err for key in lists), case
            continue
        assert (code, err) == (0, ""), case
        assert same_values(json.loads(out), json.loads(write_json(wanted))), case
    assert len(seen) > 2, "right inputs and wrong ones"
