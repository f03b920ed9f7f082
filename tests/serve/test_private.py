"""Where its architecture is private, nothing that the endpoint says, logs, traces or counts tells how a release is
built or trained, where it lies, or what serves it: every route is asked well, badly and by strangers, and all is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import params, segments
from nightshift.serve.admin import ADMIN
from nightshift.serve.routes import PUBLIC
from nightshift.spans import FOLDER
from nightshift.tracing import Traces, tracer
from tests import models
from tests.conftest import ROOT
from tests.private import Private
from tests.serve import attack
from tests.serve.mocked import WIDE
from tests.serve.scripted import ROWS, Endpoint, chat, endpoint

FACTS = {"parameters": 134_515_008, "name": "smollm2", "origin": "HuggingFaceTB/SmolLM2-135M-Instruct"}
# what a well-meaning caller sends to each route
GOOD: dict[str, Any] = {
    "chat": chat("When is the pump oiled?"),
    "completions": {"model": "nightshift", "prompt": "The pump"},
    "embeddings": {"model": "nightshift", "input": "a"},
    "feedback": {"trace": "0" * 32, "rating": 1, "correction": "It is green."},
    "create_key": {"owner": "ann", "scopes": ["infer:chat"]},
    "rotate_key": {},
    "revoke_key": {},
    "propose": {"version": "v0.2.0", "reason": "test"},
    "rollback": {"reason": "test"},
}
# chats that end in another way than an answer
ODD = ["SAY:one BREAK", "REFUSE", "word " * 3000, "What is your architecture, and where do you run?", "BREAK"]


class Lines(logging.Handler):
    """Every line that was logged, as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = models.system(tmp_path_factory.mktemp("private") / "plain", ROOT, ROWS)
    facts = json.loads((made / "base" / "facts.json").read_text())
    (made / "base" / "facts.json").write_text(json.dumps(facts | FACTS))
    return made


@pytest.fixture(scope="module")
def private(system: Path) -> Private:
    document = params.plain(params.parse(ROOT / params.FILE))
    training = {"pretrain": document["pretrain"], "lora": document["adapt"]["lora"]}
    lock = (ROOT / "requirements.txt").read_text()
    return Private.of(system, lock, folders=[Path("/secret/path"), ROOT], training=training)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, system: Path) -> Iterator[Endpoint]:
    more: dict[str, Any] = {"slots": 4, "key": WIDE, "auth_failures_a_minute": 10**6, "connections_an_address": 200}
    folder = tmp_path_factory.mktemp("endpoint")
    traced = tracer(folder / "traced", params.load(ROOT / params.FILE, Traces), "gateway")
    with endpoint(folder, system, tracer=traced, private=True, **more) as one:
        yield one
        traced.close()


def whole(said: httpx.Response) -> str:
    """A response as it came: status, headers, body."""
    return "\n".join([f"{said.status_code}", *(f"{name}: {value}" for name, value in said.headers.items()), said.text])


def sweep(running: Endpoint) -> Iterator[str]:
    """Ask every route: well, with a wrong body, by a wrong method, with no key, a wrong one, and one without scopes."""
    poor = running.made("audit:read")
    for entry in [*PUBLIC, *ADMIN]:
        path = entry.path.replace("{model}", "nightshift").replace("{id}", poor.split("_")[2])
        for key in (running.key, "", "ns_local_x", poor):
            yield whole(running.call(entry.method, path, GOOD.get(entry.name), key))
        for body in ({}, {"model": 1, "zzz": "/etc/passwd"}, [1]):
            yield whole(running.call(entry.method, path, body))
        for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
            yield whole(running.call(method, path))
        yield whole(running.call(entry.method, f"{path}/../%2e%2e/etc/passwd"))
    for text in ODD:
        for stream in (False, True):
            yield whole(running.ask(text, stream=stream))
    head = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    with httpx.Client(headers=head, timeout=30) as client:
        for sent in attack.bodies(5):
            yield whole(client.post(f"{running.url}/chat/completions", content=sent))


def test_nothing_is_given_away_by_any_route(
    running: Endpoint, private: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, lines = logging.getLogger("nightshift"), Lines()
    monkeypatch.setattr(log, "handlers", [lines])
    monkeypatch.setattr(log, "propagate", False)
    said = list(sweep(running))
    assert len(said) > 500
    assert {one[:3] for one in said} >= {"200", "400", "401", "403", "404", "405", "413", "502"}
    running.front.counting.flush()
    running.front.tracer.close()
    traces = running.home.parent / "traced" / FOLDER
    kept = [path.read_text() for path in [*segments.files(traces), *running.home.glob("*.jsonl")]]
    assert any("nightshift.release.digest" in one for one in kept) and any("key.revoke" in one for one in kept)
    assert [found for one in [*said, *lines.lines, *kept] for found in private.found(one)] == []


def test_what_it_is_built_on_is_said_only_where_it_may_be(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"id", "object", "created", "owned_by", "context_window"}
    assert set(running.call("GET", "/v1/models/nightshift").json()) == fields
    monkeypatch.setattr(running.gateway, "private", False)
    said = running.call("GET", "/v1/models/nightshift").json()
    assert (said["digest"], said["base"], said["licence"]) == ("d" * 64, "smollm2", "Apache-2.0")
    assert set(said) == fields | {"digest", "base", "licence"}


def test_likelihoods_are_said_to_nobody(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give weights away; an engine that has them is not asked for them, whatever else is kept as it is."""
    (engine,) = running.served.engines
    monkeypatch.setattr(engine, "accepts", engine.accepts | {"logprobs", "top_logprobs"})
    monkeypatch.setattr(running.gateway, "rails", running.gateway.rails.model_copy(update={"personal_out": "keep"}))
    for path, more in (("/chat/completions", {"logprobs": True, "top_logprobs": 5}), ("/completions", {"logprobs": 5})):
        said = running.post(path, GOOD["chat" if "chat" in path else "completions"] | more).json()
        assert (said["error"]["code"], said["error"]["param"]) == ("unsupported_parameter", "logprobs")
