"""What five spans cost a request: noted by spans.py, and made by OpenTelemetry's SDK.

    python bench/spans.py        # with PYTHONPATH=include

Writes a line each to stdout: median and 99th percentile in microseconds of the request's own time, what the thread
behind it takes for a trace, and how many a second a busy process notes while that thread writes them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from nightshift import otlp, spans
from nightshift.otlp import Background, FileSink
from nightshift.segments import Segments

ROUNDS = 10_000
SECTIONS = [f"{number:016x}" for number in range(3)]


def ours(tracer: spans.Tracer) -> spans.Trace:
    """A request as the gateway notes it."""
    trace = tracer.request("chat", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    trace.set(key="abcdefghij", release="a" * 64, version="v0.3.0", commit="c" * 40, side="stable")
    with trace.step("retrieve") as step:
        step.set(sections=SECTIONS, scores=[0.5, 0.3, 0.2], corpus="e" * 64)
    with trace.step("prompt") as step:
        step.set(prompt="d" * 64, prompt_name="lora")
    with trace.step("engine") as step:
        step.set(operation="chat", provider="nightshift", model="nightshift", max_tokens=24, first_token_s=0.04)
        step.set(input_tokens=120, output_tokens=7, finish=["stop"])
    with trace.step("scrub") as step:
        step.set(masked_out={"EMAIL": 1})
    trace.set(status=200, abstained=False)
    trace.end()
    return trace


def sdks() -> Callable[[], None]:
    """The same by OpenTelemetry's SDK, which hands ended spans to a queue."""
    os.environ.pop("OTEL_SDK_DISABLED", None)
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    class Queue(SpanProcessor):
        """Keeps the last spans."""

        held: deque[ReadableSpan] = deque(maxlen=1000)

        def on_end(self, span: ReadableSpan) -> None:
            """Keep it."""
            self.held.append(span)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Queue())
    tracer = provider.get_tracer("bench")

    def request() -> None:
        root = tracer.start_span("chat", kind=trace.SpanKind.SERVER)
        root.set_attributes({"k": "abcdefghij", "r": "a" * 64, "v": "v0.3.0", "c": "c" * 40, "s": "stable"})
        inside = trace.set_span_in_context(root)
        for attributes in (
            {"s": SECTIONS, "p": [0.5, 0.3, 0.2], "c": "e" * 64},
            {"p": "d" * 64, "n": "lora"},
            {"o": "chat", "p": "nightshift", "m": "nightshift", "t": 24, "f": 0.04, "i": 120, "u": 7, "r": ["stop"]},
            {"m": 1},
        ):
            step = tracer.start_span("step", context=inside)
            step.set_attributes(attributes)
            step.end()
        root.set_attributes({"status": 200, "abstained": False})
        root.end()

    return request


def timed(name: str, once: Callable[[], object], rounds: int = ROUNDS) -> None:
    """Print the median and the 99th percentile of one call."""
    for _ in range(rounds // 20):
        once()
    took = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        once()
        took.append((time.perf_counter_ns() - began) / 1000)
    took.sort()
    print(f"{name:<28} p50 {took[rounds // 2]:6.1f} µs  p99 {took[rounds * 99 // 100]:6.1f} µs", flush=True)


def main() -> None:
    """Measure them one after another."""
    nowhere = spans.Tracer("nightshift-gateway")
    timed("spans.py", lambda: ours(nowhere))
    timed("opentelemetry-sdk", sdks())
    trace = ours(nowhere)
    timed("a line of OTLP JSON (thread)", lambda: otlp.line(trace))
    timed("the same over protobuf", lambda: MessageToJson(encode_spans(otlp.readable(trace))), ROUNDS // 10)
    with tempfile.TemporaryDirectory() as folder:
        tracer = spans.Tracer("nightshift-gateway", [Background(FileSink(Segments(Path(folder), "gateway")), 100_000)])
        began = time.perf_counter()
        timed("spans.py, file behind it", lambda: ours(tracer))
        tracer.close()
        print(f"{ROUNDS * 1.05 / (time.perf_counter() - began):,.0f} traces/s noted and written: {tracer.counts()}")


if __name__ == "__main__":
    main()
