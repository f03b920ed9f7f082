"""One trace goes through retrieval, prompt, engine and scrub, and says of each what made the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nightshift.attributes import ATTRIBUTES
from nightshift.spans import STEPS, Trace, Tracer
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, endpoint


@dataclass
class Kept:
    """Keeps ended traces."""

    traces: list[Trace] = field(default_factory=list)

    def put(self, one: Trace) -> None:
        """Keep it."""
        self.traces.append(one)

    def counts(self) -> dict[str, dict[str, int]]:
        """None are lost."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


KEPT = Kept()
TRACER = Tracer("nightshift-gateway", [KEPT])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("traced")
    system = models.system(folder / "plain", ROOT, ROWS)
    with endpoint(folder / "served", system, slots=2, tracer=TRACER) as one:
        yield one


def steps(trace: str) -> dict[str, dict[str, Any]]:
    """The attributes of each step of a trace, by the step's name, once it ended."""
    deadline = time.monotonic() + 5
    while not (found := [one for one in KEPT.traces if one.trace_id == trace]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return {step.name: step.attributes for step in found[0].steps}


def test_what_is_lost_of_traces_is_counted_where_an_operator_looks(
    running: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KEPT, "counts", lambda: {"file": {"sent": 7, "dropped": 3, "failed": 1}})
    TRACER.refused["queue_s"] += 2
    try:
        said = running.call("GET", "/metrics").text
    finally:
        del TRACER.refused["queue_s"]
    assert 'nightshift_traces_total{outcome="dropped",sink="file"} 3.0' in said
    assert 'nightshift_traces_total{outcome="failed",sink="file"} 1.0' in said
    assert 'nightshift_attributes_refused_total{word="queue_s"} 2.0' in said


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_one_trace_from_its_sections_to_what_was_masked(running: Endpoint, stream: bool) -> None:
    running.script.instead = {"Ann": "ann@example.org"}
    said = running.ask("SAY:Write to Ann for more.", stream=stream, temperature=0.5, top_p=0.9)
    found = steps(said.headers["x-trace-id"])
    assert list(found) == ["retrieve", "prompt", "engine", "scrub"] == list(STEPS)
    engine = found["engine"]
    assert (engine["operation"], engine["temperature"], engine["top_p"]) == ("chat", 0.5, 0.9)
    assert 0 < engine["first_token_s"] < 5
    assert found["scrub"] == {"masked_out": {"EMAIL": 1}, "links": None, "blocked": None}
    assert not TRACER.refused
    assert set().union(*found.values()) <= set(ATTRIBUTES)


def test_a_chat_without_sections_is_a_chat(running: Endpoint) -> None:
    said = running.ask("Hello", nightshift={"sections": False})
    assert steps(said.headers["x-trace-id"])["engine"]["operation"] == "chat"


def test_a_completion_is_none(running: Endpoint) -> None:
    said = running.post("/completions", {"model": "nightshift", "prompt": "The pump"})
    found = steps(said.headers["x-trace-id"])
    assert list(found) == ["engine", "scrub"]
    assert (found["engine"]["operation"], found["engine"]["temperature"]) == ("text_completion", 0)
