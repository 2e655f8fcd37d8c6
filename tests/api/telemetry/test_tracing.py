"""Spans: of requests, steps and failures, and how they reach a collector."""

import gzip
import pickle
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.processes import run_code
from support.requests import post
from support.samples import sample_registry
from support.servers import serve_command, serving
from zerocost import ChainArtifact, ExecutionContext, RemoteArtifact, default_registry
from zerocost.api.settings import Settings
from zerocost.api.telemetry.tracing import Tracing, create_tracing


@pytest.mark.timeout(60)
def test_spans_reach_a_collector():
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with serve_command(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="tested") as (process, url, _):
            assert post(url, "/artifacts/tensor_parallel/execute", {"tensor": [1.0, 2.0]}).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    content = b"".join(body for _, body in received)
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    for text in (b"tested", b"POST /artifacts/{name}/execute", b"execute tensor_parallel"):
        assert text in content


MATRIX = [[1.0, 0.5], [0.5, 1.0]]


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported(monkeypatch):
    """Where the spans go that end in this test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process can set its provider once; other tests shall not be traced.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def spans(exported):
    return lambda: {span.name: span for span in exported.get_finished_spans()}


def test_a_request_is_a_child_span_of_the_caller_s(spans):
    with serving(sample_registry(), tracing=True) as client:
        answer = client.post(
            "/artifacts/scale/execute", json={"attention_matrix": MATRIX}, headers={"traceparent": PARENT}
        )
        assert answer.status_code == 200
        port = client.base_url.port
    found = spans()
    server, work = found["POST /artifacts/{name}/execute"], found["execute scale"]
    assert server.kind is trace.SpanKind.SERVER
    assert f"{server.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{server.parent.span_id:016x}" == PARENT.split("-")[2]
    assert work.parent.span_id == server.context.span_id
    assert work.attributes["zerocost.artifact"] == "scale"
    expected = {
        "http.request.method": "POST",
        "http.route": "/artifacts/{name}/execute",
        "http.response.status_code": 200,
        "url.path": "/artifacts/scale/execute",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "zerocost.request_id": answer.headers["x-request-id"],
    }
    assert {name: server.attributes[name] for name in expected} == expected
    assert server.status.is_unset


def test_every_step_of_a_chain_is_a_span(spans):
    registry = default_registry()
    inner = [{"artifact": "sparse_attention"}, {"artifact": "sliding_window_attention", "params": {"window_size": 3}}]
    registry.register_artifact("inner", ChainArtifact(inner, registry), "chain")
    # Two branches, which run in threads of their own, and a chain in the chain.
    pipeline = [
        {"artifact": "inner", "id": "a"},
        {"artifact": "tensor_parallel", "id": "b", "inputs": {"tensor": "a.processed_attention"}},
        {"artifact": "pipeline_parallel", "id": "c", "inputs": {"tensor": "a.processed_attention"}},
    ]
    with serving(registry, tracing=True) as client:
        body = {"pipeline": pipeline, "initial_input": {"attention_matrix": MATRIX}}
        assert client.post("/chains/execute", json=body).status_code == 200
    found = spans()
    server = found["POST /chains/execute"]
    for index, name in enumerate(("inner", "tensor_parallel", "pipeline_parallel")):
        step = found[f"execute {name}"]
        assert step.parent.span_id == server.context.span_id
        assert step.attributes["zerocost.step.index"] == index
        assert step.attributes["zerocost.step.id"] == "abc"[index]
    for name in ("sparse_attention", "sliding_window_attention"):
        assert found[f"execute {name}"].parent.span_id == found["execute inner"].context.span_id


def test_spans_continue_on_the_next_server(spans):
    with serving(sample_registry(), tracing=False) as there:
        registry = sample_registry()
        far = RemoteArtifact(str(there.base_url), "picky")
        registry.register_artifact("far", far, "custom")
        with serving(registry, tracing=True) as client:
            answer = client.post("/artifacts/far/execute", json={"how": "metadata"}, headers={"traceparent": PARENT})
            seen = answer.json()["data"]["traceparent"]
        far.close()
    span = spans()["execute far"]
    assert seen == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def test_failures_are_marked(exported):
    with serving(sample_registry(), tracing=True) as client:
        assert client.post("/artifacts/picky/execute", json={"how": "key"}).status_code == 500
        assert client.post("/artifacts/picky/execute", json={"how": 1}).status_code == 422
        assert client.request("PROPFIND", "/artifacts").status_code == 405
        assert client.get("/nothing/there").status_code == 404
    by_status = {span.attributes.get("http.response.status_code"): span for span in servers(exported)}
    failed = by_status[500]
    assert failed.attributes["error.type"] == "KeyError"
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert failed.events[0].name == "exception"
    assert by_status[422].status.is_unset
    assert by_status[405].name == "HTTP /artifacts"
    assert by_status[405].attributes["http.request.method"] == "_OTHER"
    assert by_status[404].name == "GET"


def servers(exported):
    return [span for span in exported.get_finished_spans() if span.kind is trace.SpanKind.SERVER]


def test_a_pickled_context_opens_no_spans(spans):
    tracing = Tracing()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    span = tracing.start(scope)
    copy = pickle.loads(pickle.dumps(scope["zerocost.span"]))
    with copy("execute x", {}) as traceparent:
        assert f"{span.get_span_context().trace_id:032x}" in traceparent
    assert "execute x" not in spans()


def test_opentelemetry_is_loaded_only_when_it_is_configured(monkeypatch):
    program = (
        "import sys; from zerocost import create_app; app = create_app();"
        "print('opentelemetry' in sys.modules, type(app.edge).__name__)"
    )

    def run(**environment):
        done = run_code(program, without="OTEL_", variables=environment)
        return done.stdout.split()

    assert run() == ["False", "EdgeMiddleware"]
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") == ["True", "AccessLogMiddleware"]
    assert run(OTEL_TRACES_EXPORTER="none") == ["False", "EdgeMiddleware"]
    assert run(ZEROCOST_TRACING="1") == ["True", "AccessLogMiddleware"]
    assert run(ZEROCOST_TRACING="1", OTEL_SDK_DISABLED="true") == ["False", "EdgeMiddleware"]


def test_tracing_without_opentelemetry_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    from zerocost import PluginError

    with pytest.raises(PluginError, match=r"zerocost\[otel\]"):
        create_tracing(Settings(tracing=True))


def test_the_context_of_a_caller_in_the_process_may_carry_spans():
    opened = []

    class Span:
        def __init__(self, name, attributes):
            opened.append((name, attributes["zerocost.step.id"]))

        def __enter__(self):
            return PARENT

        def __exit__(self, *_):
            pass

    registry = sample_registry()
    chain = ChainArtifact([{"artifact": "picky", "id": "only"}], registry)
    outputs = chain.execute({"how": "metadata"}, ExecutionContext("chain", "chain", "zero_cost", {"span": Span}))
    assert opened == [("execute picky", "only")]
    assert outputs["traceparent"] == PARENT
