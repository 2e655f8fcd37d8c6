"""The cache on a real server, which the tests start, kill and slow down."""

import json
import signal
import threading
import time

import ml_dtypes
import numpy as np
import pytest

import zerocost
from support.contract import ArtifactContract, context
from support.equality import same
from support.processes import run_code
from support.redis import RedisServer, needs_redis
from zerocost.api.telemetry.metrics import MemoryStats
from zerocost.artifacts.memory.lru_cache import cache_from_environment
from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact, decode, encode
from zerocost.cli import main

pytestmark = [
    needs_redis,
    pytest.mark.timeout(60),
]


@pytest.fixture
def server(tmp_path):
    servers = []

    def start(*options):
        servers.append(RedisServer(tmp_path, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def artifact(redis):
    artifact = RedisCacheArtifact(redis.url)
    artifact.clear()
    yield artifact
    artifact._client.close()


class TestRedisCacheArtifact(ArtifactContract):
    @pytest.fixture(autouse=True)
    def _url(self, redis):
        self.made = []
        self.url = redis.url
        yield
        for artifact in self.made:
            artifact._client.close()

    def make(self):
        self.made.append(RedisCacheArtifact(self.url, prefix=f"contract-{len(self.made)}:"))
        return self.made[-1]

    def required(self, artifact):
        return ["key"]  # the schema's conditions need it for the example's operation


def run(artifact, operation, **inputs):
    return artifact.execute({"operation": operation, **inputs}, context("lru_cache"))


VALUES = [
    np.arange(12.0).reshape(3, 4),
    np.arange(12, dtype=np.int8).reshape(3, 4).T,
    np.zeros((0, 2), np.float16),
    np.array(2.5),
    np.ones((2, 3), ml_dtypes.bfloat16),
    np.zeros(3, ">f8"),
    np.array([True, False]),
    b"",
    b"\x00zc1",
    "text ä \ud800",
    None,
    True,
    -(2**80),
    1.5,
    float("inf"),
    [1, [2.5, None], {"a": "b"}],
    {"nested": {"list": [1, 2]}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_stored_values_come_back(artifact, value):
    assert run(artifact, "put", key="a", value=value)["result"] is True
    found = run(artifact, "get", key="a")
    assert found["found"] is True
    assert same(found["result"], value)


def test_the_operations(artifact):
    assert run(artifact, "get", key="a") == {"result": None, "found": False, "artifact_used": "lru_cache"}
    run(artifact, "put", key="a", value=b"123")
    run(artifact, "put", key="ключ *?[", value=1)
    assert run(artifact, "contains", key="a")["result"] is True
    assert run(artifact, "keys")["result"] == ["a", "ключ *?["]
    assert run(artifact, "get", key="a")["result"] == b"123"
    stats = run(artifact, "stats")["result"]
    assert stats["entries"] == 2
    assert stats["bytes"] > 3
    assert (stats["hits"], stats["misses"]) == (1, 1)
    assert run(artifact, "delete", key="a")["result"] is True
    assert run(artifact, "delete", key="a")["result"] is False
    with pytest.raises(ValueError, match="Unknown operation: flush"):
        run(artifact, "flush")


def test_only_our_prefix_is_listed_and_cleared(redis, artifact):
    other = RedisCacheArtifact(redis.url, prefix="z?rocost:[*]")
    other.store("theirs", 1)
    for n in range(2500):
        artifact.store(str(n), n)
    assert len(artifact.keys()) == 2500
    assert artifact.stats()["entries"] == 2500
    artifact.clear()
    assert artifact.keys() == []
    assert other.keys() == ["theirs"]
    other.clear()
    assert other.keys() == []
    other._client.close()


@pytest.mark.parametrize(
    "value", [object(), (1, 2), {1: 2}, {"a": np.zeros(1)}, np.array([None]), memoryview(b"1"), np.float32(1), {1}]
)
def test_values_that_cannot_be_stored_are_refused(artifact, value):
    with pytest.raises(zerocost.DatatypeError, match=r"value: .* "):
        artifact.store("a", value)
    assert not artifact.contains("a")


def test_wrong_arguments_are_refused(artifact):
    with pytest.raises(TypeError, match=r"key: .*int"):
        artifact.retrieve(1)
    with pytest.raises(ValueError, match="scheme 'http'"):
        RedisCacheArtifact("http://localhost")
    with pytest.raises(ValueError, match="timeout"):
        RedisCacheArtifact("redis://localhost", timeout=0)


def test_foreign_and_damaged_values_are_named(artifact):
    good = encode(np.arange(3.0))
    for data in (b"", b"zc", b"gibberish", good[:-1], good[:12], good.replace(b"<f8", b"|O8"), b"zc1X\0\0\0\0"):
        artifact._client.set("zerocost:bad", data)
        with pytest.raises(zerocost.InvalidInput, match="key 'bad'"):
            artifact.retrieve("bad")
    assert same(decode(good, "a"), np.arange(3.0))


def test_it_is_chosen_by_the_environment(redis, monkeypatch):
    monkeypatch.setenv("ZEROCOST_MEMORY_URL", redis.url)
    registry = zerocost.default_registry()
    chosen = registry["lru_cache"].implementation
    assert isinstance(chosen, RedisCacheArtifact)
    chosen._client.close()
    monkeypatch.setenv("ZEROCOST_MEMORY_URL", "memcached://localhost")
    with pytest.raises(ValueError, match="memcached"):
        cache_from_environment()


def test_a_lost_server_is_reported_in_bounded_time_and_can_return(server):
    redis = server()
    artifact = RedisCacheArtifact(redis.url, timeout=1.0)
    artifact.store("a", b"1")
    redis.kill()
    started = time.monotonic()
    with pytest.raises(zerocost.ServiceUnavailable, match=f"127.0.0.1:{redis.port}"):
        artifact.retrieve("a")
    assert time.monotonic() - started < 10
    redis.start()
    assert artifact.lookup("a") == (False, None)
    artifact.store("a", b"2")
    assert artifact.retrieve("a") == b"2"
    artifact._client.close()


def test_killed_in_the_middle_of_a_put(server):
    redis = server()
    artifact = RedisCacheArtifact(redis.url, timeout=2.0)
    value = np.random.default_rng(0).random(4_000_000)
    outcomes = []

    def put():
        try:
            while True:
                artifact.store("large", value)
        except zerocost.ServiceUnavailable as error:
            outcomes.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    time.sleep(0.1)
    redis.kill()
    thread.join(20)
    assert not thread.is_alive()
    assert len(outcomes) == 1
    redis.start()
    assert artifact.lookup("large") == (False, None)
    assert artifact.store("large", value)
    assert same(artifact.retrieve("large"), value)
    artifact._client.close()


def test_a_slow_server_times_out(server):
    redis = server()
    artifact = RedisCacheArtifact(redis.url, timeout=0.3)
    artifact.store("a", 1)
    redis.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(zerocost.ServiceUnavailable, match="in time"):
        artifact.retrieve("a")
    assert time.monotonic() - started < 10
    redis.process.send_signal(signal.SIGCONT)
    assert artifact.retrieve("a") == 1
    artifact._client.close()


def test_a_wrong_password_is_reported_and_not_shown(server):
    redis = server("--requirepass", "right")
    wrong = RedisCacheArtifact(f"redis://:secret-guess@127.0.0.1:{redis.port}/0")
    with pytest.raises(zerocost.ServiceUnavailable, match="password") as error:
        wrong.store("a", 1)
    assert "secret-guess" not in str(error.value)
    none = RedisCacheArtifact(redis.url)
    with pytest.raises(zerocost.ServiceUnavailable):
        none.store("a", 1)
    right = RedisCacheArtifact(f"redis://:right@127.0.0.1:{redis.port}/0")
    assert right.store("a", 1)
    for artifact in (wrong, none, right):
        artifact._client.close()


def test_no_room_on_the_server(server):
    redis = server("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    artifact = RedisCacheArtifact(redis.url)
    stored = 0
    while artifact.store(str(stored), bytes(500_000)):
        stored += 1
        assert stored < 100
    assert artifact.stats()["rejected"] == 1
    assert len(artifact.keys()) == stored
    artifact._client.close()
    redis = server("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru")
    artifact = RedisCacheArtifact(redis.url)
    for n in range(40):
        assert artifact.store(str(n), bytes(500_000))
    assert artifact.stats()["evictions"]["size"] > 0
    assert artifact.contains("39")
    artifact._client.close()


def test_two_processes_share_it(redis, artifact):
    program = f"""
import numpy as np
from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact
artifact = RedisCacheArtifact({redis.url!r})
assert artifact.retrieve("from parent").tolist() == [1.0, 2.0]
artifact.store("from child", np.arange(3))
artifact._client.close()
"""
    artifact.store("from parent", np.array([1.0, 2.0]))
    run_code(program, seconds=30)
    assert artifact.retrieve("from child").tolist() == [0, 1, 2]


def test_tuple_keys_differ_from_all_str_keys(artifact):
    keys = [("a", "b"), ("a",), ("ab",), "ab", "a", ("", ""), ("",), "", ("ä", "")]
    for number, key in enumerate(keys):
        assert artifact.store(key, number)
    assert [artifact.retrieve(key) for key in keys] == list(range(len(keys)))
    assert sorted(artifact.keys(), key=repr) == sorted(keys, key=repr)
    assert artifact.delete(("a", "b"))
    assert [artifact.contains(key) for key in [("a", "b"), "ab"]] == [False, True]
    for key in [(), ("a", 1), ("a", ("b",)), b"a", ["a"]]:
        with pytest.raises(zerocost.DatatypeError, match="a str or a tuple of str is needed"):
            artifact.store(key, 1)


def test_services_of_two_processes_share_what_they_computed(artifact, redis):
    def service():
        registry = zerocost.default_registry()
        registry.register_artifact("shared", RedisCacheArtifact(redis.url), "memory")
        service = zerocost.SimplifiedModelService(registry)
        service.use_artifact("shared")
        service.tokenizer.use_artifact("shared")
        return service

    ids = service().tokenizer.encode("the same text").input_ids
    first = service().forward(ids)
    assert (first.usage["cached"], len(artifact.keys())) == (0, 2)
    code = (
        "import sys, zerocost; from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact;"
        "registry = zerocost.default_registry();"
        "registry.register_artifact('shared', RedisCacheArtifact(sys.argv[1]), 'memory');"
        "service = zerocost.SimplifiedModelService(registry); service.use_artifact('shared');"
        f"output = service.forward({ids}); print(output.usage['cached'], output.pooled.tobytes().hex())"
    )
    assert run_code(code, redis.url).stdout.split() == ["1", first.pooled.tobytes().hex()]
    other = service()
    other.use_artifact("sliding_window_attention", window_size=1)
    assert other.forward(ids).usage["cached"] == 0
    assert {type(key) for key in artifact.keys()} == {tuple}  # noqa: SIM118 - it is no dict


def test_the_command_line_reads_a_server(artifact, redis, capsys):
    def cli(*arguments):
        assert main(["memory", *arguments]) == 0
        return capsys.readouterr().out

    run(artifact, "put", key="b", value=b"12345")
    run(artifact, "put", key="a", value=np.zeros(3))
    artifact._client.set("a stranger's", "value")
    try:
        assert cli("keys", redis.url) == "a\nb\n"
        assert json.loads(cli("keys", redis.url, "--json")) == ["a", "b"]
        stats = json.loads(cli("stats", redis.url, "--json"))
        assert stats["entries"] == 2
        assert stats["bytes"] == run(artifact, "stats")["result"]["bytes"] > 29
        assert "evictions (size)" in cli("stats", redis.url)
        assert "cleared" in cli("clear", redis.url)
        assert cli("keys", redis.url) == ""
        assert artifact._client.get("a stranger's") == b"value"
    finally:
        artifact._client.delete("a stranger's")


def test_metrics_do_not_scan_the_server_on_each_request(artifact):
    def scans():
        return artifact._client.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]

    registry = zerocost.ArtifactRegistry()
    registry.register_artifact("shared", artifact, "memory")
    registry.register_artifact("own", zerocost.default_registry()["lru_cache"].implementation, "memory")
    stats = MemoryStats(registry)
    run(artifact, "put", key="a", value=b"1")
    first = stats()
    assert first["shared"]["entries"] == 1
    assert first["own"]["entries"] == 0
    before = scans()
    registry["own"].implementation.store("b", b"2")
    again = stats()
    assert again["shared"] == first["shared"]
    assert again["own"]["entries"] == 1, "what is in the process is always asked"
    assert scans() == before
    assert set(stats.cached(of_this_process=True)) == {"own"}
