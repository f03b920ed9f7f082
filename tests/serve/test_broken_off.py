"""An engine that dies at any token: no invented end, an event that says so, a bad event of the objective, and the key
pays for what it was given and for no more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from nightshift.serving import KeyLimits
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, Script, _chunk, chat, endpoint

TOKENS = 20
WORDS = [f"word{letter} " for letter in "abcdefghijklmnopqrst"]  # no digits: those are held back
A_MINUTE = 1_000_000


class Died(ConnectionError):
    """What uvicorn makes a reset of."""


@dataclass
class Dying(Script):
    """An engine whose connection breaks after so many tokens; at TOKENS and more it ends well."""

    at: int = 0
    how: str = "cut"
    fired: int = 0
    other: bytes = b""

    async def answer(self, request: Request) -> Response:
        """Say words until it dies."""
        chatting = "messages" in await request.json()
        return StreamingResponse(self._dying(chatting), media_type="text/event-stream")

    async def _dying(self, chatting: bool) -> Any:
        for number in range(TOKENS):
            if number == self.at:
                self.fired += 1
                if self.how == "hang":
                    await asyncio.sleep(60)
                if self.how == "reset":
                    raise Died
                if self.how == "garbage":
                    yield b'data: {"choices": [{"index": 0, "del\n\n'
                if self.how == "other":
                    yield self.other
                if self.how == "done":  # a proxy's way to end
                    yield b"data: [DONE]\n\n"
                return
            yield _chunk(chatting, WORDS[number], None, 0)
        if self.at == TOKENS:  # all was said, and not that it ended
            self.fired += 1
            return
        yield _chunk(chatting, "", "stop", 0)
        yield b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("dying")
    system = models.system(folder / "plain", ROOT, ROWS)
    wide = KeyLimits(concurrency=9, requests_a_minute=100_000, tokens_a_minute=A_MINUTE)
    with endpoint(folder / "served", system, script=Dying(), key=wide) as one:
        yield one


@pytest.fixture
def engine(running: Endpoint) -> Dying:
    assert isinstance(running.script, Dying)
    return running.script


def bad(running: Endpoint) -> float:
    """Events of availability that were not good."""
    valid, good = (
        one.labels("availability")._value.get() for one in (running.front.meters.valid, running.front.meters.good)
    )
    return float(valid - good)


def ended(running: Endpoint) -> None:
    """Wait until the last request was counted: its client may have read it before."""
    deadline = time.monotonic() + 10
    while running.front.meters.in_flight._value.get() and time.monotonic() < deadline:
        time.sleep(0.001)


def charged(running: Endpoint) -> float:
    """Tokens that the key's account lacks, as nothing flows back meanwhile."""
    (account,) = running.front.limiter.accounts.values()
    return float(A_MINUTE - account.tokens.left)


def chunks(said: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
@pytest.mark.parametrize("how", ["cut", "reset", "garbage", "done"])
def test_an_engine_that_dies_at_any_token(
    running: Endpoint, engine: Dying, how: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = running.front.clock()
    monkeypatch.setattr(running.front, "clock", lambda: now)  # no tokens flow back by time
    asked = chat("When is the pump oiled?") if path.startswith("/chat") else {"model": "nightshift", "prompt": "The"}
    engine.how, engine.at = how, 99
    running.front.limiter.accounts.clear()
    prompt = running.post(path, asked).json()["usage"]["prompt_tokens"]  # which is paid for too
    ended(running)
    assert charged(running) == prompt + TOKENS
    for at in range(TOKENS + 1):
        engine.at, before = at, (bad(running), engine.fired)
        running.front.limiter.accounts.clear()
        given = 0
        said = running.post(path, asked | {"stream": True, "stream_options": {"include_usage": True}})
        begun = said.status_code == 200
        # before its first word it has a status of its own; words that come together with garbage are none
        assert begun or at < 2 or how == "garbage"
        if not begun:
            assert said.status_code == 502 and said.json()["error"]["code"] == "engine_error"
        else:
            assert said.text.endswith("data: [DONE]\n\n")
            *parts, last = chunks(said)
            assert last["error"]["code"] == "engine_error"
            assert all(one["choices"][0]["finish_reason"] is None and "usage" not in one for one in parts)
            given = sum(one in said.text for one in WORDS)
            assert given <= at and all(one in said.text for one in WORDS[:given])
        ended(running)
        assert (bad(running), engine.fired) == (before[0] + 1, before[1] + 1)
        assert given <= charged(running) - (prompt if begun else 0) <= at
    assert running.post(path, asked).json()["error"]["code"] == "engine_error"
    assert engine.fired >= TOKENS + 2


@pytest.mark.parametrize(
    "said", ["[1]", "1", '{"choices": ["a"]}', '{"choices": [{"delta": "a"}]}', '{"choices": {}, "usage": 1}']
)
def test_what_an_engine_says_that_is_no_answer_is_its_error(running: Endpoint, engine: Dying, said: str) -> None:
    engine.how, engine.at, engine.other = "other", 3, f"data: {said}\n\n".encode()
    fired = engine.fired
    whole = running.ask("When is the pump oiled?")
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "engine_error")
    assert '"engine_error"' in running.ask("When is the pump oiled?", stream=True).text  # whether it had begun or not
    assert engine.fired == fired + 2


def test_an_answer_in_one_piece_that_broke_off_costs_nothing(running: Endpoint, engine: Dying) -> None:
    engine.at, engine.how = 7, "cut"
    running.front.limiter.accounts.clear()
    assert running.ask("Hello").status_code == 502
    ended(running)
    assert charged(running) == 0


def test_who_leaves_pays_for_what_was_written(running: Endpoint, engine: Dying) -> None:
    """Else a client that hangs up before the last word would ask for nothing."""
    engine.at, engine.how = 10, "hang"
    running.front.limiter.accounts.clear()
    head = {"Authorization": f"Bearer {running.key}"}
    url = f"{running.url}/chat/completions"
    with httpx.stream("POST", url, json=chat("Hello", stream=True), headers=head) as said:
        for line in said.iter_lines():
            if WORDS[8] in line:
                break
    ended(running)
    assert charged(running) >= 9


def test_the_official_client_raises(running: Endpoint, engine: Dying) -> None:
    engine.at, engine.how = 5, "reset"
    client = openai.OpenAI(api_key=running.key, base_url=running.url, max_retries=0)
    came = []
    asked: Any = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.APIError, match="no whole answer"):
        for one in client.chat.completions.create(model="nightshift", messages=asked, stream=True):
            came.append(one.choices[0].finish_reason)
    assert came and set(came) == {None}
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="nightshift", messages=asked)
