"""`python -m dvc_airflow graph` and `check`: one project, by whatever path one came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_airflow.__main__ import main
from dvc_airflow.pipeline import kept
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


def test_a_project_behind_a_link_is_the_same_one(toy: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, link = toy(), tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(made.root)
    for places in ([link, made.root], [made.root, link]):
        shutil.rmtree(kept.folder(made.root), ignore_errors=True)
        for place in places:
            assert main(["check", str(place)]) == 0
            assert main(["graph", str(place)]) == 0
    said = capsys.readouterr()
    graphs = {line for line in said.out.splitlines() if line}
    assert len(graphs) == 1
    assert json.loads(graphs.pop())["stages"] == list(made.known().stages)
