import json

import numpy as np
import pytest

from support.command_line import MATRIX, SCALE
from zerocost.cli import main


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs the command line in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def succeeds(cli):
    def run(*arguments):
        code, out, err = cli(*arguments)
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(cli):
    """Runs a command that must be refused: exit code 2, nothing on stdout, one line on stderr."""

    def run(*arguments, code=2):
        given, out, err = cli(*arguments)
        assert (given, out) == (code, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def matrix_file(tmp_path):
    np.save(tmp_path / "matrix.npy", MATRIX)
    return "matrix.npy"


@pytest.fixture
def doubled(succeeds):
    """Runs ``scale`` with its factor of 2; gives the matrix."""

    def run(*arguments):
        return np.array(json.loads(succeeds("run", "scale", *SCALE, *arguments, "--json"))["processed_attention"])

    return run
