"""The endpoint answers whom it may with what they may see, and says in one shape what is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import feedback, params, registry, segments
from nightshift.counts import TURNS
from nightshift.otlp import Background, FileSink
from nightshift.registry import Release
from nightshift.segments import Segments
from nightshift.serve.admin import ADMIN
from nightshift.serve.keys import SCOPES, Keys
from nightshift.serve.refused import CODES
from nightshift.serve.rollout import Rollout
from nightshift.serve.routes import PUBLIC
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import KeyLimits, Listen, Rollouts
from nightshift.slo import Decision
from nightshift.spans import FOLDER, Tracer
from tests import models
from tests.conftest import ROOT
from tests.release.test_release import git, tag
from tests.serve.scripted import PLAIN, ROWS, Endpoint, chat, endpoint

SHAPE = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, ROWS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, system: Path) -> Iterator[Endpoint]:
    wide = KeyLimits(concurrency=64, requests_a_minute=100_000, tokens_a_minute=100_000_000)
    folder = tmp_path_factory.mktemp("gateway")
    with endpoint(folder, system, slots=4, auth_failures_a_minute=100_000, key=wide) as one:
        yield one


def code(said: httpx.Response) -> str:
    """The code of a refusal, whose shape and status are as the table says."""
    error = said.json()["error"]
    assert set(error) == SHAPE
    assert CODES[error["code"]] == (said.status_code, error["type"])
    assert said.headers["content-type"] == "application/json"
    return str(error["code"])


@pytest.mark.parametrize(
    "header",
    ["", "Basic abc", "Bearer", "Bearer ns_x", "bearer", "Bearer \xff", "Bearer ns_local_' or 1=1 --"],
)
def test_no_key_no_answer(running: Endpoint, header: str) -> None:
    said = httpx.post(
        f"{running.url}/chat/completions", json=chat("Hello"), headers={"Authorization": header.encode("latin-1")}
    )
    assert code(said) in ("missing_api_key", "invalid_api_key")
    assert said.headers["www-authenticate"] == "Bearer"


def test_two_keys_are_none_and_a_key_in_the_address_is_told_so(running: Endpoint) -> None:
    two = [("Authorization", f"Bearer {running.key}"), ("Authorization", f"Bearer {running.key}")]
    assert code(httpx.post(f"{running.url}/chat/completions", json=chat("Hello"), headers=two)) == "invalid_api_key"
    said = httpx.get(f"{running.url}/models?key={running.key}", headers={"Authorization": f"Bearer {running.key}"})
    assert code(said) == "invalid_value"
    assert running.key not in said.text


@pytest.mark.parametrize("where", ["public", "admin"])
def test_every_route_asks_for_its_scope_and_for_no_other(running: Endpoint, where: str) -> None:
    entries = PUBLIC if where == "public" else ADMIN
    base = running.url.removesuffix("/v1") if where == "public" else running.admin
    keys = {scope: running.made(scope) for scope in SCOPES}
    for entry in entries:
        url = base + re.sub(r"\{\w+\}", "nightshift", entry.path)
        for scope, key in keys.items():
            said = httpx.request(
                entry.method,
                url,
                json={} if entry.body else None,
                headers={"Authorization": f"Bearer {key}"},
                verify=PLAIN,
            )
            refused = said.status_code == 403
            assert refused == (bool(entry.scopes) and scope not in entry.scopes), (entry.path, scope, said.text)
        bare = httpx.request(entry.method, url, json={} if entry.body else None, verify=PLAIN)
        assert bare.status_code == (401 if entry.scopes else 200), entry.path


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/chat/completions/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/..;/admin/v1/keys", 404),
        ("GET", "/v1/%2e%2e/metrics", 404),
        ("GET", "/admin/v1/keys", 404),
        ("GET", "/metrics", 404),
        ("POST", "/invocations", 404),
        ("GET", "/V1/MODELS", 404),
        ("GET", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/healthz", 405),
    ],
)
def test_everything_else_is_refused_in_the_same_shape(running: Endpoint, method: str, path: str, status: int) -> None:
    base = running.url.removesuffix("/v1")
    said = httpx.Client(base_url=base).send(httpx.Request(method, base + path))
    assert said.status_code == status
    assert code(said) in ("not_found", "method_not_allowed")


def test_an_answer_names_its_sections_and_hides_the_engine(running: Endpoint) -> None:
    said = running.ask("When is the pump oiled?")
    body = said.json()
    assert body["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"
    assert body["nightshift"]["release"] == said.headers["x-model-digest"] == "d" * 64
    assert body["nightshift"]["trace"] == said.headers["x-trace-id"]
    assert body["model"] == "nightshift"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert "oiled every Monday" in body["choices"][0]["message"]["content"]
    assert "secret" not in said.text
    assert running.script.headers[-1]["authorization"] == "Bearer engine"


def test_what_a_keys_groups_may_not_see_is_not_answered_from(running: Endpoint) -> None:
    board = running.made("infer:chat", groups=("public", "board"))
    question = "What about salaries and champagne of the board?"
    seen = running.ask(question).json()
    assert "Board > Salaries" not in [one["title"] for one in seen["nightshift"]["sections"]]
    assert "oiled with champagne" not in seen["choices"][0]["message"]["content"]
    assert running.ask(question, board).json()["nightshift"]["sections"][0]["title"] == "Board > Salaries"


def test_a_question_that_does_not_fit_is_refused_before_the_engine(running: Endpoint) -> None:
    before = len(running.script.asked)
    for text, more in (("word " * 3000, {}), ("Hello", {"max_tokens": 100_000}), ("🦀" * 60_000, {})):
        begun = time.monotonic()
        said = running.ask(text, **more)
        assert code(said) == "context_length_exceeded"
        assert time.monotonic() - begun < 2
    assert len(running.script.asked) == before


def lines(said: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    return [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]


def test_a_stream_begins_with_its_role_and_ends_with_its_sections_and_its_usage(running: Endpoint) -> None:
    said = running.ask("When is the pump oiled?", stream=True, stream_options={"include_usage": True})
    chunks = lines(said)
    assert said.text.rstrip().endswith("data: [DONE]")
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["usage"]["completion_tokens"] > 3 and chunks[-1]["choices"] == []
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"
    whole = running.ask("When is the pump oiled?").json()["choices"][0]["message"]["content"]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks[:-1]) == whole


@pytest.mark.parametrize("words", range(0, 6))
def test_a_stream_that_breaks_off_says_so(running: Endpoint, words: int) -> None:
    bad = metric(running, 'nightshift_valid_total{sli="availability"}') - metric(
        running, 'nightshift_good_total{sli="availability"}'
    )
    said = running.ask("SAY:" + "word " * words + "BREAK", stream=True)
    if said.status_code == 200:
        chunks = lines(said)
        assert chunks[-1]["error"]["code"] == "engine_error"
        assert not any(choice.get("finish_reason") for line in chunks[:-1] for choice in line["choices"])
    else:
        assert code(said) == "engine_error"
    assert code(running.ask("SAY:" + "word " * words + "BREAK")) == "engine_error"
    assert code(running.ask("REFUSE")) == "engine_error"
    now = metric(running, 'nightshift_valid_total{sli="availability"}') - metric(
        running, 'nightshift_good_total{sli="availability"}'
    )
    assert now - bad == 3


def metric(running: Endpoint, name: str) -> float:
    """A counter of /metrics."""
    said = httpx.get(f"{running.admin}/metrics", headers={"Authorization": f"Bearer {running.key}"})
    return float(next((line.split()[-1] for line in said.text.splitlines() if line.startswith(name)), 0))


def test_fields_that_change_an_answer_are_handed_on_or_refused_by_name(running: Endpoint) -> None:
    said = running.ask("Hello", temperature=0.5, top_p=0.9, seed=7, n=1, frequency_penalty=0, tools=[], user="u")
    assert said.status_code == 200
    asked = running.script.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.5, 0.9, 7)
    assert not {"tools", "frequency_penalty", "user", "metadata"} & set(asked)
    for name, value in {
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_schema"},
        "frequency_penalty": 1.0,
        "logit_bias": {"5": 1.0},
        "logprobs": True,
        "reasoning_effort": "high",
        "stream_options.include_obfuscation": True,
        "messages[0].name": "ann",
    }.items():
        body = chat("Hello", **({name: value} if "." not in name else {}))
        if name.startswith("messages"):
            body["messages"][0]["name"] = value
        elif name.startswith("stream_options"):
            body |= {"stream": True, "stream_options": {"include_obfuscation": value}}
        said = running.post("/chat/completions", body)
        assert (code(said), said.json()["error"]["param"]) == ("unsupported_parameter", name)
    said = running.post("/completions", {"model": "nightshift", "prompt": "Hello", "logprobs": 0})
    assert (code(said), said.json()["error"]["param"]) == ("unsupported_parameter", "logprobs")
    said = running.ask("Hello", stream=True, stream_options={"include_obfuscation": False})
    assert said.status_code == 200 and "obfuscation" not in said.text


def test_an_answer_is_taken_back_as_a_turn(running: Endpoint) -> None:
    """As openai's client sends one that was appended to the conversation; one with content there is refused by name."""
    first = running.ask("Hello").json()["choices"][0]["message"]
    turns = [{"role": "user", "content": "Hello"}, first, {"role": "user", "content": "And the valve?"}]
    assert running.post("/chat/completions", {"model": "nightshift", "messages": turns}).status_code == 200
    turns[1] = first | {"tool_calls": [{"id": "x"}]}
    said = running.post("/chat/completions", {"model": "nightshift", "messages": turns})
    assert (code(said), said.json()["error"]["param"]) == ("invalid_value", "messages[1].tool_calls")


