"""A candidate takes its share and then everything, or goes back for good; what serves never notices."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nightshift import audit, params, registry, rollouts
from nightshift.errors import AccessDenied, DiskFull, ReleaseInvalid, RepositoryError, StorageError
from nightshift.registry import CANARY, Release
from nightshift.serve.admin import Admin
from nightshift.serve.follow import Follower
from nightshift.serve.keys import Keys
from nightshift.serve.meters import Meters
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from nightshift.slo import Decision
from tests.conftest import ROOT

RULES = params.load(ROOT / "params.yaml", Rollouts)


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class World:
    """A registry, a follower of it, and engines by digest; `now` is the clock."""

    repository: Path
    follower: Follower
    releases: list[Release]
    engines: dict[str, Any] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 0.0

    def bring_up(self, release: Release) -> Served:
        if release.digest in self.fails:
            raise self.fails[release.digest]
        engine = SimpleNamespace(alive=True, slots=1, stop=lambda: self.stopped.append(release.version))
        self.engines[release.digest] = engine
        return Served(release, None, [engine], Turns(1, 9, 9.0))  # type: ignore[arg-type,list-item]

    def run(self, *steps: Callable[[], None], until: Callable[[], bool] | None = None) -> None:
        """Look, with these between two looks; then look on, five seconds each, until that is so."""

        async def looking() -> None:
            for step in steps:
                await self.follower.look()
                self.now += 5
                step()
            for _ in range(60):
                await self.follower.look()
                if until and until():
                    return
                self.now += 5
            assert until is None, f"never came: {self.said}"

        asyncio.run(looking())

    def questions(
        self, right: bool | None = True, first_s: float = 0.2, number: int = 20, token_s: float = 0.05
    ) -> None:
        """Questions with known answers were asked of both."""
        rollout = self.follower.rollout
        assert rollout is not None
        for _ in range(number):
            rollout.candidate.question(right, first_s, token_s)
            rollout.stable.question(True, 0.2, 0.05)

    def well(self) -> None:
        """The candidate, if there is one, answers well."""
        if self.follower.candidate:
            self.questions()

    @property
    def prod(self) -> str:
        found = registry.current(self.repository)
        assert found
        return found.version


@pytest.fixture
def world(tmp_path: Path) -> World:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "-q")
    for number in (1, 2, 3):
        git(repository, "commit", "-q", "--allow-empty", "-m", f"Night {number}")
        name = f"nightshift@v0.{number}.0"
        git(repository, "tag", "-a", name, "-m", registry.message(str(number) * 64))
    found = registry.releases(repository)
    registry.assign(repository, found[0])
    registry.assign(repository, found[1], CANARY)
    made = World(
        repository, Follower(repository, tmp_path / "home", tmp_path / "state", 1, lambda _: None, rules=RULES), found
    )
    made.follower.say, made.follower.clock, made.follower.wall = made.said.append, lambda: made.now, lambda: made.now
    made.follower.bring_up = made.bring_up  # type: ignore[method-assign]
    return made


def test_it_goes_through_every_step_and_into_production(world: World) -> None:
    seen: list[str] = []

    def asked() -> None:
        if world.follower.rollout and world.follower.candidate:
            seen.append(str(world.follower.rollout.step))
            world.questions()

    world.run(*[asked] * 20, until=lambda: world.prod == "v0.2.0")
    assert [step for place, step in enumerate(seen) if step not in seen[:place]] == ["5 %", "25 %", "100 %"]
    assert world.follower.served and world.follower.served.release.version == "v0.2.0"
    assert world.follower.served.side == "stable"
    assert [one.outcome for one in rollouts.read(world.follower.home)] == ["begun", "advanced", "advanced", "promoted"]
    assert world.stopped == []  # the one before is kept warm
    assert list(world.follower.loaded.up) == ["1" * 64, "2" * 64]
    assert audit.verify(world.follower.home) == 1


def errs(world: World) -> None:
    world.questions(right=None, number=3)


def slow(world: World) -> None:
    world.questions(first_s=0.6)


def drags(world: World) -> None:
    world.questions(token_s=0.15)


def garbage(world: World) -> None:
    world.questions(right=False)


def dies(world: World) -> None:
    world.engines["2" * 64].alive = False


BAD = {
    "errs": (errs, "3 of 3 requests were not answered whole"),
    "three times slower": (slow, "3.0 times as long"),
    "three times slower from its first token on": (drags, "3.0 times as long"),
    "garbage at status 200": (garbage, "0 of 20 questions"),
    "dies": (dies, "its engine died"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_goes_back_within_thirty_seconds_and_is_not_tried_again(name: str, world: World) -> None:
    harm, reason = BAD[name]
    begun: list[float] = []

    def tried() -> None:
        if world.follower.candidate and not begun:
            begun.append(world.now)
            harm(world)

    world.run(*[tried] * 3, until=lambda: bool(rollouts.bad(world.follower.home)))
    assert world.now - begun[0] <= 30
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and last.outcome == "back" and reason in last.reason
    assert (world.prod, world.follower.rollout, world.follower.candidate) == ("v0.1.0", None, None)
    assert world.follower.served and world.follower.served.release.version == "v0.1.0"
    tries = len(world.said)
    world.run()
    assert len(world.said) == tries
    restarted = Follower(world.repository, world.follower.home, world.repository, 1, world.said.append, rules=RULES)
    assert restarted._asked().candidate is None


def test_one_that_errs_is_out_though_the_records_are_damaged_and_is_written_down_once_they_are_mended(
    world: World,
) -> None:
    path = world.follower.home / audit.FILE

    def harmed() -> None:
        if world.follower.candidate and not path.exists():
            path.write_bytes(b"damaged\n")
            errs(world)

    world.run(*[harmed] * 3)
    assert path.exists() and rollouts.bad(world.follower.home) == frozenset()
    said = [one for one in world.said if "the audit was changed" in one]
    assert len(said) == 1  # the fault fired
    assert (world.prod, world.follower.rollout, world.follower.candidate) == ("v0.1.0", None, None)
    path.unlink()
    world.run(until=lambda: "2" * 64 in rollouts.bad(world.follower.home))
    assert [one["action"] for one in audit.events(world.follower.home)] == ["back"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_goes_back_for_good_while_the_registry_cannot_be_read(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(lambda: None, lambda: None)
    assert world.follower.candidate
    refused = list[str]()

    def refuse(*_: object) -> None:
        refused.append("git")
        raise RepositoryError("this is not a Git repository", "/work", "go there")

    began = world.now
    BAD[name][0](world)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "standing", refuse)
        world.run(until=lambda: "2" * 64 in rollouts.bad(world.follower.home))
    assert refused and world.now - began <= 30  # the fault fired
    assert (world.follower.rollout, world.follower.candidate) == (None, None)
    world.run(lambda: None)
    assert (world.prod, world.follower.rollout) == ("v0.1.0", None)


@pytest.mark.parametrize("outcome", ["begun", "advanced", "promoted", "interrupted", "back"])
def test_a_full_disk_stops_no_rollout_and_what_happened_is_written_down_once_there_is_room(
    outcome: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = rollouts.write, []

    def refuse(home: Path, entry: rollouts.Entry) -> None:
        if entry.outcome == outcome and len(full) < 3:
            full.append(entry)
            raise DiskFull("no room left", str(home), "make room")
        write(home, entry)

    monkeypatch.setattr(rollouts, "write", refuse)
    if outcome == "back":
        world.run(lambda: None, lambda: None, lambda: errs(world), *[lambda: None] * 5)
        wanted = ["begun", "back"]
        assert [one["action"] for one in audit.events(world.follower.home)] == ["back"]  # once
    elif outcome == "interrupted":
        world.run(lambda: None, lambda: None)
        registry.assign(world.repository, world.releases[2])
        world.run(*[lambda: None] * 5)
        wanted = ["begun", "interrupted", "begun"]
    else:
        world.run(*[world.well] * 20)
        wanted = ["begun", "advanced", "advanced", "promoted"]
    assert len(full) == 3  # the fault fired
    assert [one.outcome for one in rollouts.read(world.follower.home)] == wanted
    assert (world.follower.rollout is None) == (outcome != "interrupted")


def test_a_slow_one_goes_back_though_the_stable_engine_was_started_again_meanwhile(world: World) -> None:
    world.run(lambda: None, lambda: None)
    first, candidate = world.follower.served, world.follower.candidate
    assert first and candidate
    world.engines["1" * 64].alive = False
    world.run(until=lambda: world.follower.served is not first)
    assert world.follower.served and world.follower.candidate is candidate
    for _ in range(20):  # where the endpoint notes it
        world.follower.served.seen.request(True, 0.2)
        candidate.seen.request(True, 0.6)
    world.run(until=lambda: bool(rollouts.bad(world.follower.home)))
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and "3.0 times as long" in last.reason


def test_one_whose_second_engine_dies_goes_back_too(world: World) -> None:
    def dies_beside() -> None:
        if world.follower.candidate and len(world.follower.candidate.engines) == 1:
            world.follower.candidate.add(SimpleNamespace(alive=False, slots=1, stop=lambda: None))  # type: ignore[arg-type]

    world.run(*[dies_beside] * 3, until=lambda: bool(rollouts.bad(world.follower.home)))
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and (last.outcome, last.reason) == ("back", "its engine died")


@pytest.mark.parametrize("error", [ReleaseInvalid("it has no signature"), StorageError("its engine did not start")])
def test_one_that_is_never_ready_goes_back(error: Exception, world: World) -> None:
    world.fails["2" * 64] = error
    world.run(until=lambda: bool(rollouts.bad(world.follower.home)))
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and last.reason.startswith("it was never ready: ") and str(error)[:10] in last.reason
    assert world.now <= RULES.ready_s + 20
    assert world.follower.served and world.follower.served.release.version == "v0.1.0"


def test_why_one_was_never_ready_is_told_without_paths_and_without_an_engines_words(world: World) -> None:
    """Whoever may read what is served may not read the gateway's disk; the file of this machine has all of it."""
    world.fails["2" * 64] = StorageError("its engine did not start: Traceback\n  File /opt/x.py: no GPU", "/var/secret")
    world.run(until=lambda: bool(rollouts.bad(world.follower.home)))
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and "no GPU" in last.reason
    admin = Admin(world.follower, Keys(world.follower.home), Meters())
    said = json.loads(bytes(asyncio.run(admin.deployments(None)).body))["history"]  # type: ignore[arg-type]
    assert said[-1]["outcome"] == "back" and said[-1]["reason"].startswith("it was never ready")
    told = json.loads(bytes(asyncio.run(admin.events(None)).body))["data"]  # type: ignore[arg-type]
    assert told[-1]["action"] == "back" and told[-1]["reason"].startswith("it was never ready")
    assert not [word for word in ("Traceback", "GPU", "/opt", "/var") if word in json.dumps([said, told])]
    rollouts.write(world.follower.home, replace(last, strategy="by hand", reason="slow: see /wiki"))  # a person's words
    said = json.loads(bytes(asyncio.run(admin.deployments(None)).body))["history"]  # type: ignore[arg-type]
    assert said[-1]["reason"] == "slow: see /wiki"


