"""A clone is set up as its project is: what DVC's configuration says there holds in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config
from dvc.config_schema import REMOTE_SCHEMAS

from dvc_engine.git import git
from dvc_engine.night import publish
from dvc_engine.store import params, repository, snapshot, workspace
from tests.dvc_airflow.conftest import Toy

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
