"""A release that is not what was released is named and never served, and what serves goes on serving."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from nightshift import commit, logs, registry, signature
from nightshift.errors import DiskFull, ReleaseInvalid, StorageError
from nightshift.registry import Release, Standing
from nightshift.serve import server
from nightshift.serve.follow import Follower
from nightshift.serve.keys import Keys
from nightshift.serve.loaded import LONG_LIFE_S, LONGEST_PAUSE_S, LOOK_EVERY_S
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.store import Store
from tests import models
from tests.conftest import ROOT
from tests.dvc_airflow.test_objects import flip
from tests.night.project import unused
from tests.serve.scripted import ROWS, TRACER

MAKE = """\
from pathlib import Path
from nightshift import commit
with commit.folder(Path("release")) as draft:
    (draft / "card.md").write_text("A release.")
"""


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one stage makes a release, with that in production."""
    folder = tmp_path_factory.mktemp("released")
    git(folder, "init", "-q")
    (folder / "make.py").write_text(MAKE)
    (folder / "dvc.yaml").write_text("stages:\n  release: {cmd: python make.py, outs: [release]}\n")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    shutil.copytree(ROOT / "include/policies", folder / "include/policies")
    env = os.environ | {"PYTHONPATH": str(ROOT / "include"), "DVC_NO_ANALYTICS": "1"}
    for words in (["init", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=env, check=True)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "A night")
    git(folder, "tag", "-a", "nightshift@v0.1.0", "-m", registry.message(commit.digest(folder / "release")))
    registry.assign(folder, registry.releases(folder)[0])
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "repository")
    return tmp_path / "repository"


def release(repository: Path) -> Release:
    found = registry.current(repository)
    assert found
    return found


def card(repository: Path) -> Path:
    """The cache's object of the release's card."""
    return next(one for one in (repository / ".dvc/cache").rglob("*") if one.is_file() and b"A rel" in one.read_bytes())


@pytest.mark.parametrize("damage", ["altered", "without a manifest", "empty"])
def test_a_copy_that_was_damaged_here_is_fetched_again(damage: str, repository: Path, tmp_path: Path) -> None:
    folder = registry.fetch(repository, release(repository), tmp_path / "copy")
    (folder / "card.md").write_text("Better.")
    for name in {"altered": (), "without a manifest": (commit.MANIFEST,)}.get(damage, ("card.md", commit.MANIFEST)):
        (folder / name).unlink()
    assert (registry.fetch(repository, release(repository), folder) / "card.md").read_text() == "A release."


def test_what_the_cache_holds_damaged_is_named_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    held = card(repository)
    flip(held)
    with pytest.raises(ReleaseInvalid) as refused:
        registry.fetch(repository, release(repository), tmp_path / "copies" / "copy")
    assert str(refused.value) == (
        "v0.1.0: its files are not those that were released (card.md differs from the manifest); "
        f"remove {held}, run the night again and restart the endpoint, or assign another release."
    )
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("kept", ["wanted", "of today", "the only one"])
def test_copies_that_nobody_asks_for_are_removed_unless_they_are_the_only_ones(kept: str, repository: Path) -> None:
    store, one = Store(repository, repository / "var", repository / ".nightshift"), release(repository)
    now = time.time()
    signature.sign(repository / "release", store.signature(one.digest), store.home)
    copy, _ = store.trusted(one)
    if kept == "the only one":
        shutil.move(repository / ".dvc/cache", repository / "cache")
    store.tidy({one.digest} if kept == "wanted" else (), now + (3600 if kept == "of today" else 2 * 86_400))
    assert copy.is_dir()
    if kept == "the only one":
        shutil.move(repository / "cache", repository / ".dvc/cache")
    store.tidy((), now + 2 * 86_400)
    assert not copy.exists()
    assert (store.trusted(one)[0] / "card.md").read_text() == "A release."


@pytest.mark.parametrize("said", ["{}", '{"digest": ""}', '{"digest": "../../home"}', '{"digest": 5', "[5]", "\u2028"])
def test_a_tag_whose_digest_is_none_is_not_a_release(said: str, repository: Path) -> None:
    git(repository, "tag", "-a", "nightshift@v0.2.0", "-m", said)
    git(repository, "tag", "-a", "nightshift@latest", "-m", registry.message("a" * 64))
    assert [one.version for one in registry.releases(repository)] == ["v0.1.0"]


