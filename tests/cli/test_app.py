"""The command line as a whole: help, usage errors, interrupts, exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import zerocost
from support.command_line import FAILS
from support.processes import run_code, run_python


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(succeeds, arguments):
    text = succeeds(*arguments)
    for command in ("list", "describe", "validate", "run", "chain", "serve", "info", "demo"):
        assert f"│ {command} " in text


@pytest.mark.parametrize("command", ["list", "describe", "validate", "run", "chain", "serve", "info", "demo"])
def test_help_of_every_command_has_an_example(succeeds, command):
    assert f"zerocost {command}" in succeeds(command, "--help").split("Example")[1]


def test_version(succeeds):
    assert succeeds("--version") == f"zerocost {zerocost.__version__}\n"


def test_usage_errors_are_one_line(refused):
    assert "'lst'" in refused("lst")
    assert "'list'" in refused("lst")
    assert "see 'zerocost run --help'" in refused("run", "scale", "--ou", "x.npy")
    assert "'NAME'" in refused("run")
    assert "--input" in refused("run", "scale", "--input")


def test_is_a_module_and_a_console_script(tmp_path):
    for command in ([sys.executable, "-m", "zerocost"], [Path(sys.executable).with_name("zerocost")]):
        done = subprocess.run([*command, "--version"], cwd=tmp_path, text=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"zerocost {zerocost.__version__}\n")


def test_listing_does_not_import_what_serving_and_drawing_need(tmp_path):
    code = (
        "import sys; from zerocost.cli import main; main(['list']); "
        "print([name for name in ('starlette', 'uvicorn', 'PIL', 'safetensors', 'http.client') if name in sys.modules])"
    )
    done = run_code(code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]"


def test_interrupt_exits_with_130_and_says_nothing(cli, matrix_file):
    assert cli("run", "fails", *FAILS, "-i", matrix_file, "-p", "kind=KeyboardInterrupt") == (130, "", "")


def test_interrupted_process_leaves_no_traceback(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nfrom zerocost import AttentionArtifact\n"
        "class Slow(AttentionArtifact):\n"
        "    'Sleeps.'\n"
        "    def process_attention(self, attention_matrix):\n"
        "        print('started', flush=True)\n"
        "        time.sleep(50)\n"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "zerocost",
            "run",
            "slow",
            "--artifact",
            "slow=slow:Slow",
            "-p",
            "attention_matrix=[[1]]",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize("arguments", [["list"], ["info", "--json"], ["--help"]])
def test_closed_stdout_is_not_an_error_message(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        done = run_python("-m", "zerocost", *arguments, cwd=tmp_path, check=False, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_exception_of_an_artifact_is_one_line_and_exit_code_1(refused, cli, matrix_file):
    text = refused("run", "fails", *FAILS, "-i", matrix_file, code=1)
    assert text.startswith("error: KeyError: 'as told'")
    assert "--debug" in text
    with pytest.raises(KeyError):
        cli("--debug", "run", "fails", *FAILS, "-i", matrix_file)


def test_value_error_of_an_artifact_is_an_input_error(refused, matrix_file):
    assert "ValueError: as told" in refused("run", "fails", *FAILS, "-i", matrix_file, "-p", "kind=ValueError")
