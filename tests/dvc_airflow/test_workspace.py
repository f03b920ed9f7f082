"""A clone is set up as its project is: what DVC's configuration says there holds in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config
from dvc.config_schema import REMOTE_SCHEMAS

from dvc_engine.git import GitError, git
from dvc_engine.night import publish
from dvc_engine.store import objects, params, repository, snapshot, workspace
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.conftest import repository as files_of

Make = Callable[..., Toy]


@pytest.mark.parametrize("text", ["[core\n", "core = 1\n", "[cache]\n    dir = %(no)s\n", "\udcff"])
def test_a_configuration_that_cannot_be_read_is_told_with_its_file(text: str, toy: Make) -> None:
    made = toy()
    file = made.root / ".dvc" / "config.local"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(OSError, match="DVC cannot read its configuration") as error:
        workspace.cache_of(made.root)
    assert error.value.filename == str(file)


def test_a_path_of_the_configuration_leads_from_a_clone_where_it_leads_from_the_project(toy: Make) -> None:
    made = toy()
    keys = dvc_paths({key: "x" for kind in REMOTE_SCHEMAS.values() for key in map(str, kind)})
    (made.root / ".dvc" / "config.local").write_text(
        "".join([f"['remote \"{key}\"']\n    {key} = ../keys/it\n" for key in sorted(keys)])
    )
    clone = workspace.make(made.root, "HEAD", made.root.parent / "job", {}, made.root / ".dvc" / "cache")
    there, here = (Config(str(root / ".dvc"), validate=False).read()["remote"] for root in (clone, made.root))
    assert there == here
    assert keys == set(workspace.PATHS)
    workspace.remove(made.root.parent / "job")


def dvc_paths(options: dict[str, str]) -> set[str]:
    """Those of a remote's options that DVC takes for paths."""
    found: Any = Config._map_dirs({"remote": {"r": options}}, lambda path: f"at {path}")
    return {key for key, value in found["remote"]["r"].items() if value != options[key]}


def test_configuration_is_read_and_written_as_by_dvc(toy: Make) -> None:
    made = toy()
    odd = made.root.parent / "Zoë's, my #1"
    made.root.rename(odd)
    said = '[core]\n    remote = "r"  # which\n[cache]\n    dir = "../my cache"\n'
    (odd / ".dvc" / "config").write_text(f'{said}[\'remote "r"\']\n    url = "../../store"\n')
    assert workspace.cache_of(odd) == odd / "my cache"
    assert workspace.remote_of(odd) == "r"
    clone = workspace.make(odd, "HEAD", odd / "job", {}, workspace.cache_of(odd))
    for root in (odd, clone):
        config = Config(str(root / ".dvc"))
        assert config["cache"]["dir"] == str(odd / "my cache")
        assert config["remote"]["r"]["url"] == str(odd.parent / "store")
    workspace.remove(odd / "job")


