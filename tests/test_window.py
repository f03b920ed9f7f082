"""A certificate says what a model finds in a text, not what its configuration says that it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from nightshift import planted, window
from nightshift.answer import Message, System
from nightshift.errors import DataRefused
from tests import models
from tests.conftest import ROOT
from tests.data.conftest import section

TEXT = "The pump of the old mill is oiled on Mondays, and nobody remembers who began it. "


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system that reads 1,024 tokens (bytes, here), with sections of several lengths."""
    rows = [section(f"{number}.md", f"T {number}", TEXT * (1 + number % 3)) for number in range(7)]
    rows.append(section("board.md", "Board", "The salaries of the board.", groups=["board"]))
    return System.open(models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, rows))


def reader(system: System, sees: Callable[[str], str]) -> window.Ask:
    """A model that finds what it is asked for in the part of the last turn that it sees."""

    def ask(messages: Sequence[Message], limit: int) -> str:
        text = messages[-1]["content"]
        place = re.findall(r"What is the lucky number of the (\w+)\?", text)[-1]
        found = re.search(rf"The lucky number of the {place} is (\d+)\.", sees(text))
        return f"It is {' '.join(found[1])}." if found else "I do not know."  # a token a digit, as some models write

    return ask


def test_one_who_reads_all_is_certified_for_all(system: System) -> None:
    said = window.certify(system, reader(system, lambda text: text), 60_000)
    assert (said.window, said.context, said.reached) == (1024, 1024, True)
    assert [(one.window, one.found, one.missed) for one in said.tried] == [
        (256, 1.0, ()), (512, 1.0, ()), (1024, 1.0, ()),
    ]  # fmt: skip
    assert 0.95 * 11 * 1792 < said.tokens <= 11 * 1792


def test_one_who_forgets_what_stands_far_back_is_certified_for_less(system: System) -> None:
    said = window.certify(system, reader(system, lambda text: text[-500:]), 60_000)
    assert said.window == 512
    assert said.tried[-1].window == 1024
    assert said.tried[-1].missed[:3] == (0, 10, 20)
    assert 100 not in said.tried[-1].missed


def test_one_who_finds_nothing_is_certified_for_nothing(system: System) -> None:
    said = window.certify(system, lambda *_: "The number is 000000.", 60_000)
    assert (said.window, len(said.tried)) == (None, 1)
    assert said.tried[0].missed == window.DEPTHS


@pytest.mark.parametrize(("budget", "wanted"), [(11 * 256 - 1, None), (11 * 256, 256), (11 * 1024, 512)])
def test_what_the_budget_does_not_reach_is_not_certified(budget: int, wanted: int | None, system: System) -> None:
    said = window.certify(system, reader(system, lambda text: text), budget)
    assert (said.window, said.reached) == (wanted, False)
    assert said.tokens <= budget


def test_the_same_release_is_asked_the_same(system: System) -> None:
    asked: list[list[Sequence[Message]]] = [[], []]
    for place in asked:

        def ask(messages: Sequence[Message], _: int, place: list[Sequence[Message]] = place) -> str:
            place.append(messages)
            return ""

        window.certify(system, ask, 60_000)
    assert asked[0] == asked[1]
    codes = {re.findall(r"is (\d{6})\.", one[-1]["content"])[0] for one in asked[0]}
    assert len(codes) == len(window.DEPTHS)


@pytest.mark.parametrize("room", [400, 488, 1000])
@pytest.mark.parametrize("depth", [0, 50, 100])
def test_a_text_fills_its_window_and_the_fact_stands_at_its_depth(room: int, depth: int, system: System) -> None:
    fact = planted.fact("d" * 64, room, depth)
    messages = window.haystack(system, window._texts(system), fact, depth, room)
    size = window.tokens(system, messages)
    assert room - 10 <= size <= room
    text = messages[-1]["content"]
    assert text.count(fact.told) == 1
    assert "salaries" not in text
    before, after = text.partition("Answer from the texts above")[0].split(fact.told)
    assert (before.strip() == "") == (depth == 0)
    assert (after.strip() == "") == (depth == 100)
    if room == 1000:
        assert abs(len(before) / (len(before) + len(after)) * 100 - depth) < 20  # whole texts stand before it


def test_an_index_without_text_is_refused(tmp_path: Path) -> None:
    rows = [section("board.md", "Board", "The salaries of the board.", groups=["board"])]
    closed = System.open(models.system(tmp_path / "closed", ROOT, rows))
    with pytest.raises(DataRefused, match="its index has no text to plant a fact in"):
        window.certify(closed, lambda *_: "", 60_000)


def test_what_is_certified_is_what_is_said(system: System, tmp_path: Path) -> None:
    digest = "d" * 64
    assert window.effective(tmp_path, digest, 1024) == 1024
    said = window.certify(system, reader(system, lambda text: text[-500:]), 60_000)
    path = window.store(tmp_path, digest, said)
    assert window.effective(tmp_path, digest, 1024) == 512
    assert json.loads(path.read_text()) == json.loads(json.dumps(asdict(said)))
    for damaged in ("", "[]", '{"window": null}', '{"window": true}', '{"window": 4096}', '{"window": -1}'):
        path.write_text(damaged)
        assert window.effective(tmp_path, digest, 1024) == 1024
