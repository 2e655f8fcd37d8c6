"""``zerocost memory``: snapshots and served instances."""

import json

import numpy as np

import zerocost
from zerocost import LRUCache
from zerocost.api.application import create_app
from zerocost.api.server.run import background_server


def test_a_snapshot(cli, tmp_path):
    path = tmp_path / "cache.safetensors"
    cache = LRUCache(9)
    cache.update(first=np.zeros(4), second=b"123")
    cache.snapshot(path)
    assert cli("memory", "keys", path) == (0, "first\nsecond\n", "")
    assert json.loads(cli("memory", "keys", path, "--json")[1]) == ["first", "second"]
    stats = json.loads(cli("memory", "stats", path, "--json")[1])
    assert (stats["entries"], stats["bytes"]) == (2, 35)
    code, out, _ = cli("memory", "stats", path)
    assert code == 0
    assert "entries" in out
    assert "evictions (size)" in out
    assert cli("memory", "clear", path)[0] == 0
    assert cli("memory", "keys", path) == (0, "", "")


def test_snapshot_that_is_not_one_is_one_line(cli, tmp_path):
    code, _, err = cli("memory", "keys", tmp_path / "nothing")
    assert code == 2
    assert "is not a file" in err
    (tmp_path / "text").write_text("text")
    code, _, err = cli("memory", "stats", tmp_path / "text")
    assert code == 2
    assert "damaged" in err
    for target, text in (("redis://127.0.0.1:1", "cannot be reached"), ("http://127.0.0.1:1", "does not answer")):
        code, _, err = cli("memory", "stats", target)
        assert code == 2
        assert text in err
        assert err.count("\n") == 1


def test_a_served_instance(cli):
    registry = zerocost.default_registry()
    registry["lru_cache"].implementation.store("a", b"1")
    with background_server(create_app(registry)) as url:
        assert cli("memory", "keys", url) == (0, "a\n", "")
        assert cli("memory", "keys", f"{url}/artifacts/lru_cache") == (0, "a\n", "")
        assert json.loads(cli("memory", "stats", url, "--json")[1])["entries"] == 1
        assert cli("memory", "clear", url)[0] == 0
        assert cli("memory", "keys", url) == (0, "", "")
        code, _, err = cli("memory", "keys", f"{url}/artifacts/other")
        assert code == 2
        assert "Artifact other not found" in err