@pytest.mark.parametrize(
    ("variable", "folder"), [("DVC_GLOBAL_CONFIG_DIR", ""), ("XDG_CONFIG_HOME", "dvc"), ("HOME", ".config/dvc")]
)
def test_a_persons_own_configuration_is_found_where_dvc_finds_it(
    variable: str, folder: str, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DVC_GLOBAL_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    (tmp_path / "own" / folder).mkdir(parents=True)
    (tmp_path / "own" / folder / "config").write_text(f"[cache]\n    dir = {tmp_path}/shared\n")
    root = toy().root
    assert workspace.cache_of(root) == tmp_path / "shared" == Path(Config(str(root / ".dvc"))["cache"]["dir"])


def test_a_shallow_checkout_runs_what_no_branch_holds(toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: cp seed.txt x, deps: [seed.txt], params: [total], outs: [x]}\n")
    made.commit({"seed.txt": "8"})
    here = Toy(made.root.parent / "here")
    git(made.root, "clone", "-q", "--depth", "1", f"file://{made.root}", str(here.root))
    for key, value in [("user.name", "toy"), ("user.email", "toy@example.org")]:
        here.git("config", key, value)
    (here.root / "seed.txt").write_text("9")
    commit, record = snapshot.take(here.root), repository.of(here.root)
    assert here.git("rev-list", "--count", commit) == "2"
    results = here.run(params.override(here.root, commit, {"total.by": 2}))
    assert {one.outcome for one in results.values()} == {"ran"}
    pinned = here.pinned(commit, record)
    done = publish.publish(pinned, here.known(), results, record, None, {}, here.root / ".dvc/tmp/clones")
    assert here.git("show", f"{record.branch}:seed.txt") == "9", done.refused


WITH_SUBMODULES = "stages:\n  one: {cmd: cat lib/lib lib/below/deep > x, deps: [lib], outs: [x]}\n"


@pytest.mark.parametrize("own", [False, True])
def test_a_clone_has_submodules_and_theirs(own: bool, toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _with_submodules(toy)
    if own:  # which Git fetches from where they are named to be
        _may_be_files(monkeypatch)
        made = _followed(made)
    result = made.run("HEAD")["one"]
    assert result.outcome == "ran", result.sentence
    assert objects.place(workspace.cache_of(made.root), (result.entry or {})["outs"][0]["md5"]).read_text() == "12"


def test_a_checkout_of_the_engine_follows_a_submodule_to_where_it_lies_now(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _may_be_files(monkeypatch)
    made = _with_submodules(toy)
    theirs = _followed(made).root
    moved = made.root.parent / "moved"
    (made.root.parent / "lib").rename(moved)
    Toy(moved).commit({"lib": "3"})
    git(made.root / "lib", "pull", "-q", str(moved), "main")
    made.git("submodule", "--quiet", "set-url", "lib", str(moved))
    commit = made.commit({})
    (theirs / "lib" / "lib").write_text("left over")
    record = Repository(theirs, "nights", "refs/nights", str(made.root), own=True)
    record.follow(record.newest(commit))
    assert (theirs / "lib" / "lib").read_text() == "3"
    assert (theirs / "lib" / "below" / "deep").read_text() == "2"


def test_a_submodule_that_cannot_be_fetched_ends_the_attempt_with_what_git_says(toy: Make) -> None:
    made = _with_submodules(toy)  # Git takes none of a file's address, unless it is told to
    with pytest.raises(GitError, match="transport 'file' not allowed"):
        _followed(made)


def test_a_repository_that_no_gitmodules_names_is_left_out(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _may_be_files(monkeypatch)
    made = _with_submodules(toy)
    Toy(files_of(made.root / "bare", {"x": "1"})).commit({})
    made.commit({})
    theirs = _followed(made)
    assert sorted(path.name for path in (theirs.root / "bare").iterdir()) == []
    assert theirs.run("HEAD")["one"].outcome == "ran"


def _with_submodules(toy: Make) -> Toy:
    """A project with a submodule, in which another one is."""
    made = toy(WITH_SUBMODULES)
    deep, lib = (Toy(files_of(made.root.parent / name, {name: text})) for name, text in [("deep", "2"), ("lib", "1")])
    deep.commit({})
    module = ["-c", "protocol.file.allow=always", "submodule", "--quiet"]
    lib.git(*module, "add", str(deep.root), "below")
    lib.commit({})
    made.git(*module, "add", str(lib.root), "lib")
    made.git(*module, "update", "--init", "--recursive")
    made.commit({})
    return made


def _followed(made: Toy) -> Toy:
    """The engine's own checkout of a project, at its commit."""
    place = made.root.parent / "worker"
    repository.checked_out(place, str(made.root))
    Repository(place, "nights", "refs/nights", str(made.root), own=True).follow(made.git("rev-parse", "HEAD"))
    return Toy(place)


def _may_be_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Git fetch submodules from folders, as a user's configuration may."""
    for name, value in {"COUNT": "1", "KEY_0": "protocol.file.allow", "VALUE_0": "always"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
