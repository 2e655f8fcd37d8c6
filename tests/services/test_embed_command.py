import numpy as np
import pytest
from safetensors.numpy import load_file

from zerocost import SimplifiedModelService, default_registry
from zerocost.cli import embedding, main


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


def test_an_interrupted_run_goes_on(lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embedding, "_STEP", 2)
    computed = []
    whole = SimplifiedModelService.embed_and_count

    def embed_and_count(self, texts):
        if len(computed) == 1 and "Über vier" in texts:
            computed.append(None)
            raise KeyboardInterrupt
        computed.append(texts)
        return whole(self, texts)

    monkeypatch.setattr(SimplifiedModelService, "embed_and_count", embed_and_count)
    assert main(["embed", str(lines)]) == 130
    assert len(leftovers(tmp_path)) == 2
    assert main(["embed", str(lines)]) == 0
    assert "going on after line 2" in capsys.readouterr().err
    assert computed == [TEXTS[:2], None, TEXTS[2:4], TEXTS[4:]]
    np.testing.assert_allclose(np.load(lines.with_suffix(".npy")), expected(), atol=2e-6)
    assert leftovers(tmp_path) == []


def test_what_another_text_left_is_not_gone_on_with(lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embedding, "_STEP", 2)
    whole = SimplifiedModelService.embed_and_count

    def embed_and_count(self, texts):
        if "five" in texts:
            raise KeyboardInterrupt
        return whole(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(SimplifiedModelService, "embed_and_count", embed_and_count)
        assert main(["embed", str(lines)]) == 130
    lines.write_text("another\ntext\nof\nmore\nlines\n")
    assert main(["embed", str(lines)]) == 0
    assert "going on" not in capsys.readouterr().err
    wanted = SimplifiedModelService(default_registry()).embed(["another", "text", "of", "more", "lines"])
    np.testing.assert_allclose(np.load(lines.with_suffix(".npy")), wanted, atol=2e-6)


def test_truncated_lines_are_counted(tmp_path, capsys):
    file = tmp_path / "long.txt"
    file.write_text("x" * 600 + "\nshort\n")
    assert main(["embed", str(file)]) == 0
    assert "1 lines were truncated to 512 tokens" in " ".join(capsys.readouterr().err.split())


def test_mistakes_are_said_in_one_line(lines, tmp_path, capsys):
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
