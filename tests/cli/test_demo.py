"""``zerocost demo``: its claims, its picture, its server, and the published model."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import minilm
from support.model_folder import make_folder
from support.paths import ROOT, shared_data
from zerocost import ArtifactRegistry, AttentionArtifact, ParallelArtifact, default_registry
from zerocost.cli.demo.claims import claims_about_equality
from zerocost.cli.demo.picture import Panel, draw
from zerocost.cli.demo.real_scores import load_scores
from zerocost.cli.demo.run import run_demo
from zerocost.cli.demo.sentences import SENTENCES, find_model, show_sentences

DROPPED = (238, 239, 242)


def start_demo(cwd, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "zerocost", "demo", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo in an empty folder: the folder and what was printed."""
    folder = tmp_path_factory.mktemp("demo")
    with start_demo(folder) as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    return folder, out


def test_every_claim_is_proven(demo):
    _, out = demo
    claims = [line.strip() for line in out.splitlines() if line.startswith("  ✓")]
    assert len(claims) == 8
    assert f"All {len(claims)} claims are true" in out
    assert "FALSE" not in out
    for claim in (
        "the same object",
        "share its memory",
        "bytes copied on the way into the kernels, as counted by the trace: 0",
    ):
        assert any(claim in line for line in claims), claim
    assert any("equal to the last bit" in line for line in claims)


def test_both_times_are_printed(demo):
    _, out = demo
    number = r"+\d+(\.\d+)? (µs|ms|s)$"
    assert re.search(f"^  in this process {number}", out, re.MULTILINE)
    assert re.search(f"^  over HTTP {number}", out, re.MULTILINE)


def test_it_ends_with_how_to_serve(demo):
    _, out = demo
    command, curl = out.splitlines()[-2:]
    assert command.endswith("zerocost serve")
    assert curl == "  curl http://127.0.0.1:8000/artifacts"


def test_its_server_has_stopped(demo):
    _, out = demo
    assert not answers(port_of(out))


