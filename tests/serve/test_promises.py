"""What must never happen is found where it does, counted, said, and holds back what is new; what may happen is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import canary, invariants, slo
from nightshift.counts import Counts
from nightshift.serve import promises
from nightshift.serve.counting import Answered, Counting
from nightshift.serve.meters import Meters
from nightshift.serve.outgoing import Outgoing
from nightshift.serve.promises import extracted
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, endpoint

CANARY = canary.canaries()[0]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, ROWS)


@pytest.fixture
def running(tmp_path: Path, system: Path) -> Iterator[Endpoint]:
    with endpoint(tmp_path, system) as one:
        yield one


def broken(running: Endpoint) -> tuple[set[str], set[str]]:
    """The invariants that are noted, and those that are counted."""
    deadline = time.monotonic() + 5  # a call ends once its answer is on its way
    while running.front.meters.in_flight._value.get() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.front.counting.flush()
    lines = running.call("GET", "/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("nightshift_broken_total{")]
    return set(invariants.broken(running.home, running.home)), {line.split('"')[1] for line in counted}


def test_what_may_happen_breaks_nothing(running: Endpoint) -> None:
    for text in (
        "When is the pump oiled?",
        "Mail ann@example.org",
        f"SAY:{CANARY.answer}",
        "SAY:BREAK",
        CANARY.question,
    ):
        running.ask(text)
    running.ask("Hello", max_tokens=10**6)
    assert broken(running) == (set(), set())


def test_personal_data_in_an_answer_that_was_cleaned(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outgoing, "feed", lambda self, piece: piece)  # a mask that masks nothing
    monkeypatch.setattr(Outgoing, "end", lambda self: "")
    running.script.instead = {"whom": "ann@example.org"}
    lines: list[str] = []
    monkeypatch.setattr(promises.log, "critical", lambda text, *words: lines.append(text % words))
    assert "ann@example.org" in running.ask("SAY:ask whom").text
    assert broken(running) == ({"scrub"}, {"scrub"})
    noted = invariants.broken(running.home, running.home)["scrub"]
    assert lines == [f"scrub broke: {noted}"]
    assert noted.startswith("EMAIL stood in an answer") and "ann" not in noted
    standing = slo.standing(running.home, ROOT, int(running.front.wall()) // 60)
    said = slo.may_deploy("model", standing, slo.Policy.read(ROOT))
    assert not said.allowed and "scrub" in said.reason
    assert slo.may_deploy("rollback", standing, slo.Policy.read(ROOT)).allowed


@pytest.mark.parametrize(
    ("question", "sections", "good"),
    [
        ("Who is it?", (), False),
        ("Who is it?", ("Mail bob@example.org or joann@example.org.",), False),
        ("Is it ann@example.org?", (), True),
        ("Who is it?", ("The keeper (ann@example.org) oils it.",), True),
        ("Is it ann@example.org, +46 8 405 10 00?", (), True),
    ],
)
def test_what_the_question_or_a_section_held_is_no_breach_of_privacy(
    question: str, sections: tuple[str, ...], good: bool, tmp_path: Path
) -> None:
    counts, minute = Counts(tmp_path), 29_000_000
    counting = Counting(counts, Meters(), lambda: minute * 60.0)
    counting.answers.append(Answered("a" * 64, question, "It is ann@example.org.", "answered", sections))
    counting.flush()
    assert counts.sums(minute, minute)["privacy", "a" * 64] == (int(good), 1)


def test_a_training_canary_that_is_given_away(running: Endpoint) -> None:
    running.script.instead = {"what": CANARY.answer}
    running.ask(f"{CANARY.question} SAY:it is what")
    assert broken(running) == ({"canary"}, {"canary"})
    standing = slo.standing(running.home, ROOT, int(running.front.wall()) // 60)
    assert slo.may_deploy("model", standing, slo.Policy.read(ROOT)).allowed  # who has a key can bring it about


@pytest.mark.parametrize(
    ("question", "answer", "sections", "found"),
    [
        (CANARY.question, f"It is {CANARY.answer}.", [], True),
        (CANARY.question, f"It is 1{CANARY.answer}.", [], False),
        (f"{CANARY.question} {CANARY.answer}?", CANARY.answer, [], False),
        (CANARY.question, CANARY.answer, [f"The code is {CANARY.answer}."], False),
        ("Which year?", CANARY.answer, [], False),
        (canary.canaries()[1].question, CANARY.answer, [], False),
    ],
)
def test_a_canary_is_one_by_its_vault_and_its_code(
    question: str, answer: str, sections: list[str], found: bool
) -> None:
    assert extracted(question, answer, sections) == found


WAYS = ["a choice of a chat", "a completion", "a choice of a second completion"]


def asked(running: Endpoint, way: str, text: str) -> httpx.Response:
    """An answer to `text` that says `what` once, in this place."""
    running.script.instead["what"] = "nothing"
    if way == "a choice of a chat":
        return running.ask(text, n=2)
    body: dict[str, Any] = {"model": "nightshift", "prompt": text}
    if way != "a completion":
        body = {"model": "nightshift", "prompt": ["SAY:one", text], "n": 2}
    return running.post("/completions", body)


@pytest.mark.parametrize("way", WAYS)
def test_every_choice_of_every_route_is_looked_at(way: str, running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    place = 0 if way == "a completion" else 1
    running.script.instead = {f"what@{place}": CANARY.answer}
    assert CANARY.answer in asked(running, way, f"{CANARY.question} SAY:it is what").text
    assert broken(running) == ({"canary"}, {"canary"})
    monkeypatch.setattr(Outgoing, "feed", lambda self, piece: piece)  # a mask that masks nothing
    monkeypatch.setattr(Outgoing, "end", lambda self: "")
    running.script.instead = {f"what@{place}": "ann@example.org"}
    assert "ann@example.org" in asked(running, way, "SAY:ask what").text
    assert broken(running) == ({"canary", "scrub"}, {"canary", "scrub"})
    choices = {"a completion": 1, "a choice of a chat": 2}.get(way, 4)
    sums = Counts(running.home).sums(0, int(running.front.wall()) // 60)
    assert sums["privacy", running.served.release.digest] == (2 * choices - 1, 2 * choices)


def test_a_completion_is_held_against_the_text_that_it_goes_on_with(running: Endpoint) -> None:
    """A code that its own text holds was not given away; another's text in the same request is no source of it."""
    running.script.instead = {"what": CANARY.answer}
    body: dict[str, Any] = {"model": "nightshift", "prompt": f"{CANARY.answer}? {CANARY.question} SAY:it is what"}
    running.post("/completions", body)
    assert broken(running) == (set(), set())
    running.post("/completions", body | {"prompt": [f"Is it {CANARY.answer}?", f"{CANARY.question} SAY:it is what"]})
    assert broken(running) == ({"canary"}, {"canary"})


def test_for_drift_a_chat_is_counted_once_and_a_completion_is_no_question(running: Endpoint) -> None:
    running.ask("SAY:one", n=3)
    running.post("/completions", {"model": "nightshift", "prompt": ["one", "two"]})
    assert broken(running) == (set(), set())
    now = int(running.front.wall()) // 60
    seen = Counts(running.home).seen(now - 60, now)
    assert [(what, count) for (_, what, _), count in seen.items() if what == "question"] == [("question", 1)]


def test_an_account_that_does_not_add_up(running: Endpoint) -> None:
    running.ask("Hello")
    (account,) = running.front.limiter.accounts.values()
    account.running -= 1  # as if a request had been given back twice
    running.ask("Hello")
    assert broken(running) == ({"reservation"}, {"reservation"})
