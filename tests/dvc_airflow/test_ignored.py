"""The lines by which Git ignores what DVC keeps: in a night's commit as in a work tree after `dvc repro`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_engine.store.ignored import Ignored
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


@pytest.mark.parametrize("name", ["a b", " a ", "a\\b", "[a]*?!#", "!a", "#a", "ä", ":a", ":(foo)a", "-a"])
def test_a_line_names_one_out_alone(name: str, toy: Make) -> None:
    made = toy()
    outs = {name: False, f"deep/{name}": False}
    lines = Ignored(made.root, "HEAD").lines(outs)
    (made.root / "deep").mkdir()
    ignored = Ignored(made.root, made.commit({file: text.decode() for file, text in lines.items()}))
    assert ignored.those([name, "a", "ab", f"{name}x", f"deep/{name}", f"deep/{name}x"]) == {name, f"deep/{name}"}
    assert ignored.lines(outs) == {}


@pytest.mark.parametrize("cache", [True, False])
def test_what_lies_below_a_link_is_not_committed(cache: bool, toy: Make) -> None:
    """Git would have to put a folder in its place."""
    out = {"true": "data/x", "false": "{data/x: {cache: false}}"}[str(cache).lower()]
    made = toy(f"stages: {{one: {{cmd: echo 1 > data/x, outs: [{out}]}}}}\n")
    (made.root / "real").mkdir()
    (made.root / "data").symlink_to("real")
    made.commit({"real/kept": ""})
    night = publication(made, made.run("HEAD"))
    assert made.git("diff", "--name-only", "HEAD", night.commit) == "dvc.lock"


def test_a_link_that_is_called_so_stays_one(toy: Make) -> None:
    made = toy("stages: {one: {cmd: mkdir -p s && echo 1 > s/x, outs: [s/x]}}\n")
    (made.root / "s").mkdir()
    (made.root / "s" / ".gitignore").symlink_to("../shared")
    made.commit({"shared": "*.log\n"})
    night = publication(made, made.run("HEAD"))
    assert made.git("ls-tree", night.commit, "s/.gitignore").startswith("120000 ")
