"""A night measures once in how long a text its release finds a planted fact, and never ends badly by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nightshift import engine, params, window
from nightshift.answer import System
from nightshift.errors import StorageError
from nightshift.release import certify
from tests.conftest import ROOT
from tests.release.project import Released
from tests.test_window import reader


@pytest.fixture
def clone(project: Released, tmp_path: Path) -> Path:
    """A clone of the commit of a night that released v0.2.0."""
    folder = tmp_path / "clone"
    (folder / "metrics").mkdir(parents=True)
    (folder / params.FILE).write_bytes((ROOT / params.FILE).read_bytes())
    said = {"digest": project.release("v0.2.0").digest, "released": True}
    (folder / "metrics" / "release.json").write_text(json.dumps(said))
    return folder


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the engines that were started, each of which finds what stands in the last 500 characters."""
    started: list[str] = []

    @contextmanager
    def start(folder: Path, threads: int, device: str, kind: str, cache: Path) -> Iterator[Any]:
        started.append(kind)
        yield SimpleNamespace(chat=reader(System.open(folder), lambda text: text[-500:]))

    monkeypatch.setattr(engine, "start", start)
    return started


def test_it_is_measured_once_and_said_by_the_endpoint(project: Released, clone: Path, starts: list[str]) -> None:
    said = certify.tonight(project.store, clone)
    assert said == {"window": {"certified": 512, "context": 1024, "reached": True}}
    assert window.effective(project.store.home, project.release("v0.2.0").digest, 1024) == 512
    assert certify.tonight(project.store, clone) == {}
    assert starts == ["openvino"]


@pytest.mark.parametrize("left_out", ["no budget", "never released"])
def test_nothing_is_measured_where_there_is_nothing_to_measure(
    left_out: str, project: Released, clone: Path, starts: list[str]
) -> None:
    if left_out == "no budget":
        path = clone / params.FILE
        path.write_text(path.read_text().replace("certify_tokens: 60000", "certify_tokens: 0"))
    else:
        (clone / "metrics" / "release.json").write_text('{"digest": null, "released": null}')
    assert certify.tonight(project.store, clone) == {}
    assert starts == []


def test_what_goes_wrong_is_said_and_undoes_nothing(
    project: Released, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*_: Any) -> None:
        raise StorageError("the engine did not start", "engine.log", "read it")

    monkeypatch.setattr(engine, "start", start)
    monkeypatch.chdir(clone)
    store = project.store
    places = {
        "DVC_AIRFLOW_REPOSITORY": store.repository,
        "NIGHTSHIFT_HOME": store.home,
        "NIGHTSHIFT_STATE": store.state,
    }
    for name, place in places.items():
        monkeypatch.setenv(name, str(place))
    certify.main()
    said, told = capsys.readouterr()
    assert json.loads(said)["window"]["why_not"] == "engine.log: the engine did not start; read it."
    assert told == "certify: engine.log: the engine did not start; read it.\n"
    assert not window.certified(store.home, project.release("v0.2.0").digest)
