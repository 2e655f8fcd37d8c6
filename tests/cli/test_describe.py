"""``zerocost describe``."""

import json

from support.command_line import FREE, SCALE


def test_describe_shows_inputs_outputs_and_the_way_through_a_chain(succeeds):
    text = succeeds("describe", "scale", *SCALE)
    assert "Its factor is a number." in text
    rows = [line.split(maxsplit=4) for line in text.splitlines()]
    assert ["attention_matrix", "tensor", "required"] in rows
    assert ["factor", "number", "≥", "0", "2.0       What to multiply with."] in rows
    assert "attention_matrix → processed_attention" in text
    assert "zerocost run scale --input FILE --param factor=2.0" in text


def test_describe_as_json_holds_the_schema(succeeds):
    described = json.loads(succeeds("describe", "scale", *SCALE, "--json"))
    assert described["schema"]["properties"]["factor"]["minimum"] == 0
    assert described["metadata"] == {"loaded_from": "support.cli_artifacts:Scale"}


def test_describe_of_an_open_artifact(succeeds):
    assert "passed on unchanged" in succeeds("describe", "free", *FREE)


def test_unknown_artifact_names_the_close_one(refused):
    assert refused("describe", "scael", *SCALE).startswith("error: Artifact scael not found; did you mean 'scale'?")
    assert "did you mean 'scale'?" in refused("run", "scael", *SCALE)
