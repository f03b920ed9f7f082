"""Projects as people write them (projects/*.yaml), each run both ways: to the same tasks, edges and lock files.

A document has `files`, `tasks` (name → what it rests on), and where it needs them `folder` (of the project in its
repository), `add` and `import` (tracked and imported data), `other` (files of another repository, to import from),
`submodule` (where that lies then), `links` (name → where it leads), `datasets` (that dvc.lock names) and `freeze`
(stages that are frozen for a second night).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from dvc_engine.git import git, top
from dvc_engine.night.publish import cached
from dvc_engine.pipeline import lock
from dvc_engine.stage import start
from dvc_engine.stage.outcome import Result
from dvc_engine.stage.settled import settled
from dvc_engine.store import uncached, workspace
from dvc_engine.store.commit import Commit
from dvc_engine.store.ignored import Ignored
from tests.dvc_airflow.conftest import Toy, repository
from tests.served import serving

HERE = Path(__file__).parent / "projects"
PROJECTS: dict[str, Mapping[str, Any]] = {
    one["name"]: one for path in sorted(HERE.glob("*.yaml")) for one in YAML(typ="safe").load_all(path) if one
}


@pytest.fixture(params=PROJECTS)
def said(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    return PROJECTS[request.param]


@pytest.fixture
def made(said: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The project, committed."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "source").write_text("from outside")
    if other := said.get("other"):
        Toy(repository(outside / "other", other)).commit({})
    handler = partial(SimpleHTTPRequestHandler, directory=str(outside))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        files = {
            name: text.replace("OUTSIDE", str(outside)).replace("URL", url) for name, text in said["files"].items()
        }
        root = repository(tmp_path / "repository", files, said.get("folder", ""))
        for name, target in said.get("links", {}).items():
            (root / name).symlink_to(target)
        monkeypatch.chdir(root)
        with Repo(str(root)) as repo:
            for path in said.get("add", []):
                repo.add(path)
            for path, source in said.get("import", {}).items():
                if other:
                    repo.imp(str(outside / "other"), source, out=path)
                else:
                    repo.imp_url(source.replace("OUTSIDE", str(outside)), path)
            if module := said.get("submodule"):
                git(root, "-c", "protocol.file.allow=always", "submodule", "add", str(outside / "other"), module)
            for name in said.get("datasets", []):
                repo.datasets.update(name)
        toy = Toy(root)
        toy.commit({})
        yield toy


def test_both_ways_lead_to_the_same(said: Mapping[str, Any], made: Toy, tmp_path: Path) -> None:
    """Tasks and edges, lock files and outs, and what a second night runs."""
    _tasks_and_edges(said, made)
    _nights(said, made, tmp_path)


def _tasks_and_edges(said: Mapping[str, Any], made: Toy) -> None:
    from dvc_airflow import DvcDag

    with Repo(str(made.root)) as repo:
        graph = repo.index.graph
        stages = {one.addressing for one in graph}
        edges = {(above.addressing, one.addressing) for one, above in graph.edges}
    known = made.known()
    assert {one.name for one in known.every} == stages
    assert {(above, one.name) for one in known.every for above in one.above} == edges
    dag = DvcDag("made", made.root)
    tasks = [task for task in dag.tasks if hasattr(task, "stage")]
    names = {task.task_id: task.stage for task in tasks}
    assert {
        task.stage: {names[one] for one in task.upstream_task_ids if one in names} for task in tasks
    } == {name: set(above) for name, above in said["tasks"].items()}  # fmt: skip


def _nights(said: Mapping[str, Any], made: Toy, tmp_path: Path) -> None:
    copy = tmp_path / "by-dvc"
    shutil.copytree(top(made.root)[0], copy, symlinks=True)
    other = copy / said.get("folder", "")
    assert start.lacking(made.known(), made.night("HEAD").pinned) is None
    first = made.run("HEAD")
    assert {one.outcome for one in first.values()} == {"ran"}, [one.sentence for one in first.values()]
    assert set(by_dvc(other)) == set(first)
    assert _locks(made, first) == {name: (other / name).read_text() for name in _locks(made, first)}
    for path, content in _uncached(made, first).items():
        assert content == (other / path).read_bytes()
    asked = ["ls-files", "-z", "--modified", "--others", "--exclude-standard", "--", ":(glob)**/.gitignore"]
    changed = git(copy, *asked).split("\0")
    assert {name: (copy / name).read_bytes() for name in changed if name} == _lines(made, first)

    made.came = dict.fromkeys(first, made.commit({}))
    if frozen := said.get("freeze"):
        for root in (made.root, other):
            text = (root / "dvc.yaml").read_text()
            for name in frozen:
                text = text.replace(f"{name}: {{", f"{name}: {{frozen: true, ")
            (root / "dvc.yaml").write_text(text)
            (root / "seed").write_text("8")
    commit = made.commit({})
    before = settled(made.night(commit), made.known(), tmp_path / "clones")  # as the pin tells
    second = made.run(commit)
    assert {name: one.entry for name, one in before.items()}.items() <= {
        name: one.entry for name, one in second.items() if one.outcome == "unchanged"
    }.items()
    assert {one.outcome for one in second.values()} <= {"ran", "unchanged"}, [one.sentence for one in second.values()]
    assert {name for name, one in second.items() if one.outcome == "ran"} == set(by_dvc(other))
    assert _locks(made, second) == {name: (other / name).read_text() for name in _locks(made, second)}


def by_dvc(root: Path, *targets: str, single: bool = False) -> list[str]:
    """The stages that `dvc repro` runs of a whole project, or for these stages, or of these alone."""
    before = Path.cwd()
    os.chdir(root)
    try:
        with Repo(str(root)) as repo:
            done = repo.reproduce(list(targets) or None, all_pipelines=not targets, single_item=single)
            return [stage.addressing for stage in done if stage.cmd]
    finally:
        os.chdir(before)


def _locks(made: Toy, results: Mapping[str, Result]) -> dict[str, str]:
    entries = {name: one.entry for name, one in results.items() if one.entry}
    here, folder = top(made.root)
    return lock.files(made.known(), entries, Commit(here, "HEAD", folder).content)


def _lines(made: Toy, results: Mapping[str, Result]) -> dict[str, bytes]:
    here, _ = top(made.root)
    entries = {name: one.entry for name, one in results.items() if one.entry}
    return Ignored(here, "HEAD").lines(cached(made.night("HEAD"), made.known(), entries))


def _uncached(made: Toy, results: Mapping[str, Result]) -> dict[str, bytes]:
    known, found = made.known(), dict[str, bytes]()
    for name, result in results.items():
        md5 = lock.hashes(known.stages[name], result.entry or {}, "outs")
        for out in known.stages[name].uncached:
            held = uncached.files(out, md5[out], workspace.cache_of(made.root))
            found |= {path: place.read_bytes() for path, place in held}
    return found


def test_there_are_forty() -> None:
    assert len(PROJECTS) >= 40