def test_one_candidate_at_a_time(world: World) -> None:
    def tried() -> str | None:
        return world.follower.rollout.release.version if world.follower.rollout else None

    def another() -> None:
        if not registry.assignments(world.repository, CANARY)[1:]:
            registry.assign(world.repository, world.releases[2], CANARY)
        assert tried() in (None, "v0.2.0")

    world.run(another, another, another)
    world.run(lambda: garbage(world), until=lambda: tried() == "v0.3.0")


def test_a_rollback_by_hand_takes_over_at_once_and_stays(world: World) -> None:
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    engine = world.engines["1" * 64]
    rollouts.back(world.repository, world.follower.home, "ann", "users complain", world.now)
    before = world.now
    world.run(until=lambda: world.follower.served is not None and world.follower.served.release.version == "v0.1.0")
    assert world.now - before == 0 and world.engines["1" * 64] is engine  # the same engine, still warm
    world.run()
    assert world.prod == "v0.1.0"
    assert "2" * 64 in rollouts.bad(world.follower.home)


def test_a_reason_may_hold_what_ends_a_line_of_text(world: World) -> None:
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    rollouts.back(world.repository, world.follower.home, "ann", "slow\u2028and\x85wrong", world.now)
    last = rollouts.last(world.follower.home, "2" * 64)
    assert last and (last.outcome, last.reason) == ("back", "slow\u2028and\x85wrong")
    assert "2" * 64 in rollouts.bad(world.follower.home)


