"""The real gateway grows and shrinks its pool of engines, and no stream is cut by it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from nightshift.answer import System
from nightshift.serve import follow
from nightshift.serve.follow import Follower
from nightshift.serve.pool import room
from tests import models
from tests.conftest import ROOT
from tests.release.project import ROWS
from tests.serve import mocked, paced
from tests.serve.mocked import Mocked
from tests.serve.scripted import chat
from tests.serve.test_pool import FIRST, Fake, serves


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that holds a system `plain`."""
    folder = models.system(tmp_path_factory.mktemp("pool") / "plain", ROOT, ROWS).parent
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def test_a_follower_starts_the_engines_of_its_release(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = System.open(plain / "plain")
    system.settings["sections"] = 0
    monkeypatch.setattr(System, "open", lambda _: system)
    monkeypatch.setattr(follow.Store, "trusted", lambda *_: (plain, None))
    monkeypatch.setattr(follow, "opened", lambda release, *_: serves(release))
    monkeypatch.setattr(follow.engine, "start", lambda *_, **__: Fake())
    made = Follower(plain, plain, plain, 1, lambda _: None).bring_up(FIRST)
    assert made.another is not None
    made.add(made.another())
    assert (made.warm, made.turns.slots) == (2, 4)


def test_memory_holds_so_many_engines_of_a_release(plain: Path) -> None:
    one = serves(FIRST)
    one.system = System.open(plain / "plain")
    holds = room(one, "transformers")
    assert holds is not None and holds > 1
    assert room(one, "vllm") == 1


@pytest.mark.long
def test_a_burst_at_the_real_gateway_brings_a_second_engine_and_no_stream_is_cut(plain: Path) -> None:
    warm = {"least": 1, "most": 2, "quiet_s": 60.0}
    with mocked.running(plain, 4, 20, 0.05, warm=warm, faster=40) as one:

        async def went() -> list[str]:
            until, texts = [False] * 12, list[str]()
            async with httpx.AsyncClient(timeout=60) as client:
                users = [asyncio.create_task(asks(client, one, until, number, texts)) for number in range(12)]
                await engines(client, one, 2)
                until[1:] = [True] * 11  # one goes on asking, stream after stream
                await engines(client, one, 1)
                until[0] = True
                await asyncio.gather(*users)
            return texts

        texts = asyncio.run(went())
    assert len(texts) >= 12
    assert set(texts) == {paced.said(20)}


async def asks(client: httpx.AsyncClient, one: Mocked, until: list[bool], number: int, texts: list[str]) -> None:
    """Ask stream after stream until told to stop, and keep what came; a stream that is cut says no [DONE]."""
    head = {"authorization": f"Bearer {one.key}"}
    while not until[number]:
        body = chat("Hello there", stream=True)
        said = await client.post(f"{one.url}/v1/chat/completions", json=body, headers=head)
        assert said.status_code == 200, said.text
        events = [line.removeprefix("data: ") for line in said.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]", said.text
        pieces = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        texts.append("".join(piece["delta"].get("content") or "" for piece in pieces))


async def engines(client: httpx.AsyncClient, one: Mocked, number: int) -> None:
    """Wait until so many are warm, and none is starting or leaving."""
    head = {"authorization": f"Bearer {one.key}"}
    wanted = {"warm": number, "starting": 0, "leaving": 0}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = (await client.get(f"{one.admin}/metrics", headers=head)).text
        if all(f'nightshift_engines{{state="{state}"}} {float(many)}' in said for state, many in wanted.items()):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(said)
