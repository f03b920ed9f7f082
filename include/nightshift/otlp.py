"""Ended traces in OpenTelemetry's forms, and the thread that carries them to a sink.

`line` is OTLP JSON as OpenTelemetry's file exporter writes it (specification, protocol/file-exporter): one
ExportTraceServiceRequest a line, here one trace a line. It is written by hand: it is a few dictionaries, and the way
over protobuf takes 650 µs a trace instead of 70, in a thread that the gateway's own work waits for (bench/spans.py).
`readable` gives the SDK's own ReadableSpan, for its encoders.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from nightshift.attributes import SCHEMA_URL, SCOPE, VERSION
from nightshift.segments import Segments
from nightshift.spans import Step, Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

T = TypeVar("T")
BATCH = 128  # that a sink is given at once, at most
EVERY_S = 0.5  # between two looks at a queue that is not full
PAUSE_S = 0.0005  # between two of a batch, which take 0.1 ms each
LAST_S = 5.0  # for what waits when the process ends
log = logging.getLogger("nightshift.traces")


class Sink(Protocol[T]):
    """Takes traces (or ratings of them), in a thread of its own."""

    name: str
    failed: int  # those that it could not take, for good

    def send(self, todo: list[T]) -> float:
        """Take from the list what is sent or lost; seconds after which to offer what is left."""

    def tidy(self) -> None:
        """Called now and then, whether anything comes or not."""


class Background(Generic[T]):
    """An outlet with a bounded queue: what comes while it is full pushes the oldest out, which is counted."""

    def __init__(self, sink: Sink[T], queue: int, every_s: float = EVERY_S) -> None:
        self.sink, self.every_s = sink, every_s
        self.sent = self.dropped = 0
        self._queue: deque[T] = deque(maxlen=queue)
        self._wake, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=f"traces-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, one: T) -> None:
        """Queue one: a microsecond, whatever the sink does."""
        if len(self._queue) == self._queue.maxlen:
            self.dropped += 1
        self._queue.append(one)
        if len(self._queue) >= BATCH and not self._wake.is_set():
            self._wake.set()

    def counts(self) -> dict[str, dict[str, int]]:
        """By the sink's name: traces that were sent, dropped here, and refused by the sink."""
        return {self.sink.name: {"sent": self.sent, "dropped": self.dropped, "failed": self.sink.failed}}

    def close(self) -> None:
        """Send what waits, within five seconds, and end."""
        self._closing = True
        self._wake.set()
        self._thread.join(LAST_S)
        if self._thread.is_alive() or self._queue:
            self.dropped += len(self._queue)
            self._queue.clear()

    def _run(self) -> None:
        self.sink.tidy()
        while not self._closing:
            self._wake.wait(self.every_s)
            self._wake.clear()
            self._drain()
            self.sink.tidy()
        self._drain()

    def _drain(self) -> None:
        while batch := self._taken():
            while batch:
                again = self._send(batch)
                if batch and self._closing:  # that was the last try
                    self.dropped += len(batch)
                    return
                if batch:
                    self._pause(again)

    def _pause(self, seconds: float) -> None:
        """Wait for so long, or until the process ends; a queue that fills up meanwhile is no reason to hurry."""
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)
            if not self._closing:
                self._wake.clear()

    def _send(self, batch: list[T]) -> float:
        size, failed = len(batch), self.sink.failed
        try:
            return self.sink.send(batch)
        except Exception:  # a bug must not end the thread: the queue would fill, and nobody would know
            log.exception("traces are lost on their way to %s", self.sink.name)
            self.sink.failed += len(batch)
            batch.clear()
            return 0.0
        finally:
            self.sent += size - len(batch) - (self.sink.failed - failed)

    def _taken(self) -> list[T]:
        batch: list[T] = []
        while self._queue and len(batch) < BATCH:
            batch.append(self._queue.popleft())
        return batch


@dataclass
class Direct:
    """An outlet without a queue: for a process that has one trace, at its end."""

    sink: Sink[Trace]

    def put(self, trace: Trace) -> None:
        """Hand it to the sink now."""
        self.sink.send([trace])

    def counts(self) -> dict[str, dict[str, int]]:
        """What the sink lost."""
        return {self.sink.name: {"failed": self.sink.failed}}

    def close(self) -> None:
        """Nothing waits."""


