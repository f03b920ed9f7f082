"""Spans hold what their forms allow and nothing else, go on with the caller's trace, and reach a bounded file."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nightshift import attributes, content, mask, otlp, segments, spans
from nightshift.otlp import Background, FileSink
from nightshift.segments import Segments
from nightshift.spans import Trace, Tracer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# what a question, an answer, a section, a key and a client could hold, each told apart by its middle
CANARIES = [
    "Zaunkoenig kommt am Montag",
    "zaunkoenig",
    "ZAUNKOENIG",
    "anna.zaunkoenig@example.org",
    "+49 30 901820",
    "203.0.113.77",
    "2001:db8::77",
    "ns_local_abcdefghij_Zaunkoenigxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx_abcdef",
]


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def put(self, trace: Trace) -> None:
        self.traces.append(trace)

    def counts(self) -> dict[str, dict[str, int]]:
        return {}

    def close(self) -> None:
        pass


def asked(tracer: Tracer, traceparent: str | None = None) -> Trace:
    """A request as the gateway notes one."""
    with tracer.request("chat", traceparent) as trace:
        trace.set(key="abcdefghij", release="a" * 64, version="v0.3.0", commit="c" * 40, side="stable", status=200)
        with trace.step("retrieve") as step:
            step.set(sections=["0123456789abcdef", "fedcba9876543210"], scores=[0.5, 0.25], corpus="e" * 64)
        with trace.step("prompt") as step:
            step.set(prompt="d" * 64, prompt_name="lora")
        with trace.step("engine") as step:
            step.set(operation="chat", provider="nightshift", model="nightshift", max_tokens=24)
            step.set(input_tokens=120, output_tokens=7, finish=["stop"], first_token_s=0.04)
        with trace.step("scrub") as step:
            step.set(masked_out={"EMAIL": 2})
        trace.set(abstained=False, masked_in={"IP": 1}, blocked={"weapons": 1})
    return trace


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_request_is_one_trace_below_its_callers(tmp_path: Path) -> None:
    kept = Kept()
    trace = asked(Tracer("nightshift-gateway", [kept]), PARENT)
    assert kept.traces == [trace]
    assert trace.trace_id == "0af7651916cd43dd8448eb211c80319c"
    found = otlp.read(otlp.line(trace))
    assert [one["name"] for one in found] == ["chat", "retrieve", "prompt", "engine", "scrub"]
    assert found[0]["parent"] == "b7ad6b7169203331"
    assert {one["parent"] for one in found[1:]} == {found[0]["id"]}
    assert trace.traceparent(trace.steps[2]) == f"00-{trace.trace_id}-{found[3]['id']}-01"
    assert found[3]["attributes"]["gen_ai.usage.input_tokens"] == 120
    assert found[0]["attributes"]["nightshift.masked.in.IP"] == 1
    assert all(one["start_ns"] <= one["end_ns"] for one in found)
    assert trace.tracer.refused == {}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("00-", "ff-", 1),
        PARENT.upper(),
        f"{PARENT}-more",
        f"{PARENT}\n",
        "x" * 4000,
    ],
)
def test_a_traceparent_that_is_none_begins_a_new_trace(header: str | None) -> None:
    trace = Tracer("x").request("chat", header)
    assert trace.parent is None
    assert trace.trace_id not in ("0" * 32, "0af7651916cd43dd8448eb211c80319c")


def test_a_later_version_of_traceparent_is_read_as_this_one() -> None:
    assert Tracer("x").request("chat", PARENT.replace("00-", "cc-", 1) + "-more").parent == 0xB7AD6B7169203331


def test_a_span_ends_once_and_ends_what_is_open() -> None:
    kept = Kept()
    trace = Tracer("x", [kept]).request("chat")
    trace.set(key="abcdefghij")
    step = trace.step("engine")
    trace.end()
    trace.end()
    assert len(kept.traces) == 1
    assert step.end_ns == trace.end_ns


def test_an_exception_leaves_the_name_of_its_class_and_not_its_words() -> None:
    kept = Kept()
    with pytest.raises(ValueError), Tracer("x", [kept]).request("chat") as trace, trace.step("engine"):
        trace.set(key="abcdefghij")
        raise ValueError("anna.zaunkoenig@example.org")
    said = otlp.line(kept.traces[0])
    assert [one["failed"] for one in otlp.read(said)] == [True, True]
    assert b"ValueError" in said
    assert b"zaunkoenig" not in said


def test_a_stream_in_another_task_is_of_its_request() -> None:
    tracer = Tracer("x")

    async def streamed(trace: Trace) -> tuple[Trace | None, spans.Step]:
        with trace.step("engine") as step:
            await asyncio.sleep(0)
        return spans.CURRENT.get(), step

    async def request() -> bool:
        trace = tracer.request("chat")
        seen, step = await asyncio.create_task(streamed(trace))
        trace.end()
        return seen is trace and trace.steps == [step]

    async def many() -> list[bool]:
        return await asyncio.gather(*(request() for _ in range(20)))

    assert asyncio.run(many()) == [True] * 20


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("shape", ["value", "list", "key"])
def test_nothing_that_a_person_wrote_fits_an_attribute(tmp_path: Path, canary: str, shape: str) -> None:
    value: Any = {"value": canary, "list": [canary], "key": {canary: 1}}[shape]
    folder = tmp_path / "traces"
    tracer = Tracer("nightshift-gateway", [Background(FileSink(Segments(folder, "gateway")), 10)])
    with tracer.request("chat") as trace:
        for word in attributes.ATTRIBUTES:
            trace.set(**{word: value})
        trace.set(prompt_text=canary)
        trace.content(question=canary, answer=canary)
        with trace.step("engine") as step:
            step.set(**dict.fromkeys(attributes.ATTRIBUTES, value))
    tracer.close()
    said = written(folder)
    assert said.count(b"\n") == 1
    # one word of small letters has the form of a stage's name, of a policy's kind and of a key's id
    fits = set(attributes.ATTRIBUTES) - set(tracer.refused)
    assert fits <= ({"key", "stage", "blocked"} if canary == "zaunkoenig" else set())
    assert (b"zaunkoenig" in said.lower()) == bool(fits)


def test_what_nobody_with_a_key_asked_and_what_no_model_answered_is_forgotten() -> None:
    kept = Kept()
    tracer = Tracer("x", [kept])
    tracer.request("chat").end()
    other = tracer.request("models")
    other.set(key="abcdefghij")
    other.end()
    assert kept.traces == []
    assert len(other.trace_id) == 32


def test_pseudonyms_need_their_home() -> None:
    one, other = Tracer("x", secret=b"a"), Tracer("x", secret=b"b")
    assert one.pseudonym("anna") == one.pseudonym("anna") != other.pseudonym("anna")
    assert attributes.ATTRIBUTES["user"].holds(one.pseudonym("anna"))


def test_the_file_is_otlp_json(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    tracer = Tracer("nightshift-gateway", [Background(FileSink(Segments(folder, "gateway")), 10)])
    trace = asked(tracer, PARENT)
    tracer.close()
    (path,) = segments.files(folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    said = json.loads(path.read_bytes())
    for span in said["resourceSpans"][0]["scopeSpans"][0]["spans"]:  # protobuf's own JSON has base64 for bytes
        for key in ("traceId", "spanId", "parentSpanId"):
            span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    parsed = json_format.ParseDict(said, ExportTraceServiceRequest())
    wanted = encode_spans(otlp.readable(trace)).resource_spans[0].scope_spans[0]
    found = parsed.resource_spans[0].scope_spans[0]
    assert found.schema_url == wanted.schema_url == attributes.SCHEMA_URL
    for one, other in zip(found.spans, wanted.spans, strict=True):
        other.flags = one.flags  # whether the parent is remote: the SDK's encoder says it, the file need not
        assert one == other


def test_what_the_file_cannot_hold_is_lost_and_counted(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("in the way")
    tracer = Tracer("x", [Background(FileSink(Segments(tmp_path / "traces", "gateway")), 10)])
    asked(tracer)
    tracer.close()
    assert tracer.counts() == {"file": {"sent": 0, "dropped": 0, "failed": 1}}


class Stuck:
    """A sink that takes nothing until it is let go."""

    name, failed = "stuck", 0

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def send(self, todo: list[Trace]) -> float:
        self.asked.set()
        self.go.wait(10)
        todo.clear()
        return 0.0

    def tidy(self) -> None:
        pass


def test_no_request_waits_for_a_sink_and_the_oldest_traces_go(tmp_path: Path) -> None:
    sink = Stuck()
    outlet = Background(sink, 5, every_s=0.01)
    tracer = Tracer("x", [outlet])
    asked(tracer)
    assert sink.asked.wait(5)
    began = time.perf_counter()
    for _ in range(20):
        asked(tracer)
    assert time.perf_counter() - began < 1
    assert outlet.dropped == 15
    sink.go.set()
    tracer.close()
    assert tracer.counts() == {"stuck": {"sent": 6, "dropped": 15, "failed": 0}}


class Buggy:
    """A sink with a bug."""

    name, failed = "buggy", 0

    def send(self, todo: list[Trace]) -> float:
        raise TypeError("a bug")

    def tidy(self) -> None:
        pass


def test_a_bug_in_a_sink_ends_neither_its_thread_nor_a_request() -> None:
    tracer = Tracer("x", [Background(Buggy(), 5, every_s=0.01)])
    for _ in range(3):
        asked(tracer)
    tracer.close()
    assert tracer.counts()["buggy"] == {"sent": 0, "dropped": 0, "failed": 3}


def test_words_are_kept_only_where_they_are_asked_for_and_scrubbed(tmp_path: Path) -> None:
    def ask(share: float) -> bytes:
        folder = tmp_path / str(share)
        outlets = [
            Background(FileSink(Segments(folder, "gateway")), 10),
            Background(content.ContentSink(Segments(folder, content.SERVICE)), 10),
        ]
        tracer = Tracer("x", outlets, share)
        with tracer.request("chat") as trace:
            trace.set(key="abcdefghij")
            trace.content(question="Who is anna.zaunkoenig@example.org of the mill?")
            trace.content(answer="She oils the pump.")
        tracer.close()
        kept = content.find(folder, trace.trace_id)
        assert kept == (
            None if share == 0 else {"question": "Who is <EMAIL> of the mill?", "answer": "She oils the pump."}
        )
        return written(folder)

    assert b"mill" not in ask(0.0)
    assert b"zaunkoenig" not in ask(1.0)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in segments.files(tmp_path / "1.0"))
    assert mask.find("anna.zaunkoenig@example.org")


@pytest.mark.parametrize("torn", [b'{"trace": "%s", "question": "Wh', b'["%s"]', b'{"trace": "%s"}', b'"%s"'])
def test_words_are_found_behind_a_line_that_is_none(torn: bytes, tmp_path: Path) -> None:
    kept, trace = Segments(tmp_path, content.SERVICE), "a" * 32
    whole = json.dumps({"trace": trace, "question": "Who oils it?", "answer": "She."}).encode()
    kept.append(whole + b"\n" + torn % trace.encode(), 1e9)
    kept.append(b"{}\n", 1e9)
    assert content.find(tmp_path, trace) == {"question": "Who oils it?", "answer": "She."}
