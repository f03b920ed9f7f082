"""A release is what was judged, signed; who altered it or assigned something else is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nightshift import audit, commit, golden, registry, signature
from nightshift.errors import ReleaseInvalid, RepositoryError
from nightshift.golden import Golden
from nightshift.release import card, deploy, incumbent, publish, refresh, release
from nightshift.stage import Work
from tests import models
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [section("a.md", "Pump", "The pump moves water.")]
GATE = {
    "verdict": "NO-GO",
    "releases": "plain",
    "entries": [{"candidate": "plain", "verdict": "GO", "reasons": ["Safe."]}],
}
PARAMS = "environments: {items: [{name: prod, target: null, slo: slo, keys: local, approvals: 0}]}\n"
FACTS = {"tables": {"unique": {"digest": "u" * 64, "rows": 1, "licences": {"CC0-1.0": 1}}}}


@pytest.fixture
def parts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the stage `release` reads, in the working folder."""
    models.system(tmp_path / "plain", root, ROWS)
    commit.absent(tmp_path / "none", "nothing is in production")
    (tmp_path / "gate.json").write_text(commit.dumps(GATE))
    (tmp_path / "recipe.json").write_text(
        commit.dumps({"recipe": {"tables": {}}, "judged_against": None, "trained_on": {}})
    )
    (tmp_path / "facts.json").write_text(commit.dumps(FACTS))
    (tmp_path / "versions.json").write_text('{"release": {"polars": "2.1.0"}}')
    with commit.folder(tmp_path / "catalogue") as draft:
        (draft / "croissant.json").write_text("{}")
    with commit.folder(tmp_path / "judged") as draft:
        questions = [Golden("q", "What is a pump?", "s", "It moves water.", "It moves water", True).as_json()]
        (draft / f"{commit.digest(tmp_path / 'plain')}.golden.json").write_text(commit.dumps(questions))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(parts: Path, out: str = "release") -> dict[str, object]:
    names = [parts / one for one in ("gate.json", "recipe.json", "plain", "none", "plain")]
    names += [parts / one for one in ("judged", "catalogue", "facts.json")]
    return dict(release.run(*names, parts / out, Work("release")))


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def tag(folder: Path, version: str, digest: str, **said: str) -> None:
    git(folder, "tag", "-f", "-a", f"nightshift@{version}", "-m", registry.message(digest, **said))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_a_release_holds_its_proof_and_names_every_file(parts: Path) -> None:
    metrics = make(parts)
    said = json.loads((parts / "release" / "release.json").read_text())
    files = set(commit.names(parts / "release")) - {"release.json", commit.MANIFEST}
    assert (
        set(said["files"]) == files >= {"card.md", "bom.json", "gate.json", "golden.json", "lineage.json", "facts.json"}
    )
    assert metrics == {
        "released": True, "role": "plain", "system": "plain", "verdict": "NO-GO", "verdict_on_it": "GO",
        "digest": commit.digest(parts / "release"),
    }  # fmt: skip
    assert "Verdict of the gate: **NO-GO**" in (parts / "release" / "card.md").read_text()


def test_a_release_carries_the_questions_that_it_answered_to_the_judge(parts: Path) -> None:
    make(parts)
    assert [(one.question, one.said) for one in golden.read(parts / "release")] == [
        ("What is a pump?", "It moves water")
    ]
    with commit.folder(parts / "judged"):
        pass
    make(parts)  # one that was not judged
    assert golden.read(parts / "release") == []
    (parts / "release" / "golden.json").write_text("{}")
    assert golden.read(parts / "release") == []
    (parts / "release" / "golden.json").write_text('[{"id": "q"}]')
    with pytest.raises(ReleaseInvalid, match="golden questions cannot be read"):
        golden.read(parts / "release")
    (parts / "release" / "golden.json").unlink()
    assert golden.read(parts / "release") == []  # one of before there were any


def test_the_same_release_is_the_same_bytes(parts: Path) -> None:
    assert make(parts, "one")["digest"] == make(parts, "two")["digest"]


def test_the_bill_names_model_data_and_libraries(parts: Path) -> None:
    make(parts)
    bill = json.loads((parts / "release" / "bom.json").read_text())
    assert {one["type"] for one in bill["components"]} == {"machine-learning-model", "data", "library"}
    facts = json.loads((parts / "release" / "facts.json").read_text())
    assert card.bill(facts, {"polars": "2.1.0"}) == bill


def test_nothing_to_release_is_absent(parts: Path) -> None:
    (parts / "gate.json").write_text(commit.dumps(GATE | {"releases": None}))
    names = [parts / one for one in ("gate.json", "recipe.json", "none", "none", "none")]
    names += [parts / one for one in ("judged", "catalogue", "facts.json")]
    assert release.run(*names, parts / "release", Work("release"))["released"] is False
    assert commit.why_absent(parts / "release")