@pytest.mark.parametrize(
    "signed", [b"", b"{}", b"[]", b"null", b"\xff", b'{"mediaType": "x", "dsseEnvelope": 5, "verificationMaterial": 5}']
)
def test_a_damaged_signature_or_key_is_refused(signed: bytes, repository: Path, tmp_path: Path) -> None:
    sig, home = tmp_path / "sig", tmp_path / "home"
    signature.sign(repository / "release", sig, home)
    whole = sig.read_bytes()
    sig.write_bytes(signed)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(repository / "release", sig, home, tmp_path / "keys")
    sig.write_bytes(whole)
    (home / signature.PUBLIC).write_bytes(signed)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(repository / "release", sig, home, tmp_path / "keys")


@pytest.mark.parametrize("harm", ["unsigned", "damaged", "no room for a copy"])
def test_what_serves_goes_on_serving(harm: str, repository: Path, tmp_path: Path) -> None:
    said: list[str] = []
    state = tmp_path / "state"
    if harm == "damaged":
        flip(card(repository))
    if harm == "no room for a copy":
        state.write_text("")  # where a folder would be made
    follower = Follower(repository, tmp_path / "home", state, 1, said.append)
    engine: Any = SimpleNamespace(alive=True)
    serving = follower.served = Served(Release("v0.0.9", "c" * 40, "d" * 64), None, [engine], Turns(1, 1, 1.0))  # type: ignore[arg-type]

    async def looking() -> None:
        while not said:
            await follower.look()
        await follower.look()

    asyncio.run(looking())
    assert follower.served is serving
    assert len(said) == 1
    assert said[0].startswith("v0.1.0 is not served: ")


@pytest.mark.parametrize("serves", [True, False])
def test_a_release_that_served_and_does_not_verify_any_more_is_told(
    serves: bool, repository: Path, tmp_path: Path
) -> None:
    follower, told = Follower(repository, tmp_path / "home", tmp_path / "state", 1, lambda _: None), list[str]()
    follower.unverified = told.append
    release = registry.releases(repository)[0]  # which nobody signed
    serving = release if serves else Release("v0.0.9", "c" * 40, "d" * 64)
    follower.served = Served(serving, None, [], Turns(1, 1, 1.0))  # type: ignore[arg-type]
    with pytest.raises(ReleaseInvalid):
        follower.bring_up(release)
    assert told == ([release.digest] if serves else [])


@dataclass
class Scripted:
    """A follower whose releases come up, or not, by a script; `now` is its clock."""

    follower: Follower
    tried: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    now: float = 0.0

    def bring_up(self, release: Release) -> Served:
        """Fail as the script says, or serve."""
        self.tried.append(release.digest)
        if self.fails:
            raise self.fails.pop(0)
        engine: Any = SimpleNamespace(alive=True, stop=lambda: None)
        return Served(release, None, [engine], Turns(1, 1, 1.0))  # type: ignore[arg-type]

    def look(self, times: int, every: float) -> None:
        """Look so often, after so many seconds each."""

        async def looking() -> None:
            for _ in range(times):
                await self.follower.look()
                self.now += every

        asyncio.run(looking())


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted(Follower(tmp_path, tmp_path, tmp_path, 1, lambda _: None))
    made.follower.say, made.follower.clock = made.said.append, lambda: made.now
    monkeypatch.setattr(made.follower, "bring_up", made.bring_up)
    monkeypatch.setattr(registry, "current", lambda _: FIRST)
    return made


