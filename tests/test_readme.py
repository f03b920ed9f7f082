"""The README says what is: its commands are the Makefile's, its folders exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documented import blocks_run


def test_every_make_command_is_a_target(root: Path) -> None:
    readme = (root / "README.md").read_text()
    targets = set(re.findall(r"(?m)^([a-z-]+):", (root / "Makefile").read_text()))
    named = set(re.findall(r"make ([a-z-]+)", "\n".join(re.findall(r"```sh\b.*?\n(.*?)```", readme, flags=re.S))))
    assert named
    assert named <= targets


def test_every_folder_that_it_names_exists(root: Path) -> None:
    named = re.findall(r"(?m)^\| `([^`]+)`", (root / "README.md").read_text())
    assert named
    assert [name for name in named if not (root / name).exists()] == []


def test_ci_runs_the_readmes_test_command(root: Path) -> None:
    assert "make test" in (root / "README.md").read_text()
    assert "make test" in (root / ".ci" / "run").read_text()


def test_every_file_that_it_links_to_exists(root: Path) -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", (root / "README.md").read_text())
    assert [name for name in linked if not (root / name).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/endpoint.md"])
def test_every_block_that_is_marked_runs(page: str, root: Path, tmp_path: Path) -> None:
    blocks_run((root / page).read_text(), tmp_path)


def test_the_night_that_it_shows_is_the_benchmarks(root: Path) -> None:
    shown = re.findall(r"```text\n(.*?)```", (root / "README.md").read_text(), flags=re.S)
    assert (root / "bench" / "night.txt").read_text() in shown
