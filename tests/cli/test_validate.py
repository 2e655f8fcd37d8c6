"""``zerocost validate``."""

import pytest


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