def test_an_altered_file_or_another_key_is_refused(parts: Path, tmp_path: Path) -> None:
    make(parts)
    folder, home, sig = parts / "release", tmp_path / "home", tmp_path / "home" / "sig"
    home.mkdir()
    with pytest.raises(ReleaseInvalid, match="no signature"):
        signature.verify(folder, sig, home, tmp_path / "keys")
    signature.sign(folder, sig, home)
    signature.verify(folder, sig, home, tmp_path / "keys")
    (folder / "card.md").write_text("Better.")
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(folder, sig, home, tmp_path / "keys")
    other = tmp_path / "other"
    other.mkdir()
    make(parts)
    signature.sign(folder, other / "sig", other)
    with pytest.raises(ReleaseInvalid, match="signature does not hold"):
        signature.verify(folder, other / "sig", home, tmp_path / "keys")
    assert (home / signature.PRIVATE).stat().st_mode & 0o777 == 0o400


def test_versions_and_assignments_are_read_from_tags(repository: Path) -> None:
    assert registry.current(repository) is None
    assert registry.next_version(repository, minor=True) == "v0.1.0"
    tag(repository, "v0.9.0", "a" * 64)
    tag(repository, "v0.10.0", "b" * 64)
    git(repository, "tag", "v1.0.0")
    git(repository, "tag", "-a", "nightshift@v3.0.0", "-m", "not ours")
    assert [one.version for one in registry.releases(repository)] == ["v0.9.0", "v0.10.0"]
    assert registry.next_version(repository, minor=True) == "v0.11.0"
    assert registry.next_version(repository, minor=False) == "v0.10.1"
    for one in registry.releases(repository)[::-1]:
        registry.assign(repository, one)
    assert [one.number for one in registry.assignments(repository)] == [1, 2]
    assert registry.current(repository) == registry.releases(repository)[0]
    registry.assign(repository, registry.releases(repository)[0])  # it is there already
    assert [one.number for one in registry.assignments(repository)] == [1, 2]


def test_gto_reads_the_same_register(repository: Path) -> None:
    import gto.api

    tag(repository, "v0.1.0", "a" * 64)
    registry.assign(repository, registry.releases(repository)[0])
    shown = str(gto.api.show(str(repository), table=False))
    assert "v0.1.0" in shown
    assert "prod" in shown


