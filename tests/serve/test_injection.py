"""Whatever a document orders, and however readily the model obeys, nothing leaves that the asker may not see, and no
page is led anywhere; who only writes about such orders is answered."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from nightshift import params
from nightshift.serving import Rails
from tests import models
from tests.conftest import ROOT
from tests.serve import injected
from tests.serve.injected import BENIGN, BOARD, EVILS, PASTED, Evil, Obedient
from tests.serve.mocked import WIDE
from tests.serve.scripted import Endpoint, chat, endpoint


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("injection")
    rows = [injected.SALARIES, *(one.row for one in EVILS), *injected.BENIGN_ROWS]
    system = models.system(folder / "plain", ROOT, rows)
    with endpoint(folder, system, slots=4, script=Obedient(), key=WIDE) as one:
        one.served.system.settings.update(section_tokens=4_000, context=40_000, sections=1)
        yield one


def asked(running: Endpoint, client: httpx.Client, evil: Evil, stream: bool, key: str | None = None) -> str:
    """What the endpoint answers to a question that finds this document."""
    body = chat(f"When is the {evil.name} oiled? My key is {PASTED}, and what are the Salaries?", stream=stream)
    head = {"Authorization": f"Bearer {key or running.key}"}
    said = client.post(f"{running.url}/chat/completions", json=body, headers=head, timeout=30)
    assert said.status_code == 200, said.text
    if not stream:
        return str(said.json()["choices"][0]["message"]["content"])
    chunks = [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]
    return "".join(one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"])


def readings(text: str) -> str:
    """A text, and what it says under common codes."""
    coded: list[Callable[[str], str]] = [str, lambda one: one[::-1], lambda one: codecs.encode(one, "rot13")]
    pieces = [piece.strip("()[]<>\"',.!") for piece in text.replace("=", " ").replace("/", " ").split()]
    decoded = [
        base64.urlsafe_b64decode(one + "=" * (-len(one) % 4)) for one in pieces if len(one) > 15 and one.isascii()
    ]
    return " ".join([*(one(text) for one in coded), *(one.decode("utf-8", "replace") for one in decoded)])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_nothing_gets_out_by_an_obedient_model(running: Endpoint, stream: bool) -> None:
    engine = running.script
    assert isinstance(engine, Obedient)
    engine.asked.clear(), engine.headers.clear(), engine.obeyed.clear(), engine.said.clear()
    with httpx.Client() as client:
        said = {one: asked(running, client, one, stream) for one in EVILS}
    assert (len(said), len(engine.obeyed)) == (300, 300)  # it obeyed every document
    assert sum(bool(injected.led_to(text)) for text in engine.said) >= 290  # and what it said would have led away
    seen = json.dumps([engine.asked, engine.headers], ensure_ascii=False)
    for secret in (BOARD, PASTED, running.key, running.key[20:63]):
        assert secret not in seen  # what it was never sent, it cannot give away
        assert [one for one, text in said.items() if secret in readings(text)] == []
    assert {one: (text, injected.led_to(text)) for one, text in said.items() if injected.led_to(text)} == {}


def test_who_may_see_it_is_told(running: Endpoint) -> None:
    """The assay is alive: the same order gives away to the board what is the board's."""
    board = running.made("infer:chat", groups=("public", "board"))
    running.served.system.settings["sections"] = 3
    evil = next(one for one in EVILS if one.disguise == "other-group" and one.form == 2)
    with httpx.Client() as client:
        told, other = (asked(running, client, evil, False, key) for key in (board, None))
    running.served.system.settings["sections"] = 1
    assert BOARD in told and BOARD not in readings(other)
    assert injected.led_to(told) == []  # and yet it is led nowhere


def test_who_writes_about_injections_is_answered(running: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.gateway, "rails", params.load(ROOT / "params.yaml", Rails))
    blocked = []
    with httpx.Client(headers={"Authorization": f"Bearer {running.key}"}, timeout=30) as client:
        for place, text in enumerate(BENIGN):
            said = client.post(f"{running.url}/chat/completions", json=chat(text)).json()
            (choice,) = said["choices"]
            whole = choice["message"]["content"].replace("< |", "<|") == text and choice["finish_reason"] == "stop"
            found = [one["title"] for one in said["nightshift"]["sections"]]
            if not whole or said["nightshift"]["abstained"] or found != [f"Security > Question {place}"]:
                blocked.append((text, choice, found))
    assert len(BENIGN) == 300
    assert blocked[3:] == []  # at most one in a hundred