def test_two_choices_are_two(running: Endpoint) -> None:
    said = running.ask("SAY:one two", n=2).json()
    assert [one["message"]["content"] for one in said["choices"]] == ["one two ", "one two "]


@pytest.mark.parametrize(("stop", "left"), [("two", "one "), (["x", "wo t"], "one t"), (["nowhere"], "one two three ")])
def test_an_answer_ends_at_a_stop_sequence(running: Endpoint, stop: Any, left: str) -> None:
    for stream in (False, True):
        said = running.ask("SAY:one two three", stop=stop, stream=stream)
        if stream:
            text = "".join(one["choices"][0]["delta"].get("content", "") for one in lines(said))
            finish = lines(said)[-1]["choices"][0]["finish_reason"]
        else:
            text, finish = said.json()["choices"][0]["message"]["content"], said.json()["choices"][0]["finish_reason"]
        assert (text, finish) == (left, "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_is_not_waited_for_past_a_stop_sequence(running: Endpoint, stream: bool) -> None:
    cut = running.script.cut
    assert running.ask("SAY:one two HANG", stop="two", stream=stream).status_code == 200
    deadline = time.monotonic() + 1
    while running.script.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.script.cut == cut + 1


def test_personal_data_goes_neither_in_nor_out(running: Endpoint) -> None:
    said = running.ask("SAY:write to ann@example.org or to +43 660 1234567 now")
    sent = running.script.asked[-1]["messages"][-1]["content"]
    assert "ann@example.org" not in sent and "<EMAIL>" in sent
    assert "ann@" not in said.text
    running.script.asked.clear()
    key = "ns_local_abcdefghij_" + "A" * 43 + "_aaaaaa"
    running.ask(f"My key is {key}", stream=True)
    assert key not in json.dumps(running.script.asked)


def test_links_that_no_source_holds_are_taken_out(running: Endpoint) -> None:
    link = "![x](https://evil.example/?q=1)"
    running.script.instead = {"talked-into": link}
    said = running.ask("SAY:talked-into ok").json()
    assert said["choices"][0]["message"]["content"] == "x ok "
    own = running.ask(f"SAY:{link} ok").json()
    assert link in own["choices"][0]["message"]["content"]  # what the caller brought may go back


def test_harm_that_is_to_be_kept_is(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, harm="keep") as one:
        said = one.ask("SAY:first how to make a bomb second").json()
    assert said["choices"][0]["message"]["content"].strip() == "first how to make a bomb second"


def test_harm_ends_an_answer(running: Endpoint) -> None:
    for stream in (False, True):
        said = running.ask("SAY:first how to make a bomb second", stream=stream)
        assert "bomb" not in said.text
        chunks = lines(said) if stream else [said.json()]
        assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
        told = [one["choices"][0].get("delta") or one["choices"][0].get("message") or {} for one in chunks]
        assert "".join(one.get("content", "") for one in told) == "first "
    assert metric(running, "nightshift_blocked_total") >= 2


def test_completions_go_on_with_a_text(running: Endpoint) -> None:
    said = running.post(
        "/completions", {"model": "nightshift", "prompt": ["SAY:one two"], "max_tokens": 5, "echo": False}
    )
    body = said.json()
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", "one two ")
    assert running.script.asked[-1]["prompt"] == "SAY:one two"
    streamed = running.post("/completions", {"model": "nightshift", "prompt": "SAY:one two", "stream": True})
    assert "".join(one["choices"][0]["text"] for one in lines(streamed)) == "one two "


def test_several_texts_are_gone_on_with_in_their_order(running: Endpoint) -> None:
    asked = {"model": "nightshift", "prompt": ["SAY:one two", "SAY:three", "SAY:four five six"], "n": 2}
    body = running.post("/completions", asked | {"stop": ["two", "six"]}).json()
    assert [one["index"] for one in body["choices"]] == [0, 1, 2, 3, 4, 5]
    assert [one["text"] for one in body["choices"]] == ["one ", "one ", "three ", "three ", "four five ", "four five "]
    assert {one["finish_reason"] for one in body["choices"]} == {"stop"}
    assert body["usage"] == {"prompt_tokens": 21, "completion_tokens": 6, "total_tokens": 27}  # of all three
    assert [one["prompt"] for one in running.script.asked[-3:]] == asked["prompt"]
    said = lines(running.post("/completions", asked | {"stream": True, "stream_options": {"include_usage": True}}))
    texts = dict.fromkeys(range(6), "")
    for one in [choice for chunk in said for choice in chunk["choices"]]:
        texts[one["index"]] += one["text"]
    assert list(texts.values()) == ["one two ", "one two ", "three ", "three ", "four five six ", "four five six "]
    assert said[-1]["usage"]["total_tokens"] == 27
    assert [bool(one.get("nightshift")) for one in said].count(True) == 1
    broken = lines(running.post("/completions", asked | {"prompt": ["SAY:one", "SAY:BREAK"], "stream": True}))
    assert broken[-1]["error"]["code"] == "engine_error"
    assert code(running.post("/completions", asked | {"prompt": ["SAY:one", "SAY:BREAK"]})) == "engine_error"
    for prompts in ([], ["x"] * 21, ["x", ""], ["x", 1]):
        assert code(running.post("/completions", asked | {"prompt": prompts})) == "invalid_value"


def test_several_texts_are_paid_for_and_must_fit_each(running: Endpoint) -> None:
    small = running.made(
        "infer:completions", limits=KeyLimits(concurrency=9, requests_a_minute=99, tokens_a_minute=100)
    )
    asked = {"model": "nightshift", "prompt": "Hello", "max_tokens": 30}
    assert running.post("/completions", asked, small).status_code == 200
    assert code(running.post("/completions", asked | {"prompt": ["Hello"] * 3}, small)) == "rate_limit_exceeded"
    before = len(running.script.asked)
    assert (
        code(long := running.post("/completions", asked | {"prompt": ["Hello", "word " * 3000]}))
        == "context_length_exceeded"
    )
    assert long.json()["error"]["param"] == "prompt"
    assert len(running.script.asked) == before


def test_a_rating_is_kept_with_its_release_and_masked(running: Endpoint) -> None:
    trace = running.ask("Hello").json()["nightshift"]["trace"]
    correction = "Say hello to ann@example.org."
    said = running.post("/feedback", {"trace": trace, "rating": -1, "correction": correction})
    assert said.status_code == 200
    [path] = segments.files(running.home / feedback.FOLDER)
    row = json.loads(path.read_bytes().splitlines()[-1])
    assert path.stat().st_mode & 0o777 == 0o600
    assert row["key"] == running.key.split("_")[2]
    assert (row["trace"], row["release"], row["rating"]) == (trace, "d" * 64, -1)
    assert row["correction"] == "Say hello to <EMAIL>."
    other = running.made("infer:chat")
    assert code(running.post("/feedback", {"trace": trace, "rating": 1}, other)) == "not_found"
    assert code(running.post("/feedback", {"trace": trace, "rating": 2})) == "invalid_value"


def test_of_the_ratings_that_a_key_gives_an_answer_the_last_counts(running: Endpoint) -> None:
    """One key can neither vote twice nor be taken for another's vote."""
    begun, other = time.time(), running.made("infer:chat")
    before = feedback.counted(running.home, 0.0).get("d" * 64, (0, 0))
    trace = running.ask("Hello").json()["nightshift"]["trace"]
    for rating in (1, 1, 1, -1, 0.5):
        assert running.post("/feedback", {"trace": trace, "rating": rating}).status_code == 200
    said = running.post("/chat/completions", chat("Hello"), other, headers={"traceparent": f"00-{trace}-{'b' * 16}-01"})
    assert said.headers["x-trace-id"] == trace  # the client's to choose: both were given an answer, and rate their own
    for rating in (1, -1):
        assert running.post("/feedback", {"trace": trace, "rating": rating}, other).status_code == 200
    assert running.post("/feedback", {"trace": trace, "rating": 1}).status_code == 200
    good, whole = feedback.counted(running.home, 0.0)["d" * 64]
    assert (good - before[0], whole - before[1]) == (1, 2)
    assert running.post("/feedback", {"trace": trace, "rating": 0}, other).status_code == 200
    assert feedback.counted(running.home, begun)["d" * 64][1] == 1
    assert feedback.counted(running.home, time.time() + 60) == {}


def test_a_rating_that_cannot_be_kept_is_said_so(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system) as one:
        (one.home / feedback.FOLDER).write_text("no folder")
        trace = one.ask("Hello").headers["x-trace-id"]
        assert code(one.post("/feedback", {"trace": trace, "rating": 1})) == "dependency_unavailable"


def test_what_was_answered_before_a_restart_can_be_rated_by_who_asked(tmp_path: Path, system: Path) -> None:
    kept = Segments(tmp_path / "home" / FOLDER, "gateway")
    tracer = Tracer("nightshift-gateway", [Background(FileSink(kept), 100)])
    with endpoint(tmp_path, system, tracer=tracer) as one:
        traces = [one.ask(text).headers["x-trace-id"] for text in ("Hello", "BREAK")]
        _until(lambda: all(_written(kept.folder, trace) for trace in traces))
        one.front.given._lately.clear()  # as after a restart, or ten thousand answers
        other, head = one.made("infer:chat"), {"traceparent": f"00-{traces[0]}-{'b' * 16}-01"}
        for trace, key in ((traces[0], other), (traces[1], None), ("0" * 32, None)):
            said = one.post("/feedback", {"trace": trace, "rating": 1}, key, headers=head)
            assert code(said) == "not_found"
        _until(lambda: _written(kept.folder, traces[0], 4))  # what was refused is in that trace too, and is no answer
        assert code(one.post("/feedback", {"trace": traces[0], "rating": 1}, other)) == "not_found"
        assert one.post("/feedback", {"trace": traces[0], "rating": 1}).status_code == 200
        assert feedback.counted(one.home, 0.0) == {"d" * 64: (1, 1)}
    tracer.close()


def _written(folder: Path, trace: str, times: int = 1) -> bool:
    """Whether a trace is in the local files, as often as this."""
    return sum(len(list(segments.lines(path, trace.encode()))) for path in segments.files(folder)) >= times


def test_models_have_their_window_and_no_path(running: Endpoint) -> None:
    head = {"Authorization": f"Bearer {running.key}"}
    said = httpx.get(f"{running.url}/models", headers=head)
    assert [one["id"] for one in said.json()["data"]] == ["nightshift", "nightshift-bare", "nightshift-embeddings"]
    assert [one["context_window"] for one in said.json()["data"]] == [1024, 1024, 512]
    assert httpx.get(f"{running.url}/models/nightshift", headers=head).json()["id"] == "nightshift"
    assert code(httpx.get(f"{running.url}/models/gpt-4", headers=head)) == "model_not_found"
    assert code(running.post("/chat/completions", chat("x") | {"model": "gpt-4"})) == "model_not_found"


def test_a_traceparent_is_gone_on_with(running: Endpoint) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    said = running.post(
        "/chat/completions",
        chat("Hello"),
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "mine"},
    )
    assert (said.headers["x-trace-id"], said.headers["x-request-id"]) == (trace, "mine")
    assert running.script.headers[-1]["traceparent"].split("-")[1] == trace
    assert re.fullmatch("[0-9a-f]{32}", running.post("/x", {}, headers={"x-request-id": "a b"}).headers["x-request-id"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_engines_work(running: Endpoint, stream: bool) -> None:
    async def leave() -> None:
        head = {"Authorization": f"Bearer {running.key}"}
        async with httpx.AsyncClient() as client:
            asked = client.post(f"{running.url}/chat/completions", json=chat("SAY:a HANG", stream=stream), headers=head)
            task = asyncio.create_task(asked)
            while not running.script.running:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    cut = running.script.cut
    asyncio.run(leave())
    deadline = time.monotonic() + 1
    while (running.script.running or running.served.busy) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (running.script.running, running.served.busy, running.served.turns.running) == (0, 0, 0)
    assert running.script.cut == cut + 1
    while metric(running, 'nightshift_requests_total{route="chat",side="stable",status="499"}') < 1:
        time.sleep(0.01)


def test_a_revoked_key_is_refused_at_once(running: Endpoint) -> None:
    key = running.made("infer:chat")
    assert running.ask("Hello", key).status_code == 200
    said = running_admin(running, "POST", f"/admin/v1/keys/{key.split('_')[2]}/revoke", {"reason": "test"})
    assert said.status_code == 200
    assert code(running.ask("Hello", key)) == "invalid_api_key"


def running_admin(running: Endpoint, method: str, path: str, body: Any = None, **head: str) -> httpx.Response:
    head = {"Authorization": f"Bearer {running.key}"} | head
    return httpx.request(method, running.admin + path, json=body, headers=head)


def test_keys_are_made_and_rotated_over_the_admin_listener_once(running: Endpoint) -> None:
    body = {"owner": "ann", "scopes": ["infer:chat"], "groups": ["public"]}
    first = running_admin(running, "POST", "/admin/v1/keys", body, **{"Idempotency-Key": "a"})
    again = running_admin(running, "POST", "/admin/v1/keys", body, **{"Idempotency-Key": "a"})
    assert again.json() == {"id": first.json()["key"].split("_")[2], "key": None, "shown": True}
    assert (
        code(running_admin(running, "POST", "/admin/v1/keys", body | {"owner": "bob"}, **{"Idempotency-Key": "a"}))
        == "conflict"
    )
    key = first.json()["key"]
    assert running.ask("Hello", key).status_code == 200
    rotated = running_admin(running, "POST", f"/admin/v1/keys/{key.split('_')[2]}/rotate", {"overlap_hours": 0}).json()[
        "key"
    ]
    assert code(running.ask("Hello", key)) == "invalid_api_key"
    assert running.ask("Hello", rotated).status_code == 200
    way, words = f"/admin/v1/keys/{key.split('_')[2]}/rotate", {"Idempotency-Key": "b"}
    twice = [running_admin(running, "POST", way, {"overlap_hours": 0}, **words).json() for _ in range(2)]
    assert twice[1] == twice[0] | {"key": None, "shown": True}
    assert running.ask("Hello", twice[0]["key"]).status_code == 200  # it was rotated once
    rotated = twice[0]["key"]
    assert code(running_admin(running, "POST", "/admin/v1/keys/aaaaaaaaaa/revoke", {})) == "invalid_value"
    listed = running_admin(running, "GET", "/admin/v1/keys").json()["data"]
    assert "ann" in [one["owner"] for one in listed] and rotated not in json.dumps(listed)
    events = running_admin(running, "GET", "/admin/v1/audit").json()
    assert events["whole"] is True
    assert {"key.create", "key.rotate", "key.revoke"} <= {one["action"] for one in events["data"]}


def registered(folder: Path, role: str) -> None:
    """A register with one release in production, and another of this role that is nowhere yet."""
    git(folder, "init", "-q", str(folder))
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    tag(folder, "v0.1.0", "a" * 64)
    registry.assign(folder, registry.releases(folder)[0])
    tag(folder, "v0.2.0", "b" * 64, role=role)
    shutil.copyfile(ROOT / params.FILE, folder / params.FILE)


def proposal(
    running: Endpoint, folder: Path, permits: Callable[[Release], Decision], monkeypatch: pytest.MonkeyPatch
) -> tuple[httpx.Response, Release | None]:
    """What is answered to who proposes v0.2.0 of this register, and what is tried then."""
    monkeypatch.setattr(running.follower, "repository", folder)
    monkeypatch.setattr(running.follower, "permits", permits)
    said = running.call("POST", "/admin/v1/deployments", {"version": "v0.2.0", "reason": "test"})
    return said, registry.current(folder, registry.CANARY)


@pytest.mark.parametrize("role", ["winner", "refresh"])
def test_what_the_error_budget_holds_back_is_not_proposed(
    role: str, running: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(tmp_path, role)

    def permits(release: Release) -> Decision:
        return Decision(release.role == "refresh", "of the error budget of speed 10% is left, and model has to wait")

    said, tried = proposal(running, tmp_path, permits, monkeypatch)
    if role == "refresh":
        assert said.status_code == 200 and tried
        return
    assert code(said) == "deploy_frozen" and tried is None
    assert said.json()["error"]["message"].startswith("Of the error budget of speed 10% is left")


@pytest.mark.parametrize("asks", ["approvals", "staging", "staging, where it was"])
def test_a_key_alone_takes_nothing_past_approvals_or_another_environment(
    asks: str, running: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(tmp_path, "winner")
    prod = "    - {name: prod, target: null, slo: slo, keys: local, approvals: 0}\n"
    if asks == "approvals":
        first, wanted = prod.replace("prod", "dev"), prod.replace("approvals: 0", "approvals: 1")
        registry.assign(tmp_path, registry.find(tmp_path, "v0.2.0"), "dev")
    else:
        first, wanted = prod.replace("prod", "staging"), prod
    if asks == "staging, where it was":
        registry.assign(tmp_path, registry.find(tmp_path, "v0.2.0"), "staging")
    path = tmp_path / params.FILE
    assert prod in path.read_text()
    path.write_text(path.read_text().replace(prod, first + wanted))
    said, tried = proposal(running, tmp_path, lambda release: Decision(True), monkeypatch)
    if asks == "staging, where it was":
        assert said.status_code == 200 and tried
        return
    assert code(said) == "conflict" and tried is None
    assert (
        said.json()["error"]["message"]
        == {
            "approvals": "Others have to agree to it here: `nightshift promote` takes it there.",
            "staging": "It was never in staging, which comes before prod.",
        }[asks]
    )


def test_an_admin_key_gets_no_secret_of_a_key_that_may_do_more(running: Endpoint) -> None:
    key, more, less = running.made("keys:admin"), running.made("deploy:approve"), running.made("infer:chat")
    ways = [f"/admin/v1/keys/{one.split('_')[2]}/rotate" for one in (more, less)]
    refused, given = (running.call("POST", way, {"overlap_hours": 0}, key) for way in ways)
    assert (code(refused), given.status_code) == ("insufficient_scope", 200)
    assert running.keys.check(more, time.time())  # it was not rotated


def test_an_admin_key_gives_no_scope_that_it_lacks(running: Endpoint) -> None:
    key = running.made("keys:admin")
    said = httpx.post(
        f"{running.admin}/admin/v1/keys",
        json={"owner": "x", "scopes": ["deploy:rollback"]},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert code(said) == "insufficient_scope"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"{", "invalid_json"),
        (b'{"model": "\xff"}', "invalid_unicode"),
        (b"[]", "invalid_json"),
        (b'{"model": "nightshift", "model": "x"}', "duplicate_key"),
        (b'{"temperature": NaN}', "non_finite_number"),
        (b'{"temperature": 1e999}', "non_finite_number"),
        (b'{"model": "\\ud800"}', "invalid_unicode"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "invalid_json"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b" " * (1 << 20) + b"{}", "request_too_large"),
        (json.dumps(chat("x", temprature=0)).encode(), "unknown_parameter"),
        (json.dumps({"model": "nightshift"}).encode(), "missing_field"),
        (json.dumps(chat("x") | {"messages": []}).encode(), "invalid_value"),
        (json.dumps(chat(" \n")).encode(), "invalid_value"),
        (json.dumps(chat("x") | {"messages": [{"role": "root", "content": ""}]}).encode(), "invalid_value"),
        (json.dumps(chat("x") | {"messages": [{"role": "assistant", "content": "Hi"}]}).encode(), "invalid_value"),
        (json.dumps(chat("x", max_tokens=0)).encode(), "invalid_value"),
        (json.dumps(chat("x", max_tokens=True)).encode(), "invalid_value"),
        (json.dumps(chat("x", stream="yes")).encode(), "invalid_value"),
        (json.dumps(chat("x", stop=["a"] * 5)).encode(), "invalid_value"),
        (json.dumps(chat("x", stop="a" * 65)).encode(), "invalid_value"),
        (json.dumps(chat("x", n=16384)).encode(), "invalid_value"),
        (json.dumps(chat("a" * 300_000)).encode(), "request_too_large"),
    ],
)
def test_a_wrong_body_is_told_what(running: Endpoint, sent: bytes, expected: str) -> None:
    head = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    assert code(httpx.post(f"{running.url}/chat/completions", content=sent, headers=head)) == expected


@pytest.mark.parametrize(
    "head",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip", "Content-Type": "application/json"},
    ],
)
def test_another_media_type_is_refused(running: Endpoint, head: dict[str, str]) -> None:
    said = httpx.post(
        f"{running.url}/chat/completions", content=b"{}", headers={"Authorization": f"Bearer {running.key}"} | head
    )
    assert code(said) == "unsupported_media_type"


def test_the_openapi_document_holds_every_route(running: Endpoint) -> None:
    said = httpx.get(
        running.url.removesuffix("/v1") + "/openapi.json", headers={"Authorization": f"Bearer {running.key}"}
    ).json()
    assert {(path, method) for path, one in said["paths"].items() for method in one} == {
        (entry.path, entry.method.lower()) for entry in PUBLIC
    }
    asked = {"chat": {"messages": [{"role": "user", "content": "x"}]}, "completions": {"prompt": "x"},
             "embeddings": {"input": "x"}}  # fmt: skip
    for entry in (one for one in PUBLIC if one.name in asked):
        assert entry.body is not None
        named = said["components"]["schemas"][entry.body.__name__]["properties"]["model"]["enum"]
        for name in ("nightshift", "nightshift-bare", "nightshift-embeddings"):
            answer = running.post(entry.path.removeprefix("/v1"), asked[entry.name] | {"model": name})
            refused = answer.json().get("error", {}).get("code") == "model_not_found"
            assert refused == (name not in named), (entry.name, name)


class Small:
    """Stands for an index's encoder."""

    width = 4

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: list[str], first: int) -> Any:
        import numpy as np

        return np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float16)


