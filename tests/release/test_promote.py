"""One digest goes through the environments, agreed on by more than one person where that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nightshift import audit, commit, registry, rollouts, signature
from nightshift.counts import Counts
from nightshift.deployment import Environments
from nightshift.errors import AccessDenied, DiskFull, NightshiftError, ParamsError, ReleaseInvalid, RepositoryError
from nightshift.release import remote
from nightshift.release.promote import Person, Standing, promote
from tests.dvc_airflow.test_objects import flip
from tests.release.project import Released


def environments(approvals: int, target: str | None = None) -> Environments:
    """Staging, and a production that asks for approvals."""
    said: dict[str, Any] = {"target": None, "slo": "slo", "keys": "local", "approvals": 0}
    items = [said | {"name": "staging"}, said | {"name": "prod", "approvals": approvals, "target": target}]
    return Environments.model_validate({"items": items})


def to(
    project: Released, environment: str, who: str, approvals: int = 1, name: str = "v0.2.0", target: str | None = None
) -> Standing:
    return promote(project.store, environments(approvals, target), name, environment, Person(who), "It is better", 1e9)


def events(project: Released) -> list[tuple[str, str, str | None]]:
    """(actor, action, environment) of the audit."""
    path = project.store.home / audit.FILE
    lines = path.read_text().splitlines() if path.is_file() else []
    assert audit.verify(project.store.home) == len(lines)
    return [(one["actor"], one["action"], one.get("environment")) for one in map(json.loads, lines)]


@pytest.fixture
def staged(project: Released) -> Released:
    """v0.2.0 is in staging, and v0.1.0 in prod."""
    assert to(project, "staging", "ann").made
    return project


def test_where_nobody_has_to_agree_it_is_promoted_at_once(staged: Released) -> None:
    said = to(staged, "prod", "ann", approvals=0)
    assert said.made
    assert said.made.number == 2
    assert registry.current(staged.folder) == staged.release("v0.2.0")
    assert events(staged) == [("ann", "promote", "staging"), ("ann", "promote", "prod")]


def test_where_an_endpoint_runs_it_is_tried_first(staged: Released) -> None:
    Counts(staged.store.home).begin(int(1e9) // 60)
    said = to(staged, "prod", "ann", approvals=0)
    assert said.made
    assert said.made.environment == "canary"
    assert events(staged)[1:] == [("ann", "propose", None)]  # whether it is promoted says who tries it
    assert registry.current(staged.folder) == staged.release("v0.1.0")
    registry.assign(staged.folder, staged.release("v0.2.0"))  # the endpoint let it in
    assert to(staged, "staging", "bob", name="v0.1.0").made
    again = to(staged, "prod", "bob", approvals=0, name="v0.1.0")
    assert again.made
    assert again.made.environment == "prod"  # it was there before: nothing is left to try


def test_what_served_and_went_back_is_tried_again_first(staged: Released) -> None:
    Counts(staged.store.home).begin(int(1e9) // 60)
    registry.assign(staged.folder, staged.release("v0.2.0"))
    rollouts.back(staged.folder, staged.store.home, "ann", "bad answers", 1e9)
    again = to(staged, "prod", "ann", approvals=0).made
    assert again and again.environment == "canary"
    assert registry.current(staged.folder) == staged.release("v0.1.0")


def test_what_went_back_and_is_promoted_by_a_person_is_no_longer_bad(staged: Released) -> None:
    to(staged, "prod", "ann", approvals=0)
    rollouts.back(staged.folder, staged.store.home, "ann", "it answers in rhymes", 1e9)
    assert to(staged, "prod", "ann", approvals=0).made
    assert rollouts.bad(staged.store.home) == frozenset()


def test_who_proposes_does_not_approve(staged: Released) -> None:
    said = to(staged, "prod", "ann")
    assert (said.proposer, said.approvers, said.made) == ("ann", (), None)
    with pytest.raises(AccessDenied, match="ann proposed it, and who proposes does not approve; 1 other has to type"):
        to(staged, "prod", "ann")
    assert registry.current(staged.folder) == staged.release("v0.1.0")
    said = to(staged, "prod", "bob")
    assert (said.proposer, said.approvers) == ("ann", ("bob",))
    assert said.made
    assert registry.current(staged.folder) == staged.release("v0.2.0")
    assert events(staged)[1:] == [
        ("ann", "propose", "prod"), ("bob", "approve-promotion", "prod"), ("bob", "promote", "prod"),
    ]  # fmt: skip


def test_a_reason_may_hold_what_ends_a_line_of_text(staged: Released) -> None:
    audit.write(staged.store.home, 1e9, actor="ann", action="rollback", target="x", reason="slow\u2028and wrong")
    assert to(staged, "prod", "ann", approvals=1).proposer == "ann"
    assert to(staged, "prod", "bob", approvals=1).made


def test_one_person_is_one_approval(staged: Released) -> None:
    to(staged, "prod", "ann", approvals=2)
    for _ in range(2):
        assert to(staged, "prod", "bob", approvals=2).approvers == ("bob",)
    assert to(staged, "prod", "cleo", approvals=2).made


def test_a_proposal_is_about_one_digest_and_one_moment(staged: Released) -> None:
    to(staged, "prod", "ann")
    registry.assign(staged.folder, staged.release("v0.2.0"))  # somebody else was first, and rolled back again
    registry.assign(staged.folder, staged.release("v0.1.0"))
    said = to(staged, "prod", "bob")
    assert (said.proposer, said.approvers, said.made) == ("bob", (), None)


def test_what_went_back_is_agreed_on_anew(staged: Released) -> None:
    Counts(staged.store.home).begin(int(1e9) // 60)
    assert to(staged, "prod", "ann").made is None
    tried = to(staged, "prod", "bob").made
    assert tried and tried.environment == "canary"
    digest = staged.release("v0.2.0").digest
    audit.write(staged.store.home, 1e9, actor="gateway", action="back", target=digest, reason="it errs")
    said = to(staged, "prod", "ann")
    assert (said.proposer, said.approvers, said.made) == ("ann", (), None)


def test_another_assignment_meanwhile_makes_it_fail(staged: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.assign(staged.folder, staged.release("v0.2.0"))
    registry.assign(staged.folder, staged.release("v0.1.0"))
    monkeypatch.setattr(registry, "upcoming", lambda *_: 2)  # what it was when this promotion looked
    with pytest.raises(RepositoryError, match="nightshift#prod#2 could not be made"):
        to(staged, "prod", "ann", approvals=0)
    assert registry.current(staged.folder) == staged.release("v0.1.0")


def test_an_approval_that_is_written_in_by_hand_is_seen(staged: Released) -> None:
    to(staged, "prod", "ann")
    path = staged.store.home / audit.FILE
    last = json.loads(path.read_text().splitlines()[-1])
    path.write_text(path.read_text() + json.dumps(last | {"actor": "bob", "action": "approve-promotion"}) + "\n")
    with pytest.raises(AccessDenied, match=r"audit\.jsonl:3: the audit was changed"):
        to(staged, "prod", "cleo", approvals=2)


def _never_released(project: Released) -> str:
    return "v9.9.9"


def _altered(project: Released) -> str:
    folder = project.store.trusted(project.release("v0.2.0"))[0]
    held = next(
        one
        for one in (project.folder / ".dvc/cache").rglob("*")
        if one.is_file() and one.read_bytes() == (folder / "card.md").read_bytes()
    )
    flip(held)
    shutil.rmtree(folder)
    return "v0.2.0"


def _unsigned(project: Released) -> str:
    project.store.signature(project.release("v0.2.0").digest).unlink()
    return "v0.2.0"


def _an_older_signature(project: Released) -> str:
    old, new = (project.store.signature(project.release(one).digest) for one in ("v0.1.0", "v0.2.0"))
    shutil.copyfile(old, new)
    return "v0.2.0"


def _an_older_release_in_its_place(project: Released) -> str:
    store, old, new = project.store, project.release("v0.1.0"), project.release("v0.2.0")
    shutil.copytree(store.trusted(old)[0], store.copy(new.digest), dirs_exist_ok=True)
    shutil.copyfile(store.signature(old.digest), store.signature(new.digest))
    shutil.rmtree(project.folder / ".dvc" / "cache")
    return "v0.2.0"


def _a_revoked_key(project: Released) -> str:
    signature.rotate(project.store.home, project.store.keys, [])
    return "v0.2.0"


def _a_replaced_key(project: Released) -> str:
    signed_until_then = [project.release("v0.1.0").digest]
    signature.rotate(project.store.home, project.store.keys, signed_until_then)
    return "v0.2.0"


REFUSED = {
    "never released": (_never_released, "it was never released"),
    "altered": (_altered, r"its files are not those that were released \(card\.md differs"),
    "unsigned": (_unsigned, "it has no signature"),
    "an older signature": (_an_older_signature, "its signature does not hold"),
    "an older release in its place": (_an_older_release_in_its_place, "its files are not"),
    "a revoked key": (_a_revoked_key, r"key [0-9a-f]{16} was replaced before it signed this"),
    "a replaced key": (_a_replaced_key, r"key [0-9a-f]{16} was replaced before it signed this"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_release_of_ours_is_refused_and_nothing_written(name: str, staged: Released) -> None:
    harm, said = REFUSED[name]
    wanted, before = harm(staged), events(staged)
    with pytest.raises(NightshiftError, match=said) as refused:
        to(staged, "prod", "ann", name=wanted)
    assert refused.value.code in (ReleaseInvalid.code, 13)
    assert events(staged) == before
    assert registry.current(staged.folder) == staged.release("v0.1.0")


def test_a_key_does_what_its_scopes_say(staged: Released) -> None:
    def asked(name: str, *scopes: str) -> Standing:
        who = Person(name, frozenset(scopes))
        return promote(staged.store, environments(1), "v0.2.0", "prod", who, "It is better", 1e9)

    before = events(staged)
    with pytest.raises(AccessDenied, match="the key of ann lacks the scope deploy:propose"):
        asked("ann", "infer:chat", "deploy:approve")
    assert events(staged) == before
    assert asked("ann", "deploy:propose").proposer == "ann"
    with pytest.raises(AccessDenied, match="the key of bob lacks the scope deploy:approve"):
        asked("bob", "deploy:propose")
    assert asked("bob", "deploy:approve").made


def test_who_approved_last_may_type_it_again_when_the_push_failed(
    staged: Released, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    approver = Person("bob", frozenset({"deploy:approve"}))
    place = environments(1, target=str(tmp_path / "target"))

    def asked() -> Standing:
        return promote(staged.store, place, "v0.2.0", "prod", approver, "It is better", 1e9)

    to(staged, "prod", "ann", target=str(tmp_path / "target"))
    with monkeypatch.context() as broken:
        broken.setattr(remote, "push", _no_room)
        with pytest.raises(DiskFull):
            asked()
    assert asked().made


def _no_room(*_: object) -> None:
    raise DiskFull("no room is left", "target", "make some")


def test_no_environment_is_skipped(project: Released) -> None:
    with pytest.raises(AccessDenied, match="it was never in staging, which comes before prod; promote it to staging"):
        to(project, "prod", "ann")
    with pytest.raises(ParamsError, match=r"no environment 'moon'; environments\.items has staging, prod"):
        to(project, "moon", "ann")
    assert events(project) == []


def test_an_environment_without_objectives_is_refused(project: Released) -> None:
    shutil.rmtree(project.folder / "include" / "policies" / "slo")
    with pytest.raises(ParamsError, match="include/policies/slo: staging has no objectives"):
        to(project, "staging", "ann")
    assert events(project) == []


def test_what_is_there_already_and_what_has_no_reason_is_refused(staged: Released) -> None:
    with pytest.raises(AccessDenied, match="it is in staging already"):
        to(staged, "staging", "bob")
    with pytest.raises(AccessDenied, match="a reason is needed"):
        promote(staged.store, environments(0), "v0.2.0", "prod", Person("ann"), " ", 1e9)


def test_an_environment_with_a_place_of_its_own_gets_the_files_first(staged: Released, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    to(staged, "prod", "ann", target=target)
    assert not Path(target).exists()
    assert to(staged, "prod", "bob", target=target).made
    digest = staged.release("v0.2.0").digest
    assert commit.digest(Path(target, digest, "release")) == digest


def test_the_commands(project: Released) -> None:
    listed = project.cli("release", "list")
    lines = [one.split() for one in listed.stdout.splitlines()]
    assert [(one[0], one[1], one[3:]) for one in lines] == [
        ("v0.2.0", project.release("v0.2.0").digest, []),
        ("v0.1.0", project.release("v0.1.0").digest, ["prod"]),
    ]
    verified = project.cli("release", "verify", "v0.1.0")
    key = project.cli("release", "key").stdout.strip()
    assert verified.stdout.strip().endswith(f"is what was released, signed with key {key}.")
    assert [one.name for one in project.store.keys.iterdir()] == [f"{key[:16]}.pem"]
    prompt = project.store.copy(project.release("v0.1.0").digest) / "system" / "prompt.yaml"
    prompt.write_text(prompt.read_text() + "# x\n")
    altered = project.cli("release", "verify", "v0.1.0")
    assert "was altered (system/prompt.yaml: " in altered.stderr and altered.stdout == verified.stdout
    assert not prompt.read_text().endswith("# x\n")
    said = project.cli("promote", "v0.2.0", "--to", "prod", "--reason", "It is better")
    assert said.stdout == f"v0.2.0 ({project.release('v0.2.0').digest[:12]}) is in prod.\n"
    assert project.cli("release", "rotate-key", "--revoke", "--reason", "Stolen").returncode == 0
    refused = project.cli("release", "verify", "v0.2.0")
    assert (refused.returncode, refused.stdout) == (16, "")
    assert project.cli("release", "sign", "v0.2.0", "--reason", "It is ours").returncode == 0
    assert project.cli("release", "verify", "v0.2.0").returncode == 0
    who = {event[0] for event in _all(project)}
    assert [event[1] for event in _all(project)] == ["promote", "rotate-key", "sign"]
    words = ("release", "sign", "v0.1.0", "--reason", "Ours too", "--key", "ann.key")
    (project.folder / "ann.key").write_text(project.cli("keys", "create", "--owner", "ann").stdout)
    assert "the key of ann lacks the scope deploy:approve" in project.cli(*words).stderr
    made = project.cli("keys", "create", "--owner", "ann", "--scope", "deploy:approve").stdout
    (project.folder / "ann.key").write_text(made)
    assert project.cli(*words, LOGNAME="root-is-not-believed").returncode == 0
    assert _all(project)[-1] == ("ann", "sign")
    assert "ann" not in who
    (project.folder / "ann.key").write_text("ns_local_no")
    assert project.cli(*words).returncode == 22


def _all(project: Released) -> list[tuple[str, str]]:
    lines = (project.store.home / audit.FILE).read_text().splitlines()
    return [(one["actor"], one["action"]) for one in map(json.loads, lines)]
