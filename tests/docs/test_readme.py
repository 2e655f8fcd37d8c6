"""README's examples, run from top to bottom as a reader would: code, files, shell commands, and what they print."""

import contextlib
import doctest
import io
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.model_folder import make_folder
from support.paths import ROOT
from support.ports import free_port
from support.waiting import wait_until

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def check(wanted, got, what):
    checker = doctest.OutputChecker()
    assert checker.check_output(wanted, got, FLAGS), f"{what}\nREADME says:\n{wanted}\nit prints:\n{got}"


@pytest.fixture
def background():
    processes = []
    yield processes
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def listens(port, process):
    assert process.poll() is None, "the server stopped"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def on_free_ports(block, ports):
    for shown, port in ports.items():
        block = block.replace(shown, str(port))
    return block


def run_console(block, folder, ports, background):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "200",
    }
    for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", on_free_ports(block, ports), re.MULTILINE):
        if command.endswith("&"):
            words = shlex.split(command[:-1])
            variables = list(itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
            process = subprocess.Popen(
                words[len(variables) :],
                cwd=folder,
                env={**environment, **dict(variable.split("=", 1) for variable in variables)},
                start_new_session=True,
                stderr=subprocess.DEVNULL,
            )
            background.append(process)
            port = int(words[words.index("--port") + 1])
            wait_until(lambda port=port, process=process: listens(port, process), 60)
            continue
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        check(wanted, done.stdout if done.stdout.endswith("\n") else done.stdout + "\n", command)


@pytest.mark.skipif(shutil.which("curl") is None, reason="README calls the server with curl, which is not installed")
def test_readme(tmp_path, monkeypatch, background):
    pytest.importorskip("tritonclient.http", reason="README calls the server with tritonclient, which is not installed")
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [kind for kind, _ in blocks].count("python") >= 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names, printed = {"__name__": "readme"}, None
    ports = {"8000": free_port(), "8001": free_port()}
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    make_folder(tmp_path / "all-MiniLM-L6-v2")  # any model of the family answers alike
    for kind, block in blocks:
        if kind == "python" and (title := re.match(r"# (\w+\.py)\n", block)):
            (tmp_path / title[1]).write_text(block)
        elif kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(on_free_ports(block, ports), "README.md", "exec"), names)
            printed = output.getvalue()
        elif kind == "text":
            check(block, printed, "a python block")
        elif kind == "console":
            run_console(block, tmp_path, ports, background)
    sys.modules.pop("stranger", None)
