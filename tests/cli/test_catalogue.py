import json

import numpy as np
import pytest

import zerocost
from support.command_line import FREE, SCALE, SPLIT, subprocess_of


def test_list_shows_names_interfaces_and_the_first_paragraph(succeeds):
    rows = [line.split(maxsplit=2) for line in succeeds("list", *SCALE, *SPLIT).splitlines()]
    assert rows[0] == ["name", "interface", "description"]
    assert ["scale", "attention", "Multiplies every entry."] in rows
    assert ["split", "parallel", "Cuts a tensor into views."] in rows


def test_list_of_one_interface_as_json(succeeds):
    listed = json.loads(succeeds("list", *FREE, *SCALE, "--interface", "free", "--json"))
    assert listed == [{"name": "free", "interface": "free", "description": "Takes anything and returns it."}]


def test_list_of_an_unknown_interface_names_the_close_one(refused):
    assert "did you mean 'free'?" in refused("list", *FREE, "--interface", "fre")


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


def test_validate(cli):
    assert cli("validate", "support.cli_artifacts:Scale") == (0, "support.cli_artifacts:Scale: Valid artifact\n", "")
    code, out, err = cli("validate", "support.cli_artifacts:ChangesItsInput")
    assert (code, err) == (1, "")
    assert "execute changes its input: attention_matrix" in out


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("cli_artifacts", "MODULE:CLASS is needed"),
        ("no_such_module:X", "No module named 'no_such_module'"),
        ("support.cli_artifacts:Nope", "has no attribute 'Nope'"),
        ("json:JSONDecoder", "a subclass of Artifact is needed"),
    ],
)
def test_what_cannot_be_loaded_is_refused(refused, path, reason):
    assert reason in refused("validate", path)
    assert reason in refused("list", "--artifact", f"x={path}")


def test_addition_without_a_name_is_refused(refused):
    assert "NAME=MODULE:CLASS is needed" in refused("list", "--artifact", "support.cli_artifacts:Scale")


def test_artifacts_of_the_working_folder_can_be_added_and_validated(tmp_path):
    (tmp_path / "my_module.py").write_text(
        "from zerocost import AttentionArtifact\n"
        "class Mine(AttentionArtifact):\n"
        "    'Negates.'\n"
        "    def process_attention(self, attention_matrix):\n"
        "        return -attention_matrix\n"
    )
    assert "Negates." in subprocess_of("list", "--artifact", "mine=my_module:Mine", cwd=tmp_path).stdout
    assert subprocess_of("validate", "my_module:Mine", cwd=tmp_path).returncode == 0


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    """An installed distribution with one plug-in that works and one that cannot be imported."""
    site = tmp_path / "site"
    info = site / "strangers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[zerocost.artifacts]\nworks = support.cli_artifacts:Scale\nbroken = no_such_module:Artifact\n"
    )
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("broken_plugin")
def test_plugin_that_fails_is_reported_by_name_and_the_rest_works(cli, matrix_file):
    for arguments in (["list"], ["describe", "works"], ["run", "works", "-i", matrix_file]):
        code, out, err = cli(*arguments)
        assert (code, err.count("\n")) == (0, 1)
        assert err.startswith("warning: plug-in 'broken' (no_such_module:Artifact) was not loaded")
        assert out
    assert "works" in cli("list")[1]


@pytest.mark.usefixtures("broken_plugin")
def test_info_shows_plugins(succeeds):
    assert "No module named 'no_such_module'" in succeeds("info")
    facts = json.loads(succeeds("info", "--json"))
    assert facts["plugins"] == ["works"]
    assert list(facts["failed_plugins"]) == ["broken"]


def test_info(succeeds):
    facts = json.loads(succeeds("info", "--json"))
    assert facts["version"] == zerocost.__version__
    assert facts["cpu_level"] in facts["cpu_levels"]
    assert facts["threads"] == zerocost.num_threads()
    assert facts["numpy"] == np.__version__
    text = succeeds("info")
    assert facts["cpu_level"] in text
    assert facts["numpy"] in text
