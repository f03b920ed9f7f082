"""A graph is made once for the same weights, again when it was damaged, and the least used go."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nightshift import commit, graph
from tests import models


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The systems that graphs are made of; none is made in truth."""
    seen: list[Path] = []

    def run(words: list[str], check: bool) -> None:
        seen.append(Path(words[-2]))
        with commit.folder(Path(words[-1])) as draft:
            (draft / graph.GRAPH).write_text("a graph")

    monkeypatch.setattr(graph.subprocess, "run", run)
    return seen


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph") / "system"
    models.base(folder / "base")
    return folder


@pytest.fixture
def system(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "system")
    return tmp_path / "system"


def test_the_same_weights_make_one_graph(system: Path, tmp_path: Path, made: list[Path]) -> None:
    folder = graph.kept(system, tmp_path / "cache")
    (system / "prompt.yaml").write_text("another prompt")
    shutil.copytree(system, tmp_path / "elsewhere")
    assert graph.kept(tmp_path / "elsewhere", tmp_path / "cache") == folder
    assert made == [system]


@pytest.mark.parametrize("name", ["base/model.safetensors", "base/config.json", "adapter/adapter_config.json"])
def test_others_make_another(name: str, system: Path, tmp_path: Path, made: list[Path]) -> None:
    folder = graph.kept(system, tmp_path / "cache")
    (system / name).parent.mkdir(exist_ok=True)
    (system / name).write_text("another")
    assert graph.kept(system, tmp_path / "cache") != folder
    assert len(made) == 2


def test_a_damaged_one_is_made_again(system: Path, tmp_path: Path, made: list[Path]) -> None:
    folder = graph.kept(system, tmp_path / "cache")
    (folder / graph.GRAPH).write_text("half")
    assert (graph.kept(system, tmp_path / "cache") / graph.GRAPH).read_text() == "a graph"
    assert len(made) == 2


def test_the_least_used_go(system: Path, tmp_path: Path, made: list[Path]) -> None:
    folders = []
    for number in range(graph.KEPT + 1):
        (system / "base" / "config.json").write_text(str(number))
        folders.append(graph.kept(system, tmp_path / "cache"))
        os.utime(folders[-1], (number, number))
    (system / "base" / "config.json").write_text("one more")
    graph.kept(system, tmp_path / "cache")
    assert not folders[0].exists()
    assert sum(one.is_dir() for one in (tmp_path / "cache").iterdir()) == graph.KEPT


def test_one_that_cannot_be_made_leaves_nothing(system: Path, tmp_path: Path) -> None:
    (system / "base" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(subprocess.CalledProcessError):
        graph.kept(system, tmp_path / "cache")
    assert [one.name for one in (tmp_path / "cache").iterdir()] == ["lock"]
