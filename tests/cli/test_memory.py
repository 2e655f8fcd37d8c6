"""``zerocost memory``: snapshots and served instances."""

import json

import numpy as np
import pytest

import zerocost
from zerocost import LRUCache
from zerocost.api.application import create_app
from zerocost.api.server.run import background_server
from zerocost.cli import main


@pytest.fixture
def cli(capsys):
    def run(*arguments):
        code = main(["memory", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_snapshot(cli, tmp_path):
    path = tmp_path / "cache.safetensors"
    cache = LRUCache(9)
    cache.update(first=np.zeros(4), second=b"123")
    cache.snapshot(path)
    assert cli("keys", path) == (0, "first\nsecond\n", "")
    assert json.loads(cli("keys", path, "--json")[1]) == ["first", "second"]
    stats = json.loads(cli("stats", path, "--json")[1])
    assert (stats["entries"], stats["bytes"]) == (2, 35)
    code, out, _ = cli("stats", path)
    assert code == 0
    assert "entries" in out
    assert "evictions (size)" in out
    assert cli("clear", path)[0] == 0
    assert cli("keys", path) == (0, "", "")


def test_snapshot_that_is_not_one_is_one_line(cli, tmp_path):
    code, _, err = cli("keys", tmp_path / "nothing")
    assert code == 2
    assert "is not a file" in err
    (tmp_path / "text").write_text("text")
    code, _, err = cli("stats", tmp_path / "text")
    assert code == 2
    assert "damaged" in err
    for target, text in (("redis://127.0.0.1:1", "cannot be reached"), ("http://127.0.0.1:1", "does not answer")):
        code, _, err = cli("stats", target)
        assert code == 2
        assert text in err
        assert err.count("\n") == 1


def test_a_served_instance(cli):
    registry = zerocost.default_registry()
    registry["lru_cache"].implementation.store("a", b"1")
    with background_server(create_app(registry)) as url:
        assert cli("keys", url) == (0, "a\n", "")
        assert cli("keys", f"{url}/artifacts/lru_cache") == (0, "a\n", "")
        assert json.loads(cli("stats", url, "--json")[1])["entries"] == 1
        assert cli("clear", url)[0] == 0
        assert cli("keys", url) == (0, "", "")
        code, _, err = cli("keys", f"{url}/artifacts/other")
        assert code == 2
        assert "Artifact other not found" in err
