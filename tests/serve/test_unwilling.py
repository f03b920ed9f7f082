"""What an engine will not have of a request is told the caller as the caller's own, and is nobody's failure."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift import engine, params
from nightshift.registry import Release
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from tests import models
from tests.conftest import ROOT
from tests.serve.mocked import WIDE
from tests.serve.scripted import ACCEPTS, ROWS, Endpoint, endpoint

COUNTED = ('nightshift_valid_total{sli="availability"}', 'nightshift_good_total{sli="availability"}')


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, ROWS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, system: Path) -> Iterator[Endpoint]:
    with endpoint(tmp_path_factory.mktemp("unwilling"), system, slots=4, key=WIDE) as one:
        one.served.engines[0].accepts = ACCEPTS | {"logit_bias", "response_format"}
        yield one


def counted(running: Endpoint) -> tuple[list[float], int, int]:
    """Events of availability, valid and good, and what was seen of the release: requests, and those that failed."""
    said = running.call("GET", "/metrics").text.splitlines()
    events = [float(next(line.split()[-1] for line in said if line.startswith(name))) for name in COUNTED]
    return events, running.served.seen.requests, running.served.seen.bad


@pytest.mark.parametrize("stream", [True, False])
def test_a_value_that_vllm_will_not_have_is_the_callers(
    stream: bool, tmp_path: Path, system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + (ROOT / "tests" / "fake_vllm.py").read_text())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with endpoint(tmp_path / "served", system) as one, engine.start(system, 1, kind="vllm") as vllm:
        one.served.engines = [vllm]
        before = counted(one)
        for name, value in {"logit_bias": {"900000": 5.0}, "response_format": {"type": "json_odd"}}.items():
            said = one.ask("Hello", stream=stream, **{name: value})
            assert said.status_code == 400, said.text
            assert said.json()["error"]["code"] == "invalid_value"
            assert said.json()["error"]["message"] == f"The model does not take the value of '{name}'."
            assert said.json()["error"]["param"] == name
        assert counted(one) == before
        assert one.ask("Hello", stream=stream, logit_bias={"9": 5.0}).status_code == 200


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        (400, {"logit_bias": {"1": 1}, "n": 2}, 400),
        (422, {"logit_bias": {"1": 1}}, 400),
        (400, {}, 502),  # a plain question: whatever is wrong, it is not the caller
        (422, {"temperature": 0.5, "seed": 3}, 502),
        (401, {"logit_bias": {"1": 1}}, 502),
        (404, {"logit_bias": {"1": 1}}, 502),
        (413, {"logit_bias": {"1": 1}}, 502),
        (503, {"logit_bias": {"1": 1}}, 502),
    ],
)
def test_only_what_the_caller_chose_is_the_callers(
    running: Endpoint, status: int, more: dict[str, object], expected: int
) -> None:
    (valid, good), requests, bad = counted(running)
    said = running.ask(f"REFUSE{status}", nightshift={"sections": False}, **more)
    assert (said.status_code, "scripted" in said.text) == (expected, False)
    fails = expected == 502
    deadline = time.monotonic() + 5
    while fails and running.served.seen.bad == bad and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counted(running) == ([valid + fails, good], requests + fails, bad + fails)


def test_an_order_of_turns_is_the_callers_and_a_copy_of_it_fails_no_candidate(running: Endpoint) -> None:
    release = Release("v0.2.0", "c" * 40, "e" * 64)
    rules = params.load(ROOT / "params.yaml", Rollouts).model_copy(update={"strategy": "shadow"})
    candidate = Served(release, running.served.system, running.served.engines, Turns(4, 9, 9.0))
    running.follower.candidate, running.follower.rollout = candidate, Rollout(release, rules, 0.0)
    try:
        turns = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "REFUSE400"}]
        asked = len(running.script.asked)
        said = running.post("/chat/completions", {"model": "nightshift", "messages": turns})
        assert said.json()["error"]["param"] == "messages"
        deadline = time.monotonic() + 5
        while (len(running.script.asked) < asked + 2 or candidate.busy) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (len(running.script.asked), candidate.seen.requests) == (asked + 2, 0)
        running.ask("REFUSE400")  # a copy of a plain question, which the candidate's engine should have answered
        while not candidate.seen.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        assert candidate.seen.bad == 1
    finally:
        running.follower.candidate = running.follower.rollout = None