def test_what_went_back_by_hand_is_tried_again_when_a_person_proposes_it(world: World) -> None:
    world.run(until=lambda: (world.well(), world.prod == "v0.2.0")[1])
    rollouts.back(world.repository, world.follower.home, "ann", "bad answers", world.now)
    world.run(lambda: None)
    assert (world.prod, world.follower.rollout) == ("v0.1.0", None)
    rollouts.proposed(world.repository, world.follower.home, world.releases[1], "ann", "again", world.now)
    world.run(lambda: None, lambda: None)
    assert world.prod == "v0.1.0"
    assert world.follower.rollout and world.follower.rollout.release.version == "v0.2.0"
    world.run(until=lambda: (world.well(), world.prod == "v0.2.0")[1])
    world.run(*[world.well] * 3)
    assert world.follower.rollout is None  # and once it is in production it is not tried


def test_a_rollback_during_a_trial_ends_the_trial_and_nothing_else(world: World) -> None:
    """Also of one that served, went back, and is tried again: it is nothing to go back to."""
    world.run(until=lambda: (world.well(), world.prod == "v0.2.0")[1])
    home = world.follower.home
    rollouts.back(world.repository, home, "ann", "bad answers", world.now)
    rollouts.proposed(world.repository, home, world.releases[1], "ann", "again", world.now)
    world.run(lambda: None, lambda: None)
    assert world.follower.rollout and world.follower.rollout.release.version == "v0.2.0"
    made = rollouts.back(world.repository, home, "ann", "take it away", world.now)
    world.run(lambda: None)
    assert (made.release.version, world.prod, world.follower.rollout) == ("v0.1.0", "v0.1.0", None)
    assert rollouts.bad(home) == {"2" * 64}
    last = audit.events(home, 1)[0]
    assert (last["action"], last["target"], last["to"], last["reason"]) == (
        "rollback",
        "2" * 64,
        "1" * 64,
        "take it away",
    )
    with pytest.raises(ReleaseInvalid, match="no release was in production before"):
        rollouts.back(world.repository, home, "ann", "further", world.now)


