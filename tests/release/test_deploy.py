"""A new model waits while nothing may break, and a first one does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightshift import audit, invariants, openslo, registry, rollouts, slo
from nightshift.counts import Counts
from nightshift.errors import AccessDenied
from nightshift.release import deploy, handover
from nightshift.release.handover import by_hand
from nightshift.summary import summary
from tests.release.test_release import git, tag

NOW = 29_000_000
DEPLOYED = {"deployed": "prod", "version": "v0.2.0", "number": 2}


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Path:
    """v0.1.0 is in production, and tonight published v0.2.0."""
    folder = tmp_path / "repository"
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    tag(folder, "v0.1.0", "a" * 64)
    registry.assign(folder, registry.releases(folder)[0])
    shutil.copytree(root / "include" / "policies", folder / "include" / "policies")
    at_once = (root / "params.yaml").read_text().replace("strategy: canary", "strategy: immediate")
    (folder / "params.yaml").write_text(at_once)
    (folder / "metrics").mkdir()
    tonight(folder, "winner")
    return folder


def tonight(folder: Path, role: str) -> None:
    (folder / "metrics" / "release.json").write_text(json.dumps({"digest": "b" * 64, "role": role}))
    tag(folder, "v0.2.0", "b" * 64, role=role)


def counted(home: Path, bad: int, sli: str = "availability") -> None:
    """An hour of an endpoint, `bad` of whose 6,000 requests went wrong; 135,000 times that is what 28 days allow."""
    counts = Counts(home)
    counts.begin(NOW - 59)
    counts.add(NOW - 59, {(sli, "a" * 64): (3000 - bad, 3000)})
    counts.add(NOW, {(sli, "a" * 64): (3000, 3000)})


def done(folder: Path, home: Path, now: int = NOW) -> dict[str, Any]:
    said = deploy.deploy(folder, folder, home, "tonight", now * 60)
    held = said["deployed"] is None
    event = audit.events(home)[-1]
    assert (event["action"], event["target"], event["environment"]) == ("hold" if held else "deploy", "b" * 64, "prod")
    assert event["reason"] == (said["frozen"] if held else "the gate let it out")
    assert [one.number for one in registry.assignments(folder)] == ([1] if held else [1, 2])
    assert not held or said["why_not_deployed"] == f"frozen: {said['frozen']}"
    return said


def test_where_no_endpoint_ever_ran_it_is_deployed(repository: Path, tmp_path: Path) -> None:
    assert done(repository, tmp_path / "home") == DEPLOYED


def test_with_budget_left_it_is_deployed(repository: Path, tmp_path: Path) -> None:
    counted(tmp_path, bad=10)
    assert done(repository, tmp_path) == DEPLOYED


@pytest.mark.parametrize(("role", "waits"), [("winner", True), ("plain", True), ("refresh", False)])
def test_with_little_left_a_model_waits_and_documents_do_not(
    role: str, waits: bool, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tonight(repository, role)
    monkeypatch.setattr(slo, "remaining", lambda *_: 0.1)
    said = done(repository, tmp_path)
    assert ("frozen" in said) == waits
    assert not waits or said["frozen"].endswith("10% is left, and model has to wait")
    found = registry.find(repository, "v0.2.0")  # the gateway, which asks again before each step, says the same
    assert slo.may_release(found.role, tmp_path, repository, NOW).allowed != waits
    by_hand(repository, tmp_path, found, "staging", NOW)
    if waits:
        with pytest.raises(AccessDenied, match="model has to wait"):
            by_hand(repository, tmp_path, found, "prod", NOW)


def test_with_a_spent_budget_nothing_new_is_deployed_until_it_is_back(repository: Path, tmp_path: Path) -> None:
    tonight(repository, "refresh")
    one = openslo.read(repository / openslo.FOLDER)["privacy"]
    counted(tmp_path, bad=int(one.budget * 6000 * 28 * 24) + 1, sli="privacy")
    assert "privacy" in done(repository, tmp_path)["frozen"]
    Counts(tmp_path).end(NOW)
    assert done(repository, tmp_path, NOW + 29 * 1440) == DEPLOYED  # out of the window


@pytest.mark.parametrize(("minutes", "waits"), [(9, False), (10, True), (5000, True)])
def test_data_older_than_ten_minutes_holds_it_back(minutes: int, waits: bool, repository: Path, tmp_path: Path) -> None:
    counted(tmp_path, bad=0)
    assert ("frozen" in done(repository, tmp_path, NOW + minutes)) == waits


def test_an_endpoint_that_was_stopped_on_purpose_holds_nothing_back(repository: Path, tmp_path: Path) -> None:
    counted(tmp_path, bad=0)
    Counts(tmp_path).end(NOW + 1)
    assert done(repository, tmp_path, NOW + 5000) == DEPLOYED


def test_a_broken_invariant_holds_it_back(repository: Path, tmp_path: Path) -> None:
    invariants.broke(tmp_path, 1.0, "canary", "a canary stood in an answer")
    assert "canary" in done(repository, tmp_path)["frozen"]


def test_the_first_release_protects_nothing_that_is_there(repository: Path, tmp_path: Path) -> None:
    git(repository, "tag", "-d", "nightshift#prod#1")
    invariants.broke(tmp_path, 1.0, "canary", "a canary stood in an answer")
    assert deploy.deploy(repository, repository, tmp_path, "tonight", NOW * 60)["deployed"] == "prod"


def test_what_is_in_production_already_is_said_again(repository: Path, tmp_path: Path) -> None:
    registry.assign(repository, registry.releases(repository)[1])
    invariants.broke(tmp_path, 1.0, "canary", "a canary stood in an answer")
    assert deploy.deploy(repository, repository, tmp_path, "tonight", NOW * 60) == DEPLOYED


@pytest.fixture
def tried(repository: Path, root: Path, tmp_path: Path) -> Path:
    """An endpoint runs, and tries what is new."""
    shutil.copyfile(root / "params.yaml", repository / "params.yaml")
    counted(tmp_path, bad=0)
    return repository


def trial(tried: Path, home: Path, becomes: Callable[[registry.Release], None]) -> dict[str, Any]:
    """Deploy; at the third look the endpoint has come to an end with the candidate."""
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        found = registry.standing(tried).candidate
        if len(looks) == 3 and found:
            becomes(found)

    return deploy.deploy(tried, tried, home, "tonight", NOW * 60, sleep)


def entry(release: registry.Release, outcome: rollouts.Outcome, reason: str = "") -> rollouts.Entry:
    return rollouts.Entry(1.0, release.digest, release.version, "a" * 64, "canary", "5 %", outcome, reason)


def test_an_endpoint_that_runs_tries_it_first(tried: Path, tmp_path: Path) -> None:
    def promoted(one: registry.Release) -> None:
        registry.assign(tried, one)

    assert trial(tried, tmp_path, promoted) == DEPLOYED
    assert [one.number for one in registry.assignments(tried, registry.CANARY)] == [1]


def test_what_went_back_is_said_and_not_tried_again(tried: Path, tmp_path: Path) -> None:
    said = trial(tried, tmp_path, lambda one: rollouts.write(tmp_path, entry(one, "back", "its engine died")))
    why = "it went back at 5 %: its engine died"
    assert said == {"deployed": None, "why_not_deployed": why}
    assert trial(tried, tmp_path, lambda one: pytest.fail("it is not tried again")) == said
    assert len(registry.assignments(tried, registry.CANARY)) == 1


def test_what_went_back_by_hand_does_not_come_again_without_an_endpoint(repository: Path, tmp_path: Path) -> None:
    assert done(repository, tmp_path) == DEPLOYED
    rollouts.back(repository, tmp_path, "ann", "it answers in rhymes", NOW * 60)
    said = deploy.deploy(repository, repository, tmp_path, "tomorrow", NOW * 60)
    assert said == {"deployed": None, "why_not_deployed": "it went back at 100 %: it answers in rhymes"}


def test_a_rollout_that_takes_longer_than_the_night_goes_on_without_it(tried: Path, tmp_path: Path) -> None:
    said = trial(tried, tmp_path, lambda one: rollouts.write(tmp_path, entry(one, "begun")))
    assert said["deployed"] is None
    assert said["why_not_deployed"] == "the endpoint still tries it, at 5 %; it goes on without the night"


def test_a_step_that_was_passed_is_not_where_it_stands(tried: Path, tmp_path: Path) -> None:
    said = trial(tried, tmp_path, lambda one: rollouts.write(tmp_path, entry(one, "advanced")))
    assert said["why_not_deployed"] == "the endpoint still tries it, beyond 5 %; it goes on without the night"


def test_what_an_engine_said_last_stays_on_its_machine(tried: Path, tmp_path: Path) -> None:
    why = "it was never ready: the engine did not answer: /srv/x/engine.log: no room"
    said = trial(tried, tmp_path, lambda one: rollouts.write(tmp_path, entry(one, "back", why)))
    assert said["why_not_deployed"] == "it went back at 5 %: it was never ready"


def test_a_trial_ends_with_an_assignment_that_was_made_beside_it(tried: Path, tmp_path: Path) -> None:
    """Nobody serves, and a person assigns what was being tried: no endpoint goes on with that against its successor."""
    release = registry.releases(tried)[-1]
    registry.assign(tried, release, registry.CANARY)
    rollouts.write(tmp_path, entry(release, "begun"))
    handover.let_in(tried, tmp_path, release, registry.PROD, handover.Way(), "ann", "it is fine", NOW * 60)
    assert rollouts.read(tmp_path)[-1].outcome == "promoted"
    git(tried, "commit", "-q", "--allow-empty", "-m", "later")
    tag(tried, "v0.9.0", "9" * 64)
    registry.assign(tried, registry.find(tried, "v0.9.0"))
    assert rollouts.standing(tried, tmp_path).candidate is None


def test_a_person_reads_why_and_what_comes_next() -> None:
    night = {"run": "one", "published": "c" * 40, "new": True, "stages": {}, "released": "b" * 64, "deployed": None}
    said = summary(night | {"frozen": "the budget is spent", "why_not_deployed": "frozen: the budget is spent"})
    assert "Not deployed: frozen: the budget is spent." in said
    assert "`nightshift slo show`" in said
