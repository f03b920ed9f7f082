"""Traces and ratings reach Langfuse as it wants them, wait for it in a bounded queue, and keep no request waiting."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import pytest

from nightshift import port
from nightshift.errors import AccessDenied
from nightshift.integrations import langfuse as langfuse_
from nightshift.integrations.langfuse import PUBLIC, SECRET, TRACES, Server
from nightshift.integrations.langfuse_scores import SCORES, ScoreSink
from nightshift.otlp import Background
from nightshift.spans import Rating, Trace, Tracer
from tests.integrations import langfuse_server
from tests.integrations.langfuse_server import Langfuse, langfuse
from tests.test_spans import PARENT, asked

RATING = Rating("0af7651916cd43dd8448eb211c80319c", "rating", 1.0, "abcdefghij", 1_790_000_000_000_000_000)


def server(url: str, secret: str = langfuse_server.SECRET) -> Server:
    return Server.of(url, {PUBLIC: langfuse_server.PUBLIC, SECRET: secret})


def tracer(url: str, queue: int = 1000, content: float = 0.0, every_s: float = 0.01, **of: Any) -> Tracer:
    sink = langfuse_.sink(server(url, **of), "staging", lambda name, digest: (f"nightshift/{name}", 7))
    sink.first_s = 0.05
    return Tracer("nightshift-gateway", [Background(sink, queue, every_s)], content, b"secret")


def spans(held: Langfuse) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in held.spans.values()}


def test_a_trace_arrives_whole_with_its_context_on_every_span() -> None:
    with langfuse() as held:
        made = tracer(held.url)
        with made.request("chat", PARENT) as trace:
            trace.set(user=made.pseudonym("anna"), session=made.pseudonym("s-1"), key="abcdefghij")
            trace.set(release="a" * 64, version="v0.3.0", side="canary")
            with trace.step("retrieve") as step:
                step.set(sections=["0123456789abcdef"], scores=[0.5])
            with trace.step("prompt") as step:
                step.set(prompt="d" * 64, prompt_name="lora")
            with trace.step("engine") as step:
                step.set(operation="chat", model="nightshift", max_tokens=24, first_token_s=0.25)
                step.set(input_tokens=120, output_tokens=7, finish=["stop"])
            with trace.step("scrub") as step:
                step.fail("engine_error")
        made.close()
        found = spans(held)
    assert held.complaints == []
    assert held.headers[0]["content-encoding"] == "gzip"
    assert made.counts() == {"langfuse": {"sent": 1, "dropped": 0, "failed": 0}}
    for one in found.values():
        said = one["attributes"]
        assert said["langfuse.environment"] == "staging"
        assert said["langfuse.release"] == "v0.3.0"
        assert said["langfuse.version"] == "a" * 12
        assert said["langfuse.trace.tags"] == ["chat", "canary"]
        assert said["user.id"] == made.pseudonym("anna")
        assert said["session.id"] == made.pseudonym("s-1")
        assert one["traceId"] == trace.trace_id
    kinds = {name: one["attributes"]["langfuse.observation.type"] for name, one in found.items()}
    assert kinds == {
        "chat": "chain",
        "retrieve": "retriever",
        "prompt": "span",
        "engine": "generation",
        "scrub": "guardrail",
    }
    assert found["chat"]["attributes"]["langfuse.internal.as_root"] is True
    engine = found["engine"]["attributes"]
    assert json.loads(engine["langfuse.observation.usage_details"]) == {"input": 120, "output": 7}
    assert json.loads(engine["langfuse.observation.model.parameters"]) == {"max_tokens": 24}
    assert engine["langfuse.observation.prompt.name"] == "nightshift/lora"
    assert engine["langfuse.observation.prompt.version"] == 7
    assert engine["langfuse.observation.completion_start_time"].endswith("Z")
    assert [name for name, one in found.items() if "gen_ai.usage.input_tokens" in one["attributes"]] == ["engine"]
    assert found["scrub"]["attributes"]["langfuse.observation.level"] == "ERROR"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_words_go_along_only_where_they_are_kept_and_scrubbed(share: float) -> None:
    with langfuse(context=False) as held:
        made = tracer(held.url, content=share)
        with made.request("chat") as trace:
            trace.set(key="abcdefghij")
            trace.content("Who is anna@example.org?", "She keeps the mill.")
        made.close()
        sent = b"".join(held.bodies)
        said = spans(held)["chat"]["attributes"]
    assert b"anna" not in sent
    assert (b"mill" in sent) == (share == 1.0)
    assert said.get("langfuse.observation.input") == ("Who is <EMAIL>?" if share else None)


def test_one_bad_trace_takes_no_other_with_it() -> None:
    with langfuse() as held:
        made = tracer(held.url, every_s=60)
        traces = [asked(made) for _ in range(40)]
        held.poison.add(traces[23].trace_id)
        made.close()
        arrived = {one["traceId"] for one in held.spans.values()}
    assert held.asked(TRACES)[0] == 400
    assert {one.trace_id for one in traces} - arrived == {traces[23].trace_id}
    assert made.counts()["langfuse"] == {"sent": 39, "dropped": 0, "failed": 1}
    assert held.complaints == []


def test_while_it_is_down_no_request_waits_and_what_fits_arrives_later() -> None:
    at = port.unused()
    made = tracer(f"http://127.0.0.1:{at}", queue=50)
    slowest = 0.0
    for _ in range(200):
        began = time.perf_counter()
        asked(made)
        slowest = max(slowest, time.perf_counter() - began)
    counted = made.counts()["langfuse"]
    assert counted["dropped"] > 0
    assert slowest < 0.25
    last = asked(made)
    with langfuse(port=at) as held:
        made.close()
        arrived = {one["traceId"] for one in held.spans.values()}
    assert last.trace_id in arrived
    assert made.counts()["langfuse"]["sent"] == len(arrived) == 201 - made.counts()["langfuse"]["dropped"]
    assert held.complaints == []


@pytest.mark.parametrize("status", [429, 503, -1])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with langfuse() as held:
        held.instead[TRACES] = deque([(status, "0"), (status, "")])
        made = tracer(held.url)
        asked(made)
        held.wait(TRACES, 3)
        made.close()
    assert held.asked(TRACES) == [status, status, 200]
    assert made.counts()["langfuse"] == {"sent": 1, "dropped": 0, "failed": 0}


@pytest.mark.parametrize(("status", "secret"), [(404, langfuse_server.SECRET), (401, "wrong")])
def test_what_will_not_pass_is_lost_and_said_once(status: int, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    with langfuse() as held:
        if status == 404:  # a server before OTLP, or another address
            held.instead[TRACES] = deque([(404, "")] * 9)
        made = tracer(held.url, secret=secret)
        for _ in range(3):
            asked(made)
            held.wait(TRACES, len(held.asked(TRACES)) + 1)
        made.close()
    assert set(held.asked(TRACES)) == {status}
    assert made.counts()["langfuse"] == {"sent": 0, "dropped": 0, "failed": 3}
    assert [one.getMessage() for one in caplog.records] == [f"traces to langfuse: it refused traces ({status})"]


def test_without_keys_it_says_which() -> None:
    with pytest.raises(AccessDenied, match="LANGFUSE_SECRET_KEY: the key of Langfuse's project is missing"):
        Server.of("http://x", {PUBLIC: "pk"})


def rated(url: str, *ratings: Rating, content: float = 0.0) -> Tracer:
    sink = ScoreSink(server(url), "staging", first_s=0.05)
    made = Tracer("x", content=content, raters=[Background(sink, 100, every_s=0.01)])
    for one in ratings:
        made.rate(one)
    made.close()
    return made


def other(number: int) -> Rating:
    return Rating(f"{number:032x}", "rating", float(number), "abcdefghij", RATING.at_ns)


@pytest.mark.parametrize("version", ["4.58.3", "4.59.0", "5.0.0"])
def test_ratings_are_scores_in_the_form_of_the_servers_version(version: str) -> None:
    with langfuse(version=version) as held:
        made = rated(held.url, *map(other, range(1, 6)), RATING, RATING)
        scores = {one["traceId"]: one for one in held.scores.values()}
    assert made.counts() == {"langfuse-scores": {"sent": 7, "dropped": 0, "failed": 0}}
    assert len(scores) == 6  # the same key rated one answer twice
    one = scores[RATING.trace]
    assert (one["name"], one["value"], one["dataType"], one["environment"]) == ("rating", 1.0, "NUMERIC", "staging")
    assert one["timestamp"] == "2026-09-21T14:13:20.000000Z"
    assert len(held.asked(SCORES)) == (7 if version == "4.58.3" else 1)


def test_rejected_scores_are_counted_and_not_sent_again() -> None:
    with langfuse() as held:
        bad = Rating("", "rating", 1.0, "abcdefghij", RATING.at_ns)
        made = rated(held.url, bad, *map(other, range(1, 4)))
    assert held.asked(SCORES) == [207]
    assert made.counts()["langfuse-scores"] == {"sent": 3, "dropped": 0, "failed": 1}


@pytest.mark.parametrize(("content", "comment"), [(0.0, None), (0.01, "Ask <EMAIL> instead.")])
def test_a_correction_goes_along_scrubbed_where_words_are_kept(content: float, comment: str | None) -> None:
    words = Rating(RATING.trace, "rating", -1.0, "abcdefghij", RATING.at_ns, "Ask anna@example.org instead.")
    with langfuse() as held:
        rated(held.url, words, content=content)
    assert [one.get("comment") for one in held.scores.values()] == [comment]


def test_ratings_wait_while_it_is_busy() -> None:
    with langfuse() as held:
        held.instead[SCORES] = deque([(429, ""), (503, ""), (-1, "")])
        sink = ScoreSink(server(held.url), "staging", first_s=0.02)
        outlet = Background(sink, 100, every_s=0.01)
        outlet.put(RATING)
        held.wait(SCORES, 4)
        outlet.close()
    assert held.asked(SCORES) == [429, 503, -1, 202]
    assert outlet.counts()["langfuse-scores"] == {"sent": 1, "dropped": 0, "failed": 0}


def test_the_server_itself_refuses_what_langfuse_refuses() -> None:
    bad: list[tuple[bytes, dict[str, str], str]] = [
        (b"{}", {"content-type": "text/plain"}, "Invalid content type"),
        (b"x", {"content-type": "application/json"}, "Failed to parse OTel JSON"),
        (b"\xff", {"content-type": "application/x-protobuf"}, "Failed to parse OTel Protobuf"),
        (b"x", {"content-type": "application/json", "content-encoding": "gzip"}, "Failed to decompress"),
        (b"{}", {"content-type": "application/json", "x-langfuse-ingestion-version": "5"}, "Unsupported"),
        (_json([{"spanId": "a" * 16}, _span()]), {"content-type": "application/json"}, "traceId:absent"),
        (_json([_span() | {"attributes": {}}]), {"content-type": "application/json"}, "attributes:not_an_array"),
        (_json([_span() | {"spanId": 7}]), {"content-type": "application/json"}, "spanId:not_an_id"),
    ]
    with langfuse() as held:
        for body, headers, message in bad:
            said = server(held.url).client.post(TRACES, content=body, headers=headers)
            assert (said.status_code, message in said.text) == (400, True)
        assert held.spans == {}
        for path in ("/api/public/ingestion", "/api/public/dataset-run-items"):
            assert server(held.url).client.post(path, json={}).status_code == 404


def _span() -> dict[str, Any]:
    return {"traceId": "a" * 32, "spanId": "b" * 16, "name": "x", "attributes": []}


def _json(listed: list[dict[str, Any]]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": listed}]}]}).encode()


def test_ids_there_are_the_ones_that_an_answer_names() -> None:
    with langfuse() as held:
        made = tracer(held.url)
        trace: Trace = asked(made)
        made.close()
    assert {one["traceId"] for one in held.spans.values()} == {trace.trace_id}
    assert {one["spanId"] for one in held.spans.values()} == {f"{one.id:016x}" for one in [trace, *trace.steps]}
