"""OpenTelemetry (extra ``otel``): a span for each request, with child spans for its artifacts and steps of a chain.

Names and attributes follow the semantic conventions for HTTP servers; those without a convention are ``zerocost.…``.
Nothing of OpenTelemetry is imported before it is wanted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from zerocost._kernels import __version__
from zerocost.api.routing import route_template
from zerocost.api.settings import Settings
from zerocost.api.wire.request import Request
from zerocost.errors import PluginError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["Tracing", "configure_export", "create_tracing", "is_enabled"]

logger = logging.getLogger("zerocost.api")

_KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_EXPORT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


def create_tracing(settings: Settings) -> Tracing | None:
    """What makes the spans, None if none are wanted.

    Raises:
        PluginError: the settings ask for spans, and OpenTelemetry is not installed.
    """
    if not is_enabled(settings):
        return None
    try:
        return Tracing()
    except ImportError:
        if settings.tracing is None:
            logger.warning("the environment asks for traces (OTEL_…), which need: pip install 'zerocost[otel]'")
            return None
        raise PluginError("tracing: OpenTelemetry is not installed; pip install 'zerocost[otel]'") from None


def is_enabled(settings: Settings) -> bool:
    """Whether the settings, the environment or the program ask for spans."""
    if settings.tracing is False or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if settings.tracing or any(os.environ.get(name, "none") not in ("", "none") for name in _EXPORT_VARIABLES):
        return True
    return _provider_is_set()


def _provider_is_set() -> bool:
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return False
    from opentelemetry import trace

    return isinstance(trace.get_tracer_provider(), sdk.TracerProvider)


def configure_export() -> None:
    """Sends spans where the environment says (``OTEL_EXPORTER_OTLP_ENDPOINT``, …). For programs, not for libraries."""
    if _provider_is_set():
        return
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
    except ImportError:
        return  # create_tracing reports it

    kind = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    exporter: SpanExporter
    if kind == "console":
        exporter = ConsoleSpanExporter(out=sys.stderr)
    elif kind == "otlp":
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise PluginError("OTEL_TRACES_EXPORTER: otlp needs pip install 'zerocost[otel]'") from None
        exporter = OTLPSpanExporter()
    else:
        raise PluginError(f"OTEL_TRACES_EXPORTER: {kind!r} was given, 'otlp', 'console' or 'none' is allowed")
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "zerocost"}
    provider = TracerProvider(resource=Resource.create({"service.version": __version__, **named}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


class Tracing:
    """Makes the spans of a server."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = trace.get_tracer("zerocost", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def start(self, scope: Scope) -> Span:
        """Starts the span of a request, a child of the caller's ``traceparent``; the scope gets :class:`ChildSpans`."""
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "_OTHER"
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if method == "_OTHER":
            attributes["http.request.method_original"] = scope["method"]
        for side in ("server", "client"):
            address = scope.get(side)
            if address:
                attributes |= {f"{side}.address": address[0]} | ({f"{side}.port": address[1]} if address[1] else {})
        for name, value in scope["headers"]:
            if name == b"user-agent":
                attributes["user_agent.original"] = value.decode("latin-1")
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            context=self._propagator.extract(carrier) if carrier else None,
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        )
        scope["zerocost.span"] = ChildSpans(self, span)
        return span

    def finish(self, span: Span, scope: Scope, status: int | None, request: Request | None) -> None:
        """Ends the span of a request, with its route and its status; None if the client disconnected before."""
        from opentelemetry.trace import Status, StatusCode

        route = route_template(scope)
        if route is not None:
            span.set_attribute("http.route", route)
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "HTTP"
            span.update_name(f"{method} {route}")
        span.set_attribute("zerocost.request_id", "" if request is None else request.id)
        error = None if request is None else request.error
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if status is not None and status >= 500:
            span.set_attribute("error.type", type(error).__qualname__ if error is not None else str(status))
            span.set_status(Status(StatusCode.ERROR))
            if error is not None:
                span.record_exception(error)
        span.end()

    @contextmanager
    def child_span(self, parent: Span, name: str, attributes: Mapping[str, Any]) -> Iterator[str]:
        """A child of ``parent``, or of the current span if that belongs to its trace; yields its ``traceparent``."""
        trace = self._trace
        current, request = trace.get_current_span().get_span_context(), parent.get_span_context()
        # In a chain in a chain the current span is that of the outer step.
        context = None if current.trace_id == request.trace_id else trace.set_span_in_context(parent)
        with self._tracer.start_as_current_span(name, context=context, attributes=dict(attributes)) as span:
            try:
                carrier: dict[str, str] = {}
                self._propagator.inject(carrier, trace.set_span_in_context(span))
                yield carrier.get("traceparent", "")
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise


class ChildSpans:
    """Opens child spans of a request: ``metadata["span"]`` of an execution context."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span

    def __call__(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[str]:
        """A span for the work of an artifact; yields the ``traceparent`` for its calls to other servers."""
        return self._tracing.child_span(self._span, name, attributes)

    def __reduce__(self) -> tuple[type[_RemoteParent], tuple[str]]:
        # A context that is sent to another process (Ray) takes the ids of this request's spans there, nothing else.
        with self("send", {}) as traceparent:
            return _RemoteParent, (traceparent,)


@dataclass(frozen=True)
class _RemoteParent:
    """What :class:`ChildSpans` becomes in another process: it opens no spans, and passes the ids on."""

    traceparent: str

    def __call__(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[str]:
        return nullcontext(self.traceparent)