def test_a_rollback_has_a_reason(world: World) -> None:
    with pytest.raises(AccessDenied, match="a reason is needed"):
        rollouts.back(world.repository, world.follower.home, "ann", "  ", 1.0)


def test_there_is_nothing_to_go_back_to_is_said(world: World) -> None:
    rollouts.back(world.repository, world.follower.home, "ann", "the trial", 1.0)
    with pytest.raises(ReleaseInvalid, match="no release was in production before"):
        rollouts.back(world.repository, world.follower.home, "ann", "x", 1.0)


def test_another_assignment_meanwhile_begins_the_rollout_again(world: World) -> None:
    world.run(lambda: None)
    assert world.follower.rollout
    registry.assign(world.repository, world.releases[2])
    world.run(until=lambda: world.follower.served is not None and world.follower.served.release.version == "v0.3.0")
    assert [one.outcome for one in rollouts.read(world.follower.home)][:2] == ["begun", "interrupted"]
    assert "2" * 64 not in rollouts.bad(world.follower.home)


def test_a_tag_that_git_refuses_for_long_is_one_event_of_the_audit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    assign = registry.assign

    def refuses(*given: Any, **more: Any) -> Any:
        if len(refused) < 5:
            refused.append("no")
            raise RepositoryError("the ref is locked", "refs/tags", "try again")
        return assign(*given, **more)

    monkeypatch.setattr(registry, "assign", refuses)
    world.run(*[world.well] * 12, until=lambda: world.prod == "v0.2.0")
    assert len(refused) == 5
    assert [one["action"] for one in audit.events(world.follower.home)] == ["promote"]


