"""``zerocost embed``: vectors for every line, resumed runs, progress."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file

from support.model_folder import make_folder
from support.waiting import wait_until
from zerocost import SimplifiedModelService, default_registry
from zerocost.cli import embed, main


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("one\r\ntwo\n\nÜber vier\nfive".encode())
    return file


TEXTS = ["one", "two", "", "Über vier", "five"]


def expected():
    return SimplifiedModelService(default_registry()).embed(TEXTS)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.safetensors"])
def test_every_line_gets_a_vector(lines, tmp_path, capsys, name):
    target = tmp_path / name
    assert main(["embed", str(lines), "--out", str(target)]) == 0
    told = capsys.readouterr()
    assert "5 vectors of 64 numbers" in told.out
    assert "untrained" in told.err
    vectors = np.load(target) if name.endswith("npy") else load_file(target)["embeddings"]
    np.testing.assert_allclose(vectors, expected(), atol=2e-6)
    assert leftovers(tmp_path) == []


def test_an_interrupted_run_resumes(lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embed, "_STEP", 2)
    computed = []
    whole = SimplifiedModelService.embed_and_count

    def embed_and_count(self, texts, advance, artifacts=None):
        if len(computed) == 1 and "Über vier" in texts:
            computed.append(None)
            raise KeyboardInterrupt
        computed.append(texts)
        return whole(self, texts, advance)

    monkeypatch.setattr(SimplifiedModelService, "embed_and_count", embed_and_count)
    assert main(["embed", str(lines)]) == 130
    assert len(leftovers(tmp_path)) == 2
    assert main(["embed", str(lines)]) == 0
    assert "resuming after line 2" in capsys.readouterr().err
    assert computed == [TEXTS[:2], None, TEXTS[2:4], TEXTS[4:]]
    np.testing.assert_allclose(np.load(lines.with_suffix(".npy")), expected(), atol=2e-6)
    assert leftovers(tmp_path) == []


def interrupted(lines, monkeypatch, *arguments):
    """A run that ends after two lines."""
    monkeypatch.setattr(embed, "_STEP", 2)
    whole = SimplifiedModelService.embed_and_count

    def embed_and_count(self, texts, advance, artifacts=None):
        if "five" in texts:
            raise KeyboardInterrupt
        return whole(self, texts, advance)

    with monkeypatch.context() as patch:
        patch.setattr(SimplifiedModelService, "embed_and_count", embed_and_count)
        assert main(["embed", str(lines), *arguments]) == 130


def test_a_run_over_another_text_starts_over(lines, tmp_path, capsys, monkeypatch):
    interrupted(lines, monkeypatch)
    lines.write_text("another\ntext\nof\nmore\nlines\n")
    assert main(["embed", str(lines)]) == 0
    told = capsys.readouterr().err
    assert "going on" not in told
    assert "starting over" in told
    wanted = SimplifiedModelService(default_registry()).embed(["another", "text", "of", "more", "lines"])
    np.testing.assert_allclose(np.load(lines.with_suffix(".npy")), wanted, atol=2e-6)


def test_another_model_or_tokenizer_starts_over(lines, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    make_folder(folder)
    interrupted(lines, monkeypatch)
    interrupted(lines, monkeypatch, "--model", str(folder))
    assert "starting over" in capsys.readouterr().err
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert main(["embed", str(lines), "--model", str(folder)]) == 0
    told = capsys.readouterr().err
    assert "starting over" in told
    assert "going on" not in told
    wanted = SimplifiedModelService(default_registry(), folder).embed(TEXTS)
    np.testing.assert_allclose(np.load(lines.with_suffix(".npy")), wanted, atol=2e-6)
    assert leftovers(tmp_path) == []


def test_another_length_of_truncation_starts_over(lines, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    make_folder(folder)
    interrupted(lines, monkeypatch, "--model", str(folder))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 2}')
    assert main(["embed", str(lines), "--model", str(folder)]) == 0
    told = capsys.readouterr().err
    assert "starting over" in told
    assert "going on" not in told


def test_safetensors_after_an_interrupt(lines, tmp_path, capsys, monkeypatch):
    target = tmp_path / "vectors.safetensors"
    interrupted(lines, monkeypatch, "--out", str(target))
    assert not target.exists()
    assert main(["embed", str(lines), "--out", str(target)]) == 0
    assert "resuming after line 4" in capsys.readouterr().err
    np.testing.assert_allclose(load_file(target)["embeddings"], expected(), atol=2e-6)
    assert leftovers(tmp_path) == []


def test_damaged_partial_results_start_over(lines, tmp_path, capsys, monkeypatch):
    interrupted(lines, monkeypatch)
    vectors = tmp_path / "lines.npy.partial.npy"
    vectors.write_bytes(vectors.read_bytes()[:200])
    assert main(["embed", str(lines)]) == 2
    assert "remove both" in " ".join(capsys.readouterr().err.split())


def test_a_run_resumes_after_its_process_was_killed(tmp_path):
    file, once = tmp_path / "many.txt", tmp_path / "once.npy"
    file.write_text("".join(f"line {number} {'x' * (number * 7 % 120)}\n" for number in range(3000)))
    command = [sys.executable, "-m", "zerocost", "embed", str(file)]
    state = tmp_path / "many.npy.partial.json"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: state.exists() or process.poll() is not None, 60, every=0.002)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = orjson.loads(state.read_bytes())["kept"]
    assert 0 < kept < 3000
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"resuming after line {kept} of 3000" in again.stderr
    subprocess.run([*command, "--out", str(once)], capture_output=True, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "many.npy"), np.load(once))
    assert leftovers(tmp_path) == []


def on_a_terminal(command):
    """The output of a command whose standard error is a terminal."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=there, env={**os.environ, "TERM": "xterm"})
    os.close(there)
    told = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        told += part
    os.close(here)
    process.communicate()
    assert process.returncode == 0
    return told.decode()


def test_a_terminal_shows_a_progress_bar_from_the_first_line(lines):
    assert "5/5" in on_a_terminal([sys.executable, "-m", "zerocost", "embed", str(lines)])


def test_progress_is_reported_while_lines_are_computed():
    service = SimplifiedModelService(default_registry())
    ticks = []
    texts = ["x" * 62] * 256
    vectors, _ = service.embed_and_count(texts, ticks.append)
    assert sum(ticks) == 256
    assert max(ticks) <= 64
    np.testing.assert_allclose(vectors, service.embed(texts), atol=2e-6)


def test_truncated_lines_are_counted(tmp_path, capsys):
    file = tmp_path / "long.txt"
    file.write_text("x" * 600 + "\nshort\n")
    assert main(["embed", str(file)]) == 0
    assert "1 lines were truncated to 512 tokens" in " ".join(capsys.readouterr().err.split())


def test_mistakes_are_one_line(lines, tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\n\xff\n")
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    for arguments, text in [
        ([str(bad)], "line 2 is not UTF-8"),
        ([str(empty)], "no line"),
        ([str(tmp_path / "nothing.txt")], "No such file"),
        ([str(lines), "--out", "vectors.csv"], ".npy or .safetensors"),
        ([str(lines), "--model", str(tmp_path / "nowhere")], "no such folder"),
    ]:
        assert main(["embed", *arguments]) == 2
        assert text in capsys.readouterr().err
