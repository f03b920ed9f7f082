"""The lines by which Git ignores what DVC keeps: in a night's commit as in a work tree after `dvc repro`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_airflow.store import ignored
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_publish import publication

Make = Callable[..., Toy]

KINDS = """\
stages:
  one:
    cmd: mkdir -p sub && echo 1 > sub/one.txt && echo 2 > "a [b].txt"
    outs: [sub/one.txt, "a [b].txt"]
  two: {cmd: mkdir -p two && cp sub/one.txt two/x, deps: [sub/one.txt], outs: [two]}
  dir: {cmd: mkdir -p models && touch models/x, outs: [models]}
  three: {cmd: cp two/x three.txt && echo 3 > none.txt, deps: [two], outs: [three.txt, {none.txt: {cache: false}}]}
"""


def test_a_night_commits_the_lines_that_dvc_writes(toy: Make, tmp_path: Path) -> None:
    made = toy(KINDS)
    (made.root / "sub").mkdir()
    made.commit({".gitignore": "/three.*\nmodels/\n*.log", "sub/.gitignore": "# mine\n"})
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(made.root), str(other)], check=True)
    subprocess.run(["dvc", "repro", "-q"], cwd=other, check=True)
    night = publication(made, made.run("HEAD"))
    said = {name: made.git("show", f"{night.commit}:{name}") for name in (".gitignore", "sub/.gitignore")}
    assert said == {name: (other / name).read_text().rstrip("\n") for name in said}
    assert said[".gitignore"].splitlines() == ["/three.*", "models/", "*.log", r"/a \[b\].txt", "/two"]

    made.came = dict.fromkeys(made.known().stages, night.commit)
    assert not publication(made, made.run("HEAD")).new


def test_a_checkout_of_a_night_has_nothing_that_git_would_add(toy: Make) -> None:
    made = toy(KINDS)
    night = publication(made, made.run("HEAD"))
    made.git("checkout", "-q", night.commit)
    subprocess.run(["dvc", "checkout", "-q"], cwd=made.root, check=True)
    assert (made.root / "two/x").is_file()
    assert made.git("status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["a b", " a ", "a\\b", "[a]*?!#", "!a", "#a", "ä"])
def test_a_line_names_one_out_alone(name: str, toy: Make) -> None:
    made = toy()
    commit = made.commit(
        {".gitignore": ignored.lines(made.root, "HEAD", {name: False, f"deep/{name}": False})[".gitignore"].decode()}
    )
    assert ignored.those(made.root, commit, [name, "a", "ab", f"{name}x", f"deep/{name}"]) == {name}


def test_a_link_that_is_called_so_stays_one(toy: Make) -> None:
    made = toy("stages: {one: {cmd: mkdir -p s && echo 1 > s/x, outs: [s/x]}}\n")
    (made.root / "s").mkdir()
    (made.root / "s" / ".gitignore").symlink_to("../shared")
    made.commit({"shared": "*.log\n"})
    night = publication(made, made.run("HEAD"))
    assert made.git("ls-tree", night.commit, "s/.gitignore").startswith("120000 ")
