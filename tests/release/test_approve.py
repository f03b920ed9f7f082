"""A person may let out what the gate could not decide about, and nothing else; and it is written down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from nightshift import audit, commit, invariants, registry, rollouts, signature
from nightshift.counts import Counts
from nightshift.errors import AccessDenied, RepositoryError
from nightshift.release.approve import approve
from tests.release.test_release import git


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Path:
    """A project whose last night kept an undecided winner."""
    folder = tmp_path / "repository"
    git(tmp_path, "init", "-q", "-b", "nightly", str(folder))
    shutil.copy(root / "params.yaml", folder)
    shutil.copytree(root / "include" / "policies", folder / "include" / "policies")
    with commit.folder(folder / "release") as draft:
        (draft / "card.md").write_text("A system.")
    Repo.init(str(folder)).close()
    add(folder)
    night(folder)
    return folder


def add(folder: Path) -> None:
    with Repo(str(folder)) as repo:
        repo.add(str(folder / "release"))


def night(folder: Path, **more: object) -> str:
    digest = commit.digest(folder / "release")
    metrics = {"released": False, "role": "winner", "system": "lora", "digest": digest}
    metrics |= {"verdict": "NO-GO", "verdict_on_it": "INCONCLUSIVE"}
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics" / "release.json").write_text(json.dumps(metrics | more))
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Night")
    return digest


def let_out(repository: Path, tmp_path: Path, reason: str = "We looked at it") -> registry.Assignment:
    return approve(repository, tmp_path / "var", tmp_path / "state", "nightly", "ann", reason, 1e9)


def test_an_undecided_winner_is_signed_versioned_deployed_and_written_down(repository: Path, tmp_path: Path) -> None:
    made = let_out(repository, tmp_path)
    assert (made.release.version, made.environment) == ("v0.1.0", "prod")
    assert registry.current(repository) == made.release
    signed = tmp_path / "var" / "releases" / made.release.digest / "model.sig"
    signature.verify(repository / "release", signed, tmp_path / "var", tmp_path / "keys")
    assert audit.verify(tmp_path / "var") == 1
    said = json.loads((tmp_path / "var" / audit.FILE).read_text())
    assert (said["actor"], said["reason"], said["target"]) == ("ann", "We looked at it", made.release.digest)


def test_documents_alone_raise_the_last_number(repository: Path, tmp_path: Path) -> None:
    let_out(repository, tmp_path)
    with commit.folder(repository / "release") as draft:
        (draft / "card.md").write_text("The same system, with tonight's documents.")
    add(repository)
    night(repository, role="refresh")
    assert let_out(repository, tmp_path).release.version == "v0.1.1"


def another(repository: Path) -> None:
    """A release is in production, and tonight made an undecided winner of other bytes."""
    with commit.folder(repository / "release") as draft:
        (draft / "card.md").write_text("A system after that one.")
    add(repository)
    night(repository)


def test_where_an_endpoint_runs_it_is_tried_first(repository: Path, tmp_path: Path) -> None:
    first = let_out(repository, tmp_path).release
    Counts(tmp_path / "var").begin(int(1e9) // 60)
    another(repository)
    made = let_out(repository, tmp_path)
    assert (made.environment, made.release.version) == ("canary", "v0.2.0")
    assert made.told.endswith("is tried by the endpoint now; `nightshift report` says what becomes of it.")
    assert registry.current(repository) == first
    assert rollouts.read(tmp_path / "var")[-1].outcome == "proposed"


def test_what_was_promised_of_the_endpoint_holds_a_person_back_too(repository: Path, tmp_path: Path) -> None:
    let_out(repository, tmp_path)
    invariants.broke(tmp_path / "var", 1e9, "unverified", "a test")
    another(repository)
    with pytest.raises(AccessDenied, match="an invariant is broken"):
        let_out(repository, tmp_path)
    assert [one.version for one in registry.releases(repository)] == ["v0.1.0"]


def test_a_digest_that_has_its_version_keeps_it(repository: Path, tmp_path: Path) -> None:
    let_out(repository, tmp_path)
    git(repository, "tag", "-d", "nightshift#prod#1")  # as after a kill between version and assignment
    assert let_out(repository, tmp_path, "Once more").number == 1
    assert [one.version for one in registry.releases(repository)] == ["v0.1.0"]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"verdict_on_it": "NO-GO"}, "the verdict on the winner is NO-GO"),
        ({"verdict_on_it": "GO", "released": True}, "the last night let out its winner by itself"),
        ({"role": ""}, "the last night made no system"),
    ],
    ids=["NO-GO", "GO", "no system"],
)
def test_nothing_else_can_be_approved(repository: Path, tmp_path: Path, metrics: dict[str, object], said: str) -> None:
    night(repository, **metrics)
    with pytest.raises(AccessDenied, match=said):
        let_out(repository, tmp_path)
    assert registry.releases(repository) == []
    assert not (tmp_path / "var").exists()


def test_a_reason_and_a_night_are_needed(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(AccessDenied, match="a reason is needed"):
        let_out(repository, tmp_path, " ")
    git(repository, "branch", "-m", "main")
    with pytest.raises(RepositoryError, match="no night was published here yet"):
        let_out(repository, tmp_path)


def test_what_is_in_production_is_not_approved_again(repository: Path, tmp_path: Path) -> None:
    let_out(repository, tmp_path)
    with pytest.raises(AccessDenied, match=r"v0\.1\.0 is in prod already"):
        let_out(repository, tmp_path)
    assert audit.verify(tmp_path / "var") == 1
