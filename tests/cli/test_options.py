"""Options that commands share: ``--artifact``, and the plug-ins of the registry."""

import json

import pytest

from support.command_line import subprocess_of


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