def test_embeddings_are_vectors_of_the_indexs_encoder(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(running.served.system.index), "encoder", Small())
    plain = running.post("/embeddings", {"model": "nightshift", "input": ["a", "bc"]}).json()
    assert [one["embedding"][0] for one in plain["data"]] == [1.0, 2.0]
    packed = running.post(
        "/embeddings", {"model": "nightshift-embeddings", "input": "abc", "encoding_format": "base64"}
    ).json()
    assert struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"])) == (3.0, 1.0, 2.0, 3.0)
    assert code(running.post("/embeddings", {"model": "nightshift", "input": [[1, 2]]})) == "invalid_value"
    assert (
        code(running.post("/embeddings", {"model": "nightshift", "input": "a", "dimensions": 5}))
        == "unsupported_parameter"
    )
    long = running.post("/embeddings", {"model": "nightshift", "input": ["a", "a " * 2000]})
    assert code(long) == "context_length_exceeded"
    assert long.json()["error"]["message"] == "The encoder reads 512 tokens; text 1 has more."


def test_vectors_and_abstentions_are_no_turns_at_a_language_model(
    tmp_path: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(tmp_path, system, abstain_below=0.3) as one:
        events = one.front.meters.events
        monkeypatch.setitem(vars(one.served.system.index), "encoder", Small())
        assert one.post("/embeddings", {"model": "nightshift", "input": "a"}).status_code == 200
        assert one.ask("Who won the football championship in Argentina?").json()["nightshift"]["abstained"]
        assert {sli for sli, _, _ in events} >= {"availability"}
        assert not any(sli == TURNS for sli, _, _ in events)
        assert one.ask("When is the pump oiled?").status_code == 200
        deadline = time.monotonic() + 10  # it is counted once the answer is on its way
        while not any(sli == TURNS for sli, _, _ in events) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [number for (sli, _, _), number in events.items() if sli == TURNS] == [1]


def test_a_keys_limits_are_told_and_hold(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, key=KeyLimits(concurrency=1, requests_a_minute=3, tokens_a_minute=100_000)) as one:
        first = one.ask("Hello")
        assert first.headers["x-ratelimit-limit-requests"] == "3"
        assert first.headers["x-ratelimit-remaining-requests"] == "2"
        assert [one.ask("Hello").status_code for _ in range(3)] == [200, 200, 429]
        refused = one.ask("Hello")
        assert code(refused) == "rate_limit_exceeded" and int(refused.headers["retry-after"]) >= 1
        small = one.made("infer:chat", limits=KeyLimits(concurrency=1, requests_a_minute=9, tokens_a_minute=10))
        assert code(one.ask("Hello", small)) == "rate_limit_exceeded"


def test_who_guesses_keys_waits(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, auth_failures_a_minute=3) as one:
        assert [code(one.ask("x", "ns_wrong")) for _ in range(4)] == ["invalid_api_key"] * 3 + ["rate_limit_exceeded"]


def test_who_has_a_key_is_answered_whoever_guesses_at_the_same_address(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, auth_failures_a_minute=3) as one:
        for _ in range(8):
            assert one.ask("x", "ns_wrong").status_code in (401, 429)
            assert one.ask("Hello").status_code == 200
        assert code(one.ask("x", "ns_wrong")) == "rate_limit_exceeded"


def test_a_question_that_the_sections_do_not_bear_on_is_not_answered(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, abstain_below=0.3) as one:
        for stream in (False, True):
            said = one.ask("Who won the football championship in Argentina?", stream=stream)
            about = (lines(said)[-1] if stream else said.json())["nightshift"]
            assert about["abstained"] is True
            assert "cannot answer this" in said.text
        assert one.script.asked == []
        own = one.ask("Who won the football championship?", nightshift={"sections": False}).json()["nightshift"]
        assert (own["abstained"], own["sections"]) == (False, [])
        bare = one.ask("Who won the football championship?", model="nightshift-bare").json()["nightshift"]
        assert (bare["abstained"], bare["sections"]) == (False, [])
        assert one.ask("?").json()["nightshift"]["abstained"] is True  # no word of it can be looked up
        long = one.ask("Who won the football championship in Argentina? " * 8).json()["nightshift"]
        assert long["abstained"] is False
        assert one.ask("When is the pump oiled?").json()["nightshift"]["abstained"] is False


def test_behind_a_proxy_the_last_address_that_it_names_is_whose_guesses_count(tmp_path: Path, system: Path) -> None:
    """HAProxy adds a header of its own below the client's; others add to the client's line."""
    listen = Listen(host="127.0.0.1", tls=None, behind_proxy=["127.0.0.1"])
    with endpoint(tmp_path, system, auth_failures_a_minute=1, listen=listen) as one:

        def guess(*forwarded: str) -> str:
            key = ("Authorization", f"Bearer ns_local_{'a' * 10}_{'a' * 52}")
            head = [key, *(("X-Forwarded-For", line) for line in forwarded)]
            return code(httpx.get(f"{one.url}/models", headers=head, verify=PLAIN))

        assert guess("192.0.2.1", "198.51.100.7") == "invalid_api_key"
        assert guess("192.0.2.2", "198.51.100.7") == "rate_limit_exceeded"
        assert guess("192.0.2.3, 198.51.100.7") == "rate_limit_exceeded"
        assert guess("198.51.100.7", "198.51.100.8") == "invalid_api_key"


def test_of_a_chain_of_proxies_the_last_address_that_is_none_of_theirs_counts(tmp_path: Path, system: Path) -> None:
    listen = Listen(host="127.0.0.1", tls=None, behind_proxy=["127.0.0.0/8", "10.1.0.0/16"])
    with endpoint(tmp_path, system, auth_failures_a_minute=1, listen=listen) as one:

        def guess(forwarded: str) -> str:
            head = {"Authorization": f"Bearer ns_local_{'a' * 10}_{'a' * 52}", "X-Forwarded-For": forwarded}
            return code(httpx.get(f"{one.url}/models", headers=head, verify=PLAIN))

        assert guess("198.51.100.7, 10.1.2.3") == "invalid_api_key"
        assert guess("192.0.2.1, 198.51.100.7, 10.1.9.9") == "rate_limit_exceeded"
        assert guess("198.51.100.7, 10.2.0.1") == "invalid_api_key"


def test_personal_data_can_be_refused_and_is_not_repeated(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, personal_in="refuse") as one:
        said = one.ask("Is ann@example.org in?")
        assert code(said) == "content_policy_violation"
        assert "ann" not in said.text


def test_a_shadow_is_asked_what_clients_ask_and_answers_nobody(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system) as one:
        release = Release("v0.2.0", "c" * 40, "e" * 64)
        rules = params.load(ROOT / "params.yaml", Rollouts).model_copy(update={"strategy": "shadow"})
        one.follower.candidate = Served(release, one.served.system, one.served.engines, Turns(1, 9, 9.0))
        one.follower.rollout = Rollout(release, rules, 0.0)
        said = [one.ask("When is the pump oiled?").json()["nightshift"]["version"] for _ in range(3)]
        seen = one.follower.candidate.seen
        deadline = time.monotonic() + 5
        while seen.requests < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (said, seen.requests, seen.bad) == (["v0.1.0"] * 3, 3, 0)
        assert (len(one.script.asked), one.follower.candidate.users) == (6, set())
        one.follower.rollout.advance(1.0)  # and then it answers everybody
        assert one.ask("When is the pump oiled?").json()["nightshift"]["version"] == "v0.2.0"


@pytest.mark.parametrize("stream", [False, True])
def test_how_fast_tokens_come_is_seen_of_a_client_s_answer_and_of_its_copy(
    stream: bool, tmp_path: Path, system: Path
) -> None:
    with endpoint(tmp_path, system) as one:
        release = Release("v0.2.0", "c" * 40, "e" * 64)
        rules = params.load(ROOT / "params.yaml", Rollouts).model_copy(update={"strategy": "shadow"})
        candidate = one.follower.candidate = Served(release, one.served.system, one.served.engines, Turns(1, 9, 9.0))
        one.follower.rollout = Rollout(release, rules, 0.0)
        assert one.ask("SLOW SAY:one two three", stream=stream).status_code == 200
        seen = one.served.seen.token_s, candidate.seen.token_s
        _until(lambda: [len(times) for times in seen] == [1, 1])
        assert all(times[0] > 0.04 for times in seen)  # a word takes 0.05 s


def test_what_asked_no_engine_passes_no_step_of_a_rollout(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, abstain_below=0.5) as one:
        seen = one.served.seen
        assert one.ask("Which zebras juggle quasars?").json()["nightshift"]["abstained"] is True
        assert one.ask("When is the pump oiled?").status_code == 200
        broken = one.ask("REFUSE", nightshift={"sections": False})
        assert (broken.status_code, broken.headers["x-model-digest"]) == (502, one.served.release.digest)
        _until(lambda: (seen.requests, seen.bad) == (2, 1))


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_a_shadow_that_breaks_on_a_copy_has_failed(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system) as one:
        release = Release("v0.2.0", "c" * 40, "e" * 64)
        rules = params.load(ROOT / "params.yaml", Rollouts).model_copy(update={"strategy": "shadow"})
        broken = replace(one.served.system, settings={"sections": True})  # lacks what an answer needs
        candidate = one.follower.candidate = Served(release, broken, one.served.engines, Turns(1, 9, 9.0))
        one.follower.rollout = Rollout(release, rules, 0.0)
        assert one.ask("When is the pump oiled?").json()["nightshift"]["version"] == "v0.1.0"
        deadline = time.monotonic() + 5
        while not candidate.seen.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (candidate.seen.requests, candidate.seen.bad) == (1, 1)


def test_an_order_that_is_repeated_while_it_is_carried_out_is_done_once(
    tmp_path: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endpoint(tmp_path, system) as one:
        create, going, let, made = Keys.create, threading.Event(), threading.Event(), list[str]()

        def slow(*given: Any, **more: Any) -> str:
            going.set()
            assert let.wait(10)
            made.append(create(*given, **more))
            return made[-1]

        monkeypatch.setattr(Keys, "create", slow)
        body, said = {"owner": "ann", "scopes": ["infer:chat"]}, list[httpx.Response]()

        def order() -> None:
            said.append(running_admin(one, "POST", "/admin/v1/keys", body, **{"Idempotency-Key": "a"}))

        threads = [threading.Thread(target=order) for _ in range(2)]
        threads[0].start()
        assert going.wait(10)
        threads[1].start()
        in_flight = one.front.meters.in_flight._value
        deadline = time.monotonic() + 10
        while in_flight.get() < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert in_flight.get() == 2
        let.set()
        for thread in threads:
            thread.join()
        assert len(made) == 1
        name = made[0].split("_")[2]
        told = sorted((answer.json() for answer in said), key=lambda one: "shown" in one)
        assert told == [{"id": name, "key": made[0]}, {"id": name, "key": None, "shown": True}]


def test_an_engine_that_is_slow_to_begin_is_given_up(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, first_token_s=0.3, total_s=0.6) as one:
        assert code(one.ask("SAY:HANG")) == "engine_timeout"
        assert code(one.ask("SAY:HANG", stream=True)) == "engine_timeout"
        said = one.ask("SAY:one HANG", stream=True)
        assert lines(said)[-1]["error"]["code"] == "engine_timeout"