def test_one_look_ends_before_the_next_begins(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback looks at once, and the follower may be looking: two at a time would each bring it about."""
    under_way, most = 0, 0

    async def keep() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    async def looking() -> None:
        await asyncio.gather(*(scripted.follower.look() for _ in range(3)))

    monkeypatch.setattr(scripted.follower, "_keep", keep)
    monkeypatch.setattr(scripted.follower, "_asked", Standing)
    asyncio.run(looking())
    assert most == 1


FIRST = Release("v0.1.0", "c" * 40, "a" * 64)
PASSING = {
    "full disk": DiskFull("no room left"),
    "slow start": StorageError("its engine did not start"),
    "what the system refuses": OSError(24, "Too many open files"),
    "a bug": KeyError("sections"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again_and_said_once(name: str, scripted: Scripted) -> None:
    scripted.fails = [PASSING[name]] * 3
    scripted.look(20, LOOK_EVERY_S)
    assert len(scripted.tried) == 4
    assert len(scripted.said) == 2
    assert scripted.said[0].startswith("v0.1.0 is not served: ")
    assert scripted.said[1].startswith("v0.1.0 is served")


def test_pauses_grow_to_a_minute(scripted: Scripted) -> None:
    scripted.fails = [PASSING["full disk"]] * 99
    scripted.look(300, LOOK_EVERY_S)
    assert 12 <= len(scripted.tried) <= 16  # in ten minutes


def test_each_kind_is_said(scripted: Scripted) -> None:
    scripted.fails = [*PASSING.values(), *PASSING.values()]
    scripted.look(20, LONGEST_PAUSE_S)
    assert len(scripted.said) == len(PASSING) + 1


def test_a_bad_release_is_remembered_and_another_is_taken_at_once(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.fails = [ReleaseInvalid("it has no signature")]
    scripted.look(20, LONGEST_PAUSE_S)
    assert scripted.tried == [FIRST.digest]
    assert scripted.follower.failed == FIRST.digest
    other = Release("v0.2.0", "c" * 40, "b" * 64)
    monkeypatch.setattr(registry, "current", lambda _: other)
    scripted.look(1, 0)
    assert scripted.tried == [FIRST.digest, other.digest]
    assert len(scripted.said) == 2


@pytest.mark.parametrize("where", ["a release", "the register"])
def test_a_bug_is_logged_with_its_traceback_in_the_form_of_every_line(
    where: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.JsonLines("serve"))
    monkeypatch.setattr(logging.getLogger(logs.NAME), "handlers", [handler])

    def wrong(_: object) -> Any:
        raise PASSING["a bug"]

    if where == "a release":
        scripted.fails = [PASSING["a bug"]] * 9
    else:
        monkeypatch.setattr(registry, "current", wrong)
    scripted.look(4, LOOK_EVERY_S)
    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("error", "a bug: KeyError")
    assert "Traceback" in said["exception"]
    assert len(scripted.said) == 1
    assert capfd.readouterr().err == ""


def test_a_second_outage_of_the_register_is_said_again(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Path) -> Release:
        raise StorageError("the register is away")

    for _ in range(2):
        scripted.look(2, LOOK_EVERY_S)
        with monkeypatch.context() as patched:
            patched.setattr(registry, "current", away)
            scripted.look(3, LOOK_EVERY_S)
    assert [one for one in scripted.said if "away" in one] == ["the register is away."] * 2


def test_another_release_does_not_wait_for_the_pause_of_one_that_fails(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.fails = [PASSING["full disk"]] * 9
    scripted.look(9, LONGEST_PAUSE_S)
    monkeypatch.setattr(registry, "current", lambda _: Release("v0.2.0", "c" * 40, "b" * 64))
    scripted.look(1, 0)
    assert scripted.said[-1].startswith("v0.2.0 is served")


def test_an_engine_that_died_is_brought_up_again_though_that_fails_at_first(scripted: Scripted) -> None:
    scripted.look(1, 0)
    assert scripted.follower.served
    vars(scripted.follower.served.engines[0])["alive"] = False
    scripted.fails = [PASSING["slow start"]]
    scripted.look(10, LOOK_EVERY_S)
    assert scripted.follower.served.engines[0].alive


def dies(scripted: Scripted) -> None:
    """Its engine ends."""
    assert scripted.follower.served
    vars(scripted.follower.served.engines[0])["alive"] = False


def test_one_that_dies_soon_after_each_start_is_started_after_pauses_that_grow_to_a_minute(scripted: Scripted) -> None:
    for _ in range(300):
        scripted.look(1, LOOK_EVERY_S)
        dies(scripted)
    assert 12 <= len(scripted.tried) <= 16  # in ten minutes


def test_after_a_long_life_the_pauses_of_before_are_forgotten(scripted: Scripted) -> None:
    for _ in range(60):
        scripted.look(1, LOOK_EVERY_S)
        dies(scripted)
    scripted.look(2, LONGEST_PAUSE_S)
    assert scripted.follower.served and scripted.follower.served.alive
    tried = len(scripted.tried)
    scripted.now += LONG_LIFE_S
    for one in (1, 2):
        dies(scripted)
        scripted.look(2, LOOK_EVERY_S)
        assert len(scripted.tried) == tried + 1, one  # at once, and then not


def test_a_registry_that_cannot_be_read_ends_nothing(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Release:
        raise RuntimeError("git")

    monkeypatch.setattr(registry, "current", refuse)
    scripted.look(5, LOOK_EVERY_S)
    assert scripted.said == ["RuntimeError: git"]
    monkeypatch.setattr(registry, "current", lambda _: FIRST)
    scripted.look(1, 0)
    assert scripted.said[-1].startswith("v0.1.0 is served")


def test_files_that_are_not_to_be_had_may_come_back(repository: Path, tmp_path: Path) -> None:
    shutil.rmtree(repository / ".dvc/cache")
    with pytest.raises(StorageError, match="not to be had"):
        registry.fetch(repository, release(repository), tmp_path / "copy")


@pytest.fixture
def serving(repository: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    flip(card(repository))
    env = os.environ | {"PYTHONPATH": str(ROOT / "include")}
    port = unused()
    command = [sys.executable, "-m", "nightshift.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=repository, env=env, stderr=subprocess.PIPE, text=True) as child:
        yield child, port
        child.terminate()


def test_the_command_says_it_and_lives(serving: tuple[subprocess.Popen[str], int], repository: Path) -> None:
    child, port = serving
    assert child.stderr
    assert child.stderr.readline().startswith(f"serve: http://127.0.0.1:{port}/v1")
    assert child.stderr.readline().startswith("serve: v0.1.0 is not served: v0.1.0: its files are not those that were")
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).is_success
    key = Keys(repository / "var").create("test", ("models:read",), ("public",), 1, time.time())
    head = {"authorization": f"Bearer {key}"}
    said = httpx.get(f"http://127.0.0.1:{port + 1}/admin/v1/deployments", headers=head, timeout=10)
    assert said.json()["state"] == "refused"
    assert child.poll() is None
    child.terminate()
    assert child.wait(30) == 0
    assert child.stderr.read() == ""  # no traceback of what was cancelled


NEVER = """\
#!{python}
import signal
import time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


@pytest.fixture
def never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program vllm that never answers; where its scratch folders are made."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(NEVER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_signal_while_a_release_loads_ends_it_at_once(
    never: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, children = models.system(tmp_path / "plain", ROOT, ROWS), list[Any]()
    follower = Follower(tmp_path, tmp_path / "home", tmp_path / "state", 1, lambda _: None, kind="vllm")
    monkeypatch.setattr(registry, "current", lambda _: FIRST)
    monkeypatch.setattr(follower, "bring_up", lambda _: follower._start(system))
    monkeypatch.setattr(server, "hasten", lambda: None)
    begun: list[float] = []

    async def signalled() -> None:
        while not follower._starting:
            await asyncio.sleep(0.01)
        children.extend(one.child for one in follower._starting)
        begun.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    async def running() -> None:
        service = server.Service.of(follower, tmp_path / "home", ROOT, server.Settings.read(ROOT), TRACER)
        beside = asyncio.create_task(signalled())
        await server.run(service, follower, unused(), server.Settings.read(ROOT))
        await beside

    asyncio.run(running())  # which waits for the threads that load
    follower.close()
    assert time.monotonic() - begun[0] < 15  # what `nightshift down` waits for
    assert len(children) == 1 and children[0].poll() is not None
    assert list(never.glob("nightshift-engine-*")) == []
    with pytest.raises(StorageError, match="the endpoint ends"):
        follower._start(system)
    assert list(never.glob("nightshift-engine-*")) == []
