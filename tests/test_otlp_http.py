"""Traces reach any OTLP collector, and what it says of them is believed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp_pb2

from nightshift import attributes, otlp_http, params, segments, spans, tracing
from nightshift.otlp_http import HttpSink
from nightshift.spans import Tracer
from tests.served import serving
from tests.test_spans import asked


class Collector(ThreadingHTTPServer):
    """Takes exports; `rejects` of the spans of each it says that it left out."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.exports: list[otlp_pb2.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.rejects = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take an export."""
        body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
        self.server.exports.append(otlp_pb2.ExportTraceServiceRequest.FromString(body))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        partial = otlp_pb2.ExportTracePartialSuccess(rejected_spans=self.server.rejects)
        said = otlp_pb2.ExportTraceServiceResponse(partial_success=partial).SerializeToString()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    with serving(made):
        yield made


def test_an_export_is_one_message_with_the_spans_of_every_trace(collector: Collector) -> None:
    tracer = Tracer("nightshift-gateway")
    todo = [asked(tracer) for _ in range(3)]
    wanted = {one.trace_id for one in todo}
    assert HttpSink("otlp", collector.url).send(todo) == 0.0
    assert todo == []
    (export,) = collector.exports
    found = [span for one in export.resource_spans for scope in one.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in found} == wanted
    assert len(found) == 15
    assert {one.scope_spans[0].schema_url for one in export.resource_spans} == {attributes.SCHEMA_URL}


def test_spans_that_a_collector_left_out_are_counted_and_said(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.rejects = 2
    sink = HttpSink("otlp", collector.url)
    sink.send([asked(Tracer("x"))])
    assert (sink.rejected_spans, sink.failed) == (2, 0)
    assert [one.getMessage() for one in caplog.records] == ["traces to otlp: it left out 2 spans"]


def test_its_headers_are_opentelemetrys_own_variable(
    collector: Collector, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-team=mill")
    assert otlp_http.headers() == {"authorization": "Bearer abc", "x-team": "mill"}
    section = params.load(root / params.FILE, tracing.Traces).model_copy(update={"otlp": collector.url})
    tracer = tracing.tracer(tmp_path, section, "gateway")
    asked(tracer)
    tracer.close()
    assert tracer.counts()["otlp"] == {"sent": 1, "dropped": 0, "failed": 0}
    assert collector.headers[0]["authorization"] == "Bearer abc"
    assert segments.files(tmp_path / spans.FOLDER)
