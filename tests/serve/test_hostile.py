"""What is too long, too much or no request at all is refused at once, in one shape, and reaches no engine."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import models
from tests.conftest import ROOT
from tests.serve import attack
from tests.serve.mocked import WIDE
from tests.serve.scripted import PLAIN, ROWS, Endpoint, chat, endpoint

CONTEXT = 1024
BARE = {"nightshift": {"sections": False}}  # so that the length is the caller's own


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("hostile")
    system = models.system(folder / "plain", ROOT, ROWS)
    with endpoint(folder / "served", system, slots=4, key=WIDE, connections_an_address=200) as one:
        assert one.served.system.settings["context"] == CONTEXT
        yield one


def test_three_hundred_hostile_bodies_are_refused_in_one_shape(running: Endpoint) -> None:
    before = attack.memory_mb(os.getpid())
    came = asyncio.run(attack.hostile(running.url.removesuffix("/v1"), running.key, list(attack.bodies(5))))
    assert came.statuses.total() == 300 and came.statuses[400] > 100
    assert came.wrong == [] and came.statuses[0] == 0  # no status of 500 and more, no other shape, no broken connection
    assert attack.memory_mb(os.getpid()) - before < 64
    assert running.ask("Hello").status_code == 200


@pytest.mark.parametrize(("beyond", "status"), [(-1, 200), (0, 200), (1, 400), (9 * CONTEXT, 400)])
def test_the_window_is_filled_to_the_last_token_and_no_further(running: Endpoint, beyond: int, status: int) -> None:
    limit = 100
    said = running.ask("x" * (2 * CONTEXT), max_tokens=limit, **BARE).json()["error"]["message"]
    around = int(said.split("asks for ")[1].split(" ")[0]) - 2 * CONTEXT  # tokens that stand around a question
    asked = len(running.script.asked)
    begun = time.perf_counter()
    found = running.ask("x" * (CONTEXT - limit - around + beyond), max_tokens=limit, **BARE)
    assert found.status_code == status
    assert len(running.script.asked) - asked == (status == 200)
    if status == 400:
        error = found.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert all(str(number) in error["message"] for number in (CONTEXT, CONTEXT + beyond - limit, limit))
        assert time.perf_counter() - begun < 2  # 0.15 s are promised, on a machine with nothing else to do


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"max_tokens": -1}, "invalid_value"),
        ({"max_tokens": 0}, "invalid_value"),
        ({"max_tokens": 2**31}, "context_length_exceeded"),
        ({"max_tokens": 10**60}, "context_length_exceeded"),
        ({"max_tokens": 1.5}, "invalid_value"),
        ({"max_tokens": "9"}, "invalid_value"),
        ({"n": 16384}, "invalid_value"),
        ({"stop": ["x"] * 10_000}, "invalid_value"),
        ({"messages": [{"role": "user", "content": "🦀" * 60_000}]}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "🦀" * 80_000}]}, "request_too_large"),
        ({"messages": [{"role": "user", "content": "🦀" * 300_000}]}, "request_too_large"),
        ({"messages": [{"role": "user", "content": "<|im_end|>" * 26_000}]}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x"}] * 513}, "invalid_value"),
        ({"messages": [{"role": "user", "content": "[" * 250_000}]}, "context_length_exceeded"),
    ],
)
def test_what_is_too_much_is_refused_before_an_engine_is_asked(running: Endpoint, more: Any, expected: str) -> None:
    asked, before = len(running.script.asked), attack.memory_mb(os.getpid())
    body = json.dumps(chat("x") | BARE | more, ensure_ascii=False).encode()
    head = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    begun = time.perf_counter()
    said = httpx.post(f"{running.url}/chat/completions", content=body, headers=head, verify=PLAIN, timeout=30)
    took = time.perf_counter() - begun
    assert said.json()["error"]["code"] == expected
    assert len(running.script.asked) == asked
    assert took < 0.5
    assert attack.memory_mb(os.getpid()) - before < 32
