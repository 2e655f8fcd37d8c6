"""The REST tests of ``tests/api`` against the same app on Ray Serve, behind Ray's proxy."""

import sys

import httpx2
import pytest
import tritonclient.http as tritonclient

import zerocost
from api import test_admission, test_deadlines, test_equality, test_limits
from api.edge import test_authentication
from api.routes import test_memory_entries, test_native, test_services
from api.v2 import test_open_inference
from api.wire import test_body, test_problems, test_safetensors
from client import test_remote_artifact
from support.paths import TESTS
from support.ray import MARKS
from support.requests import execute, problem
from support.service_registry import services_registry
from support.threads import together

pytestmark = MARKS


ELSEWHERE = {
    "test_the_coroutines_answer_as_the_specification_says": "has no server",
    "test_request_ids": "the proxy repeats whatever id it was sent, also one that zerocost would replace (below)",
    "test_one_connection_is_reused": "counts in the server's process",
    "test_a_server_that_is_killed_in_the_middle_of_a_step": "has a server of its own",
    "test_a_chain_over_http_names_the_step_and_the_server_that_was_killed": "has a server of its own, and its registry",
    "test_requests_of_disconnected_clients_are_not_computed": "has a server of its own",
    "test_artifacts_get_the_deadline_of_the_request": "looks into the server's registry",
}
"""Shared tests that say nothing about Ray Serve, or cannot hold there as they are written, and why."""


def shared(module, *names):
    """The tests of a module, or those of these names, to stand in a class."""
    return {
        name: staticmethod(test)
        for name, test in vars(module).items()
        if name.startswith("test_") and name not in ELSEWHERE and (not names or name in names)
    }


class Deployments:
    """One Ray Serve, whose app is exchanged when a test needs another one."""

    def __init__(self, url):
        self._url = url
        self._there = None

    def client(self, kind, replicas=1, **settings):
        wanted = (kind, replicas, settings)
        if self._there != wanted:
            from zerocost.engine.ray_serve import deploy

            deploy(maker(kind, settings), replicas)
            self._there = wanted
        return httpx2.Client(base_url=self._url, trust_env=False, timeout=60)


def maker(kind, settings):
    """Makes the app in a replica, which has to find the tests' samples first."""
    tests = str(TESTS)

    def make_app():
        if tests not in sys.path:
            sys.path.insert(0, tests)
        from support import samples
        from zerocost import create_app, default_registry
        from zerocost.api.settings import Settings

        if kind == "services":
            from support.service_registry import services_registry

            registry = services_registry()
        elif kind == "both":
            registry = default_registry()
            more = samples.sample_registry()
            for name in more:
                registry.register_artifact(name, more[name].implementation, more[name].interface)
        else:
            registry = {"sample": samples.sample_registry, "echo": samples.echo_registry}[kind]()
        return create_app(registry, Settings(**settings))

    return make_app


@pytest.fixture(scope="module")
def deployments(cluster):
    from zerocost.engine.ray_serve import deployed

    with deployed(maker("sample", {}), port=0) as url:
        yield Deployments(url)


@pytest.fixture
def serve(deployments):
    """As ``serve`` of ``tests/api``: the registry is made anew in the replica."""
    clients = []

    def start(registry=(), **settings):
        kinds = {"first": "services", "echo": "echo", "scale": "sample"}
        kind = next((kind for name, kind in kinds.items() if name in registry), "both")
        clients.append(deployments.client(kind, **settings))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