@dataclass
class FileSink:
    """Appends every trace to a local file; a disk that is full loses them and says so once."""

    segments: Segments
    now: Callable[[], float] = time.time
    name: str = "file"
    failed: int = 0

    def send(self, todo: list[Trace]) -> float:
        """Write them."""
        try:
            self.segments.append(b"".join(map(line, yielding(todo))), self.now())
        except OSError as error:
            if not self.failed:
                log.warning("traces cannot be written: %s", error.strerror)
            self.failed += len(todo)
        todo.clear()
        return 0.0

    def tidy(self) -> None:
        """Remove what is old."""
        self.segments.tidy(self.now())


def yielding(batch: Iterable[T]) -> Iterator[T]:
    """Let other threads run after each of a batch: without the pause a request would lose the interpreter to this
    thread whenever it reads or writes, some twenty times, for as long as the batch lasts."""
    for one in batch:
        yield one
        time.sleep(PAUSE_S)


def line(trace: Trace) -> bytes:
    """One trace as one line of OTLP JSON."""
    resource = [{"key": key, "value": _value(value)} for key, value in resource_of(trace).items()]
    scope = {"scope": {"name": SCOPE, "version": VERSION}, "spans": [_span(trace, one) for one in _all(trace)]}
    made = {"resource": {"attributes": resource}, "scopeSpans": [scope | {"schemaUrl": SCHEMA_URL}]}
    return json.dumps({"resourceSpans": [made]}, separators=(",", ":")).encode() + b"\n"


def resource_of(trace: Trace) -> dict[str, str]:
    """What is said of the process: its service, never its host."""
    return {"service.name": trace.tracer.service}


def read(content: bytes) -> list[dict[str, Any]]:
    """The spans of a line: name, trace, id, parent, start_ns, end_ns, failed, attributes, service; the root first.

    A line that is none, torn or of others, holds no spans.
    """
    try:
        request = json.loads(content)
        spans = [
            _read(span, one["resource"]) for one in request["resourceSpans"] for scope in one["scopeSpans"]
            for span in scope["spans"]
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return spans


def readable(trace: Trace, more: Callable[[Trace, Step], dict[str, Any]] | None = None) -> list[ReadableSpan]:
    """The trace as the SDK's own spans, `more` attributes with each, for an encoder of OpenTelemetry's."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(span: int, remote: bool = False) -> SpanContext:
        return SpanContext(trace.trace, span, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    resource, scope = Resource(resource_of(trace)), InstrumentationScope(SCOPE, VERSION, SCHEMA_URL)
    kinds = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT}
    made = []
    for one in _all(trace):
        above = trace.parent if one is trace else trace.id
        made.append(
            ReadableSpan(
                name=one.name,
                context=context(one.id),
                parent=context(above, remote=one is trace) if above else None,
                resource=resource,
                attributes=trace.tracer.kept(one) | (more(trace, one) if more else {}),
                kind=kinds[one.kind],
                status=Status(StatusCode.ERROR if one.failed else StatusCode.UNSET),
                start_time=one.start_ns,
                end_time=one.end_ns,
                instrumentation_scope=scope,
            )
        )
    return made


def _all(trace: Trace) -> Iterator[Step]:
    yield trace
    yield from trace.steps


def _span(trace: Trace, step: Step) -> dict[str, Any]:
    above = trace.parent if step is trace else trace.id
    attributes = [{"key": key, "value": _value(value)} for key, value in trace.tracer.kept(step).items()]
    made = {
        "traceId": trace.trace_id,
        "spanId": f"{step.id:016x}",
        "name": step.name,
        "kind": step.kind,
        "startTimeUnixNano": str(step.start_ns),
        "endTimeUnixNano": str(step.end_ns),
        "attributes": attributes,
        "status": {"code": 2} if step.failed else {},
    }
    return made | ({"parentSpanId": f"{above:016x}"} if above else {})


def _value(value: Any) -> dict[str, Any]:
    """AnyValue of OTLP JSON: 64-bit integers are decimal strings."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        assert math.isfinite(value)  # spans.py lets no other in
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": value}


def _read(span: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    about = {one["key"]: _plain(one["value"]) for one in resource["attributes"]}
    return {
        "name": span["name"],
        "trace": span["traceId"],
        "id": span["spanId"],
        "parent": span.get("parentSpanId"),
        "start_ns": int(span["startTimeUnixNano"]),
        "end_ns": int(span["endTimeUnixNano"]),
        "failed": span.get("status", {}).get("code") == 2,
        "attributes": {one["key"]: _plain(one["value"]) for one in span["attributes"]},
        "service": about.get("service.name", ""),
    }


def _plain(value: dict[str, Any]) -> Any:
    ((kind, said),) = value.items()
    if kind == "intValue":
        return int(said)
    return [_plain(one) for one in said["values"]] if kind == "arrayValue" else said