def test_a_promotion_does_not_undo_what_a_person_did_meanwhile(world: World) -> None:
    fired: list[str] = []

    def permits(_: Release) -> Decision:  # asked just before a step is passed
        if world.follower.rollout and str(world.follower.rollout.step) == "100 %" and not fired:
            fired.append(str(registry.assign(world.repository, world.releases[2]).number))
        return Decision(True)

    world.follower.permits = permits
    world.run(*[world.well] * 20, until=lambda: bool(fired))
    said = [one.outcome for one in rollouts.read(world.follower.home)]
    assert fired == ["2"]
    assert said[:5] == [
        "begun",
        "advanced",
        "advanced",
        "interrupted",
        "begun",
    ]  # and it is tried again, from its start


def test_the_error_budget_is_asked_about_what_the_candidate_changes(world: World) -> None:
    asked: list[str] = []
    name = "nightshift@v0.2.0"
    git(world.repository, "tag", "-f", "-a", name, f"{name}^{{}}", "-m", registry.message("2" * 64, role="refresh"))

    def permits(release: Release) -> Decision:
        asked.append(release.role)
        return Decision(True)

    world.follower.permits = permits
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    assert set(asked) == {"refresh"}


def test_a_step_that_waits_is_said_once_and_again_after_one_that_might_go_on(world: World) -> None:
    answers = [False, False, True, False, False]

    def permits(_: Release) -> Decision:
        return Decision(answers.pop(0) if answers else True, "the budget is spent")

    world.follower.permits = permits
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    assert answers == []
    assert [one for one in world.said if "waits" in one] == ["a rollout waits: the budget is spent"] * 2


def test_a_gateway_that_is_killed_midway_serves_the_stable_release_and_begins_the_rollout_again(world: World) -> None:
    def first_step() -> None:
        if world.follower.rollout and world.follower.rollout.place == 0:
            world.well()

    world.run(*[first_step] * 20, until=lambda: bool(world.follower.rollout and world.follower.rollout.place == 1))
    assert world.prod == "v0.1.0"
    killed, home = world.follower, world.follower.home
    world.follower = Follower(
        world.repository, home, world.repository.parent / "state", 1, world.said.append, rules=RULES
    )
    world.follower.clock, world.follower.wall = killed.clock, killed.wall
    world.follower.bring_up = world.bring_up  # type: ignore[method-assign]
    world.run(lambda: None)
    assert world.follower.served and world.follower.served.release.version == "v0.1.0"
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    said = [one.outcome for one in rollouts.read(home)]
    assert said == ["begun", "advanced", "begun", "advanced", "advanced", "promoted"]


def test_only_the_keys_of_its_share_are_answered_by_it(world: World) -> None:
    world.run(lambda: None, lambda: None)
    assert world.follower.candidate
    keys = [f"key{number}" for number in range(2000)]
    taken = [key for key in keys if world.follower.serving(key) is world.follower.candidate]
    assert 0.03 < len(taken) / len(keys) < 0.07
    dies(world)
    assert all(world.follower.serving(key) is world.follower.served for key in keys)  # before the next look, too


def test_of_what_is_up_only_what_is_needed_stays(world: World) -> None:
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.2.0")
    registry.assign(world.repository, world.releases[2], CANARY)
    world.run(*[world.well] * 20, until=lambda: world.prod == "v0.3.0")

    async def settled() -> None:
        for _ in range(3):
            await world.follower.look()
            await asyncio.sleep(0.15)

    asyncio.run(settled())
    assert set(world.follower.loaded.up) == {"2" * 64, "3" * 64}
    assert world.stopped == ["v0.1.0"]