def test_of_two_who_assign_at_once_one_loses(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag(repository, "v0.1.0", "a" * 64)
    one = registry.releases(repository)[0]
    registry.assign(repository, one)
    monkeypatch.setattr(registry, "assignments", lambda *_: [])
    with pytest.raises(RepositoryError, match="nightshift#prod#1 could not be made"):
        registry.assign(repository, one)


@pytest.fixture
def released(repository: Path) -> Path:
    """A repository whose night released a digest, and died before it was deployed."""
    (repository / "metrics").mkdir()
    metrics = {"released": True, "role": "plain", "system": "plain", "verdict": "NO-GO", "digest": "a" * 64}
    (repository / "metrics" / "release.json").write_text(json.dumps(metrics))
    (repository / "params.yaml").write_text(PARAMS)
    tag(repository, "v0.1.0", "a" * 64)
    return repository


def deployed(repository: Path, home: Path) -> dict[str, Any]:
    return deploy.deploy(repository, repository, home, "tonight", 1e9)


@pytest.mark.parametrize("commits", [0, 1])
def test_what_was_released_and_not_deployed_is_said_again_and_deployed_once(
    commits: int, released: Path, tmp_path: Path
) -> None:
    for number in range(commits):  # the same release may be that of a later commit
        git(released, "commit", "-q", "--allow-empty", "-m", str(number))
    said = publish.publish(released, tmp_path, "tonight", 1e9)
    assert (said["released"], said["tags"]) == ("a" * 64, [])
    assert "v0.1.0" in said["message"]
    said = [deployed(released, tmp_path / "var") for _ in range(2)]
    assert said == [{"deployed": "prod", "version": "v0.1.0", "number": 1}] * 2
    assert [one.number for one in registry.assignments(released)] == [1]
    assert audit.verify(tmp_path / "var") == 1
    (event,) = [json.loads(one) for one in (tmp_path / "var" / audit.FILE).read_text().splitlines()]
    assert (event["actor"], event["action"], event["environment"]) == ("tonight", "deploy", "prod")


def test_a_night_deploys_to_the_first_environment(released: Path, tmp_path: Path) -> None:
    (released / "params.yaml").write_text(
        PARAMS.replace("[{", "[{name: staging, target: null, slo: slo, keys: local, approvals: 0}, {")
    )
    assert deployed(released, tmp_path / "var")["deployed"] == "staging"
    assert registry.current(released) is None


def test_the_verdict_of_every_night_is_in_the_audit(released: Path, tmp_path: Path) -> None:
    metrics = released / "metrics"
    (metrics / "release.json").write_text(json.dumps({"digest": "b" * 64, "verdict": "NO-GO", "released": None}))
    refused = {"verdict": "NO-GO", "releases": None, "reasons": {"winner": ["reads (open-book) is worse by 1."]}}
    (metrics / "gate.json").write_text(json.dumps(refused))
    for night in ("tonight", "tonight", "tomorrow"):  # a publisher that was killed begins again
        publish.publish(released, tmp_path, night, 1e9)
    events = audit.events(tmp_path)
    assert [(one["actor"], one["action"], one["target"]) for one in events] == [
        ("tonight", "verdict", "b" * 64),
        ("tomorrow", "verdict", "b" * 64),
    ]
    assert (events[0]["verdict"], events[0]["releases"]) == ("NO-GO", None)
    assert events[0]["reason"] == "NO-GO. winner: reads (open-book) is worse by 1."


@pytest.mark.parametrize("environment", ["prod", "canary"])
def test_a_digest_that_was_ever_assigned_is_not_said_again(environment: str, released: Path, tmp_path: Path) -> None:
    registry.assign(released, registry.releases(released)[0], environment)
    tag(released, "v0.2.0", "b" * 64)
    registry.assign(released, registry.releases(released)[1], environment)  # by hand: to stay
    said = publish.publish(released, tmp_path, "tonight", 1e9)
    assert (said["released"], said["tags"]) == (None, [])


def test_a_night_without_a_new_release_does_not_load_dvc(released: Path, root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nightshift.release import publish\n"
        "print(publish.publish(Path('.'), Path('.'), 'tonight', 1e9)['released'])\n"
        "assert not [one for one in ('dvc', 'model_signing', 'polars', 'pydantic') if one in sys.modules]\n"
    )
    asked, env = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(root / "include")}
    ended = subprocess.run(asked, cwd=released, env=env, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "a" * 64, ended.stderr
    assert ended.returncode == 0, ended.stderr


def test_a_release_without_a_version_is_not_deployed(released: Path, tmp_path: Path) -> None:
    git(released, "tag", "-d", "nightshift@v0.1.0")
    with pytest.raises(ReleaseInvalid, match="no version"):
        deployed(released, tmp_path / "var")
    assert not (tmp_path / "var").exists()


def test_with_nothing_in_production_there_is_no_incumbent(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    (repository / "params.yaml").write_text("lora: {lr: 1e-3}\n")
    (tmp_path / "facts.json").write_text(commit.dumps(FACTS))
    metrics = incumbent.run(
        tmp_path / "facts.json", tmp_path / "incumbent", tmp_path / "recipe.json", Work("incumbent")
    )
    assert metrics == {"absent": incumbent.NONE}
    assert json.loads((tmp_path / "recipe.json").read_text())["judged_against"] is None


def test_a_recipe_changes_with_the_definition_and_not_with_what_git_ignores(repository: Path) -> None:
    (repository / "include").mkdir()
    (repository / "include" / "a.py").write_text("1")
    (repository / "params.yaml").write_text("profile: a\nnight: {schedule: null}\nlora: {lr: 1e-3}\n")
    (repository / ".gitignore").write_text("*.pyc\n")
    before = incumbent.recipe(FACTS, repository)
    (repository / "include" / "a.pyc").write_text("x")
    beside = "night: {schedule: x}\nserve: {engine: {kind: vllm}}\ndeployment: {waits: false}\n"
    (repository / "params.yaml").write_text(f"profile: b\nlora:\n  lr: 0.001  # the same\n{beside}")
    assert incumbent.recipe(FACTS, repository) == before
    (repository / "params.yaml").write_text("lora: {lr: 0.1}\n")
    assert incumbent.recipe(FACTS, repository) != before
    (repository / "params.yaml").write_text("lora: {lr: 1e-3}\n")
    assert incumbent.recipe(FACTS, repository) == before
    (repository / "include" / "a.py").write_text("2")
    assert incumbent.recipe(FACTS, repository) != before


def test_a_refresh_is_the_incumbent_with_tonights_index(root: Path, tmp_path: Path) -> None:
    old = models.system(tmp_path / "old", root, ROWS)
    same = models.index(tmp_path / "same", ROWS)
    assert "already" in refresh.run(old, same, tmp_path / "none", Work("refresh"))["absent"]
    fresh = models.index(tmp_path / "fresh", [section("a.md", "Pump", "The pump moves oil.")])
    refresh.run(old, fresh, tmp_path / "refresh", Work("refresh"))
    assert commit.sha256(tmp_path / "refresh" / "base" / "model.safetensors") == commit.sha256(
        old / "base" / "model.safetensors"
    )
    settings = json.loads((tmp_path / "refresh" / "system.json").read_text())
    assert settings["digests"]["index"] == commit.digest(fresh)
    assert commit.digest(tmp_path / "refresh") != commit.digest(old)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [({"winner", "refresh"}, "winner"), ({"refresh", "plain"}, "refresh"), ({"plain"}, "winner")],
)
def test_of_the_undecided_the_first_that_is_there_is_kept(there: set[str], wanted: str) -> None:
    undecided = [{"candidate": one, "verdict": "INCONCLUSIVE"} for one in ("winner", "refresh")]
    decided = {"verdict": "INCONCLUSIVE", "releases": None, "entries": undecided}
    assert release.held(decided, there) == (wanted, "INCONCLUSIVE")
