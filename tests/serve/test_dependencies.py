"""What the endpoint leans on goes away under load: who may come in and what may go out fails closed, what only counts
fails open, and all of it comes back by itself.

| what is away | what is asked | what comes |
|---|---|---|
| the key store, its pepper | anything that needs a key | 503 `dependency_unavailable`, a bad event; never an answer |
| the rails: masking, harm | an answer | an error, whole or in its stream; never the text |
| the audit | to make, rotate, revoke a key, to deploy | refused, and not done |
| counts, traces | an answer | the answer |
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nightshift import audit, mask, openslo, slo
from nightshift.counts import Counts
from nightshift.errors import DiskFull, StorageError
from nightshift.serve import counting
from nightshift.serve.meters import Meters
from nightshift.serve.outgoing import Harm
from tests import models
from tests.conftest import ROOT
from tests.serve.mocked import WIDE
from tests.serve.scripted import ROWS, Endpoint, chat, endpoint


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, ROWS)


@pytest.fixture
def running(tmp_path: Path, system: Path) -> Iterator[Endpoint]:
    with endpoint(tmp_path, system, slots=4, key=WIDE) as one:
        yield one


@contextmanager
def load(running: Endpoint) -> Iterator[list[tuple[int, str, float]]]:
    """Questions of two clients until the block ends: status and body of each, and when it was asked."""
    said: list[tuple[int, str, float]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            at = time.monotonic()
            one = running.ask("When is the pump oiled?")
            said.append((one.status_code, one.text, at))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        _until(lambda: len(said) > 5)
        yield said
    finally:
        over.set()
        for one in threads:
            one.join()


@contextmanager
def garbage(path: Path) -> Iterator[None]:
    """The file holds something else."""
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"garbage " * (len(whole) // 8 + 1))
    yield
    path.write_bytes(whole)


@contextmanager
def empty(path: Path) -> Iterator[None]:
    """It was cut to nothing, as by a copy that began."""
    whole = path.read_bytes()
    path.write_bytes(b"")
    yield
    assert path.read_bytes() == b""  # and nobody filled it
    path.write_bytes(whole)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """The file is not there."""
    moved = path.rename(path.with_name("moved"))
    yield
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    moved.rename(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds it and does not let go."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("begin exclusive")
    yield
    db.execute("rollback")
    db.close()


@contextmanager
def folder(path: Path) -> Iterator[None]:
    """Something else is in its place, as after a mount that failed."""
    with away(path):
        path.mkdir()
        yield


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("keys.sqlite", garbage),
        ("keys.sqlite", empty),
        ("keys.sqlite", away),
        ("keys.sqlite", locked),
        ("keys.sqlite", folder),
        ("pepper-1", garbage),
        ("pepper-1", away),
    ],
)
def test_without_its_keys_nobody_is_let_in(running: Endpoint, name: str, fault: Callable[[Path], Any]) -> None:
    with load(running) as said:
        with fault(running.home / "keys" / name):
            begun = time.monotonic()  # what was let in before is answered
            _until(lambda: sum(at > begun for _, _, at in said) > 10)
            slowest = max(health(running) for _ in range(3))
            assert {one for one, _, at in said if at > begun} == {503}
            refused = json.loads(said[-1][1])["error"]
            assert refused["code"] == "dependency_unavailable"
            assert "keys" not in refused["message"].replace("Keys", "") and "/" not in refused["message"]
        until = len(said)
        _until(lambda: said[-1][0] == 200 and len(said) > until)
    assert slowest < 1.0  # nobody waits for the store who does not need it


@pytest.mark.parametrize(
    ("why", "status"), [(StorageError("the disk is away", "keys", "mend it"), 503), (RuntimeError("a bug"), 500)]
)
def test_an_outage_before_a_key_is_known_burns_the_budget_and_pages(
    why: Exception, status: int, running: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise why

    asked: dict[str, Any] = {
        "/chat/completions": chat("Hello"),
        "/completions": {"model": "nightshift", "prompt": "The pump"},
        "/embeddings": {"model": "nightshift", "input": "The pump"},
    }
    counts, minute = Counts(running.home), int(running.front.wall()) // 60
    monkeypatch.setattr(running.front.keys, "check", broken)
    for _ in range(12):
        assert [running.post(path, body).status_code for path, body in asked.items()] == [status] * 3
    assert running.call("GET", "/v1/models").status_code == status  # of which nothing is promised
    monkeypatch.undo()
    wrong = f"ns_local_{'a' * 10}_{'a' * 52}"
    assert running.ask("Hello", wrong).status_code == 401  # the caller's fault, as before
    running.front.counting.flush()
    now = int(running.front.wall()) // 60
    assert counts.sums(minute, now) == {("availability", running.served.release.digest): (0, 36)}
    burning = slo.alerts(openslo.promised(ROOT).values(), slo.series(counts, now, 3 * 1440), now, None)
    assert [(one.id, one.severity) for one in burning] == [("health", "page")]
    assert (slo.standing(running.home, ROOT, now).budgets["availability"] or 1) < 1


def health(running: Endpoint) -> float:
    """Seconds until /healthz answers."""
    at = time.monotonic()
    assert running.call("GET", "/healthz", key="").status_code == 200
    return time.monotonic() - at


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("rail", ["mask", "harm"])
def test_a_rail_that_breaks_lets_nothing_out(
    running: Endpoint, rail: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = []

    def broken(*words: object) -> None:
        if any("champagne" in str(one) for one in words):  # in the middle of the answer
            fired.append(1)
            raise RuntimeError("champagne")
        return whole(*words)

    owner, name = (mask, "find") if rail == "mask" else (Harm, "find")
    whole = getattr(owner, name)
    running.script.instead = {"drink": "champagne"}
    monkeypatch.setattr(owner, name, broken)
    said = running.ask("SAY:SLOW one two three drink six", stream=stream)
    assert fired
    assert "champagne" not in said.text
    if said.status_code == 200:
        last = [line for line in said.text.splitlines() if line][-2:]
        assert last[-1] == "data: [DONE]" and json.loads(last[0][6:])["error"]["code"] == "internal_error"
    else:
        assert (said.status_code, said.json()["error"]["code"]) == (500, "internal_error")
    monkeypatch.undo()
    assert running.ask("Hello").status_code == 200


@pytest.mark.parametrize("fault", ["cut off", "no room", "folder"])
def test_what_cannot_stand_in_the_audit_is_not_done(
    running: Endpoint, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = running.made("infer:chat")
    path = running.home / audit.FILE
    whole = path.read_bytes()
    if fault == "cut off":
        path.write_bytes(whole[:-10])
    elif fault == "folder":
        path.unlink()
        path.mkdir()
    else:

        def no_room(*_: object, **__: object) -> None:
            raise DiskFull("no room left", "here", "make room")

        monkeypatch.setattr(audit, "write", no_room)
    identifier = victim.split("_")[2]
    for way, body in (("revoke", {"reason": "x"}), ("rotate", {"overlap_hours": 0})):
        said = running.call("POST", f"/admin/v1/keys/{identifier}/{way}", body)
        assert said.status_code in (400, 503) and said.json()["error"]["code"] in (
            "invalid_value",
            "dependency_unavailable",
        )
        assert "/" not in said.json()["error"]["message"]
    assert running.call("POST", "/admin/v1/keys", {"owner": "x", "scopes": ["infer:chat"]}).status_code in (400, 503)
    assert running.ask("Hello", victim).status_code == 200  # it was not revoked, and the old secret not ended
    assert len(running.keys.listed()) == 2


def test_what_only_counts_keeps_nobody_from_an_answer(running: Endpoint) -> None:
    running.front.counting.flush()
    counts = running.home / "watch" / "counts.sqlite"
    with garbage(counts):
        assert running.ask("Hello").status_code == 200
        running.front.counting.flush()
        assert running.ask("Hello").status_code == 200
    with load(running) as said:
        _until(lambda: len(said) > 10)
    assert {one for one, _, _ in said} == {200}


@pytest.mark.parametrize("lost", ["removed", "garbage"])
def test_where_counts_are_lost_silence_is_a_fault_again(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an endpoint that then stops would be one that was never meant to run."""
    monkeypatch.setattr(counting, "EVERY_S", 0.01)
    counts, now = Counts(tmp_path), 60.0 * 10_000
    counted = counting.Counting(counts, Meters(), lambda: now)

    async def running() -> None:
        task = asyncio.create_task(counted.count())
        while counts.since(10_000) is None:
            await asyncio.sleep(0.01)
        for path in counts.path.parent.glob("counts.sqlite*"):
            path.write_bytes(b"garbage " * 999) if lost == "garbage" else path.unlink()
        while lost == "garbage" and len(said) < 2:  # which is said, and not repaired: a person looks at it
            await asyncio.sleep(0.01)
        for path in counts.path.parent.glob("counts.sqlite*"):
            path.unlink()
        while counts.since(10_000) is None:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    said: list[str] = []
    monkeypatch.setattr(counting.log, "error", lambda text, *words: said.append(text % words))
    asyncio.run(asyncio.wait_for(running(), 20))
    assert slo.silence(counts, 10_009) == 9


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_was_under_way_as_all_ended_does_not_begin_it_again(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    counted = counting.Counting(Counts(tmp_path), Meters(), lambda: now)
    counted._begin()
    assert Counts(tmp_path).since(int(now) // 60) is not None
    counted.stop()
    counted._begin()  # a thread that was late
    assert Counts(tmp_path).since(int(now) // 60) is None


def test_the_end_is_written_down_though_the_last_answers_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    counted = counting.Counting(Counts(tmp_path), Meters(), lambda: now)
    counted._begin()
    monkeypatch.setattr(counted, "flush", lambda: 1 / 0)
    counted.stop()
    assert Counts(tmp_path).since(int(now) // 60) is None


def test_a_round_of_counting_that_fails_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "EVERY_S", 0.01)
    counts, now = Counts(tmp_path), 1_800_000_000.0
    counted = counting.Counting(counts, Meters(), lambda: now)
    counted.meters.event("availability", "d" * 64, True)
    add, wrong = counts.add, [OSError("a bug of ours")]

    def adds(*given: Any) -> None:
        if wrong:
            counted.meters.event("availability", "d" * 64, True)
            raise wrong.pop()
        add(*given)

    monkeypatch.setattr(counts, "add", adds)

    async def run() -> None:
        task = asyncio.create_task(counted.count())
        async with asyncio.timeout(10):
            while not task.done() and not counts.between(0, int(now)):
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert not wrong
    assert counts.between(0, int(now))
