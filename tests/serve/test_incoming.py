"""What a caller sends holds nobody else up: what cannot fit is not looked at, and what is long is in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nightshift import mask
from nightshift.answer import System
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, chat, endpoint

PHONES = "+1 650 253 "


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("incoming")
    with endpoint(folder / "served", models.system(folder / "plain", ROOT, ROWS), slots=4) as one:
        yield one


@pytest.fixture
def looked(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was masked, and in which thread: `loop` or `beside`."""
    seen: list[tuple[str, str]] = []
    replace, check = mask.replace, running.keys.check
    loops: set[int] = set()
    monkeypatch.setattr(running, "loops", loops, raising=False)

    def checked(*given: Any) -> Any:  # which the event loop does itself, for each request
        loops.add(threading.get_ident())
        return check(*given)

    def replaced(text: str) -> Any:
        seen.append((text, "loop" if threading.get_ident() in loops else "beside"))
        return replace(text)

    monkeypatch.setattr(running.front.keys, "check", checked)
    monkeypatch.setattr(mask, "replace", replaced)
    return seen


def test_what_cannot_fit_is_refused_before_anything_is_made_of_it(
    running: Endpoint, looked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    monkeypatch.setattr(System, "sections", lambda system, question, groups: searched.append(question) or [])
    turns = [{"role": "user", "content": PHONES * 1000} for _ in range(90)]  # 990 KB
    said = running.post("/chat/completions", {"model": "nightshift", "messages": turns})
    gone_on = running.post("/completions", {"model": "nightshift", "prompt": [PHONES * 1000] * 20})
    assert [one.json()["error"]["code"] for one in (said, gone_on)] == ["context_length_exceeded"] * 2
    assert [one.json()["error"]["param"] for one in (said, gone_on)] == ["messages", "prompt"]
    assert (looked, searched) == ([], [])


def test_a_long_text_is_masked_beside_the_loop_and_a_short_one_on_it(
    running: Endpoint, looked: list[tuple[str, str]]
) -> None:
    long = "words " * 400 + "ann@example.org"
    assert running.ask("To ann@example.org").status_code == 200
    assert looked == [("To ann@example.org", "loop")]
    looked.clear()
    running.ask(long, max_tokens=1)
    running.post("/completions", {"model": "nightshift", "prompt": ["Hello", long]})
    trace = running.post("/chat/completions", chat("Hello")).headers["x-trace-id"]
    running.post("/feedback", {"trace": trace, "rating": 1, "correction": long})
    assert looked == [(long, "beside"), ("Hello", "beside"), (long, "beside"), ("Hello", "loop"), (long, "beside")]


@pytest.mark.parametrize(("text", "where"), [("words " * 400 + "ended", "beside"), ("ended", "loop")])
def test_a_long_text_is_made_a_prompt_of_and_counted_beside_the_loop(
    text: str, where: str, running: Endpoint, looked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, length = list[int](), System.length

    def count(system: System, turn: str) -> int:
        if "ended" in turn:
            counted.append(threading.get_ident())
        return length(system, turn)

    monkeypatch.setattr(System, "length", count)
    running.post("/completions", {"model": "nightshift", "prompt": text, "max_tokens": 1})
    running.ask(text, model="nightshift-bare", max_tokens=1)
    assert len(counted) == 2
    assert {one in running.loops for one in counted} == {where == "loop"}  # type: ignore[attr-defined]