class TestNative:
    locals().update(
        shared(test_native)
        | shared(test_problems, "test_a_third_party_value_error_is_the_clients")
        | shared(test_body, "test_compressed_bodies")
        | shared(test_safetensors, "test_chains_as_safetensors", "test_safetensors_by_another_implementation")
        | shared(test_deadlines, "test_deadlines")
        | shared(test_admission, "test_requests_beyond_the_queue_are_shed")
        | shared(
            test_authentication,
            "test_other_hosts_are_refused_without_a_token",
            "test_pages_of_other_origins_are_refused_without_a_token",
            "test_tokens",
        )
        | shared(
            test_limits,
            "test_a_body_beyond_the_limit_is_refused",
            "test_128_mib_against_a_smaller_limit_get_the_413_and_no_broken_pipe",
            "test_deep_and_many_values",
            "test_elements_of_inputs_and_outputs",
            "test_work_that_grows_faster_than_the_arrays",
            "test_steps_and_fan_out",
        )
    )

    @pytest.fixture
    def client(self, deployments):
        with deployments.client("sample", replicas=2) as client:
            yield client


class TestOpenInference:
    """One replica, since each has statistics and loaded models of its own."""

    locals().update(shared(test_open_inference))

    @pytest.fixture
    def server(self, deployments):
        with deployments.client("echo") as client:
            yield client

    @pytest.fixture
    def client(self, server):
        address = f"{server.base_url.host}:{server.base_url.port}"
        with tritonclient.InferenceServerClient(address, concurrency=4) as client:
            yield client


class TestEquality:
    locals().update(shared(test_equality))

    @pytest.fixture
    def clients(self, deployments):
        with deployments.client("both", replicas=2) as client:
            yield {"built-in": client, "sample": client}


class TestRemote:
    locals().update(shared(test_remote_artifact))

    @pytest.fixture
    def server(self, deployments):
        with deployments.client("echo") as client:
            yield client

    @pytest.fixture
    def remote(self, server):
        with test_remote_artifact.remotes(server) as make:
            yield make


class TestServices:
    locals().update(
        shared(test_services)
        | shared(
            test_memory_entries,
            "test_memory_by_method",
            "test_entries_that_cannot_be_put",
            "test_a_chain_passes_on_the_value_of_a_raw_entry",
            "test_raw_entries_are_values_for_clients_that_ask_for_values",
        )
    )

    @pytest.fixture
    def registry(self):
        return services_registry()


def test_an_exception_is_only_in_the_log(deployments):
    with deployments.client("sample", replicas=2) as client:
        for how in ("key", "no dict", "object"):
            answer = client.post("/artifacts/picky/execute", json={"how": how})
            document = problem(answer, 500, "internal")
            assert "passwd" not in str(document)


def test_the_answers_carry_their_stages_and_one_request_id(deployments):
    with deployments.client("sample", replicas=2) as client:
        body = {"attention_matrix": [[1.0]]}
        answer = client.post("/artifacts/scale/execute", json=body, headers={"x-request-id": "abc"})
        assert answer.headers.get_list("x-request-id") == ["abc"]
        assert "compute;dur=" in answer.headers["server-timing"]


def test_requests_are_shared_between_the_replicas(deployments):
    with deployments.client("sample", replicas=2) as client:
        answers = together(16, lambda _: execute(client, "picky", how="sleep"), seconds=60)
        assert [answer.status_code for answer in answers] == [200] * 16
        pages = {client.get("/metrics").text for _ in range(40)}
        # Each replica counts its own: there are as many series of numbers as replicas.
        counts = {page.partition('zerocost_answers_total{status="200"} ')[2].split("\n")[0] for page in pages}
        assert len(counts) > 1


@pytest.mark.parametrize(("replicas", "threads"), [(2, 2), (3, 1)])
def test_the_replicas_of_a_node_share_its_cores(deployments, replicas, threads):
    with deployments.client("sample", replicas=replicas) as client:
        answers = [client.post("/artifacts/picky/execute", json={"how": "threads"}).json() for _ in range(4)]
    assert [answer["data"] for answer in answers] == [{"threads": threads}] * 4


def test_a_second_serve_on_the_cluster_is_refused(deployments):
    from zerocost.engine.ray_serve import deployed

    with pytest.raises(zerocost.ServiceUnavailable, match="runs on this cluster already"), deployed(maker("echo", {})):
        pass
    with deployments.client("sample", replicas=2) as client:
        assert client.get("/livez").status_code == 200, "the first one goes on"
