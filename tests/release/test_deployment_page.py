"""docs/deployment.md says what is: its commands run, its files exist, its patterns are the table's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nightshift.release import pattern
from tests.conftest import ROOT
from tests.release.project import Released

PAGE = (ROOT / "docs" / "deployment.md").read_text()


def blocks(kind: str) -> list[str]:
    """The page's blocks of a kind."""
    return re.findall(rf"```sh {kind}\n(.*?)```", PAGE, flags=re.S)


def run(project: Released, block: str, scratch: Path) -> None:
    """Run a block in the project, with the page's folder for scratch made that of the test."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    who = {f"GIT_{role}_{part}": "t@t" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    env = os.environ | who | {"PATH": path, "PYTHONPATH": str(project.folder / "include"), "NO_COLOR": "1"}
    words = ["bash", "-euo", "pipefail", "-c", block.replace("/tmp/nightshift-docs", str(scratch))]
    ended = subprocess.run(words, cwd=project.folder, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{block}\n{ended.stdout}{ended.stderr}"


def test_every_block_that_is_marked_runs(project: Released, tmp_path: Path) -> None:
    found = blocks("run")
    assert len(found) >= 7
    for block in found:
        run(project, block, tmp_path / "scratch")


@pytest.mark.long
def test_every_long_block_runs(project: Released, tmp_path: Path) -> None:
    found = blocks("run long")
    assert found
    for block in found:
        run(project, block, tmp_path / "scratch")
    assert (project.store.home / "releases" / project.release("v0.1.0").digest / "window.json").is_file()


def test_every_file_that_it_links_to_exists() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert linked
    assert [name for name in linked if not (ROOT / "docs" / name).exists()] == []


def test_its_patterns_are_the_tables() -> None:
    said = {one.strip().lower().replace(" ", "-") for one in re.findall(r"(?m)^\| ([\w -]+) \| (?!when|what)", PAGE)}
    table = {rule.is_ for rule in pattern.Table.read(ROOT / pattern.TABLE).lines["pattern"]}
    assert table <= said


def test_its_commands_are_there(project: Released) -> None:
    named = set(re.findall(r"nightshift release ([a-z-]+)", PAGE))
    shown = project.cli("release", "--help").stdout
    assert named
    assert [one for one in named if not re.search(rf"\b{one}\b", shown)] == []