def test_picture_shows_what_was_kept(demo):
    folder, out = demo
    assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == [
        Path("demo-output/attention.png"),
        Path("demo-output/embedding.png"),
    ]
    assert "demo-output/attention.png" in out
    with Image.open(folder / "demo-output" / "attention.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    shares = [share_of_dropped(pixels, panel, 128, 4) for panel in range(3)]
    band = np.abs(np.subtract.outer(np.arange(128), np.arange(128))) > 16
    assert shares == [0, pytest.approx(band.mean(), abs=1e-9), pytest.approx(1 - 26 / 128, abs=1e-9)]


def share_of_dropped(pixels, panel, length, cell):
    """The share of a panel's cells that have the colour of dropped entries."""
    left, top = 64 + panel * (length * cell + 56), 178
    cells = pixels[top : top + length * cell : cell, left : left + length * cell : cell]
    return (cells == DROPPED).all(axis=-1).mean()


def port_of(out):
    return int(re.search(r"http://127\.0\.0\.1:(\d+)", out)[1])


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def test_without_the_published_model_the_demo_says_that_vectors_mean_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ZEROCOST_MODEL_DIR", raising=False)
    monkeypatch.setattr("zerocost.cli.demo.sentences.PACKAGE", "no_such_package")
    show_sentences(default_registry(), tmp_path / "embedding.png")
    out = capsys.readouterr().out
    assert "no-such-package is not installed" in out
    assert "UNTRAINED" in out


def test_another_model_in_the_package_is_not_taken_for_the_published_one(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEROCOST_MODEL_DIR", raising=False)
    (tmp_path / "other_minilm" / "model").mkdir(parents=True)
    (tmp_path / "other_minilm" / "__init__.py").write_text("raise ImportError('never imported')")
    (tmp_path / "other_minilm" / "model" / "model.safetensors").write_bytes(b"12345678")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("zerocost.cli.demo.sentences.PACKAGE", "other_minilm")
    folder, reason = find_model()
    assert folder is None
    assert "holds another model" in reason


@pytest.mark.filterwarnings("ignore:.*texts were truncated")
def test_a_model_with_fewer_heads_and_layers_is_drawn_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZEROCOST_MODEL_DIR", str(make_folder(tmp_path, num_hidden_layers=1)))
    show_sentences(default_registry(), tmp_path / "embedding.png")
    assert "head 1 of layer 0" in capsys.readouterr().out
    assert (tmp_path / "embedding.png").is_file()


def test_the_published_model_ranks_what_is_about_plants_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZEROCOST_MODEL_DIR", str(minilm.folder()))
    show_sentences(default_registry(), tmp_path / "embedding.png")
    out = capsys.readouterr().out
    assert "UNTRAINED" not in out
    places = [out.index(SENTENCES[index]) for index in (0, 1, 3, 5)]
    assert max(places[:2]) < min(places[2:])
    similar = {line.split("  ")[1]: line.split()[-3:] for line in out.splitlines() if line[2:].startswith(SENTENCES)}
    assert len(similar) == len(SENTENCES)
    assert all(len(set(row)) > 1 for row in similar.values())  # the artifacts do move the vectors
    with Image.open(tmp_path / "embedding.png") as image:
        assert image.width > 3 * 60 * 4


def test_output_folder_can_be_chosen(tmp_path, capsys):
    assert run_demo(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "attention.png").exists()
    assert str(tmp_path / "a" / "b" / "attention.png") in capsys.readouterr().out


def test_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with start_demo(tmp_path, "--out", "file") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "error: file: File exists\n"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_no_server_and_no_traceback(tmp_path, kind):
    with start_demo(tmp_path) as process:
        lines = []
        while not lines or "Over HTTP" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "the demo ended before it served"
        process.send_signal(kind)
        _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if kind is signal.SIGINT else -signal.SIGTERM)
    assert err == ""
    assert not answers(port_of("".join(lines)))


def test_environment_cannot_close_the_demo_s_own_server(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROCOST_TOKEN", "secret")
    monkeypatch.setenv("ZEROCOST_MAX_BODY", "10")
    assert run_demo(tmp_path)


class CopyingSplit(ParallelArtifact):
    """Copies its input instead of viewing it."""

    def process_parallel(self, tensor, num_splits: int = 2, axis: int = -1):
        return [part.copy() for part in np.array_split(tensor, num_splits, axis)]


class DependsOnTheWay(AttentionArtifact):
    """Gives a result over HTTP that is off by one bit."""

    def execute(self, input_data, context):
        result = np.array(input_data["attention_matrix"])
        if context.mode == "restful":
            result[0, 0, 0] = np.nextafter(result[0, 0, 0], np.float32(np.inf))
        return {"processed_attention": result, "artifact_used": context.artifact_name}

    def process_attention(self, attention_matrix, sparsity_ratio: float = 0.8, normalization: str = "none"):
        raise NotImplementedError


def registry_with(name, artifact):
    registry = ArtifactRegistry()
    for spec in default_registry().list_artifacts():
        registry.register_artifact(spec.name, artifact if spec.name == name else spec.implementation, spec.interface)
    return registry


@pytest.mark.parametrize(
    ("name", "artifact", "claim"),
    [
        ("tensor_parallel", CopyingSplit(), "share its memory"),
        ("sparse_attention", DependsOnTheWay(), "equal to the last bit"),
    ],
)
def test_false_claim_is_reported_and_fails(tmp_path, capsys, name, artifact, claim):
    assert not run_demo(tmp_path, registry_with(name, artifact))
    out = capsys.readouterr().out
    assert re.search(rf"FALSE: .*{claim}", out)
    assert "claims are FALSE" in out
    assert "claims are true" not in out


@pytest.mark.parametrize(
    "there",
    [
        [],
        [np.zeros(3, np.float32)],
        [np.zeros(3, np.float64), np.zeros(2, np.float64)],
        [np.zeros(3, np.float32), np.full(2, -0.0, np.float32)],
    ],
)
def test_differing_results_are_not_called_equal(there):
    here = [np.zeros(3, np.float32), np.zeros(2, np.float32)]
    assert not all(claim.holds for claim in claims_about_equality(here, there))
    assert all(claim.holds for claim in claims_about_equality(here, [shard.copy() for shard in here]))


def test_data_is_that_of_the_model():
    path = shared_data("minilm_layer0_attention.safetensors")
    from safetensors.numpy import load_file

    real, source = load_scores(), load_file(path)
    assert real.scores.tobytes() == source["scores"][real.heads].tobytes()
    names = {}
    for token, number in zip(real.tokens, source["input_ids"][0].tolist(), strict=True):
        assert names.setdefault(number, token) == token
    assert len(set(names.values())) == len(names)


def test_tokens_are_the_words_of_the_licence():
    words = re.findall(r"\w+|[^\w\s]", (ROOT / "LICENSE").read_text().lower())
    tokens = json.dumps(load_scores().tokens[1:-1])[2:-2].replace('", "##', "").split('", "')
    tokens = [token.replace('\\"', '"') for token in tokens]
    assert any(words[start : start + len(tokens)] == tokens for start in range(len(words)))


def test_picture_of_another_length(tmp_path):
    weights = np.eye(100, dtype=np.float32)
    panels = [Panel(title, "subtitle", weights * (title != "empty")) for title in ("one", "empty", "three")]
    draw(tmp_path / "eye.png", "Diagonal", panels, [f"word{index}" for index in range(100)], 3)
    with Image.open(tmp_path / "eye.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert [share_of_dropped(pixels, panel, 100, 4) for panel in range(3)] == pytest.approx([0.99, 1, 0.99])
