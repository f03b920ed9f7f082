"""A tiny real DVC project, and a night in it without Airflow."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dvc.repo import Repo

from dvc_engine.git import git, tags_of, top
from dvc_engine.pipeline import kept, reading, selection
from dvc_engine.pipeline.project import Project
from dvc_engine.stage import process
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.store.history import Known
from dvc_engine.store.repository import Repository

DVC_YAML = """\
stages:
  numbers:
    cmd: python -c "open('numbers.txt','w').write('1 2 3')"
    deps: [seed.txt]
    outs: [numbers.txt]
  total:
    cmd: >-
      python -c "import json; n = sum(map(int, open('numbers.txt').read().split()));
      open('total.txt', 'w').write(str(n)); json.dump({'total': n}, open('total.json', 'w'))"
    deps: [numbers.txt]
    params: [total]
    outs: [total.txt]
    metrics: [{total.json: {cache: false}}]
  each:
    foreach: [a, b]
    do:
      cmd: cp total.txt each-${item}.txt
      deps: [total.txt]
      outs: ["each-${item}.txt"]
"""


class Forked:
    """A child as `process.spawn` starts one, but forked: DVC is imported here already, which takes half a second.

    It holds the write end of its own leash too: a test in which the task dies is marked `spawned`.
    """

    def __init__(self, folder: Path, reads: int, env: Mapping[str, str]) -> None:
        from dvc_engine.stage import child, leash

        told, tells = os.pipe()
        self.pid, self.stdin = os.fork(), os.fdopen(tells, "wb")
        if self.pid:
            os.close(told)
            return
        code = 1
        try:
            self.stdin.close()
            os.dup2(told, 0)
            os.setsid()
            os.environ.clear()
            os.environ.update(env)
            with leash.held(reads, whole=True):
                code = child.main(str(folder))
        finally:
            os._exit(code)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(autouse=True)
def forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are forked, unless a test is marked `spawned`."""
    if not request.node.get_closest_marker("spawned"):
        monkeypatch.setattr(process, "spawn", Forked)


@pytest.fixture(autouse=True)
def installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Variable of an Airflow that is not there."""
    monkeypatch.setenv("AIRFLOW_VAR_DVC_AIRFLOW_INSTALLATION", "of-a-test")


def repository(folder: Path, files: Mapping[str, str], below: str = "") -> Path:
    """A Git repository with these files, and a DVC project in a folder of it; returns the project's."""
    root = folder / below
    shutil.copytree(_initialised(below).name, folder, symlinks=True, dirs_exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@cache
def _initialised(below: str) -> TemporaryDirectory[str]:
    """What is copied for each of many hundred tests, in a tenth of the time that it takes to make."""
    made = TemporaryDirectory(prefix="dvc-project-")
    root = Path(made.name, below)
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", made.name)
    for key, value in [("user.name", "toy"), ("user.email", "toy@example.org")]:
        git(root, "config", key, value)
    Repo.init(str(root), subdir=bool(below)).close()
    return made


def at_once(number: int, call: Callable[[], object]) -> list[Exception]:
    """What goes wrong where so many threads do the same together."""
    failed = list[Exception]()

    def one() -> None:
        try:
            call()
        except Exception as error:
            failed.append(error)

    together = [threading.Thread(target=one) for _ in range(number)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    return failed


@dataclass
class Toy:
    """A DVC project in a folder of its own."""

    root: Path
    entries: dict[str, object] = field(default_factory=dict)
    came: dict[str, str] = field(default_factory=dict)
    select: list[str] = field(default_factory=list)

    def git(self, *words: str) -> str:
        return git(self.root, *words)

    def commit(self, files: Mapping[str, str]) -> str:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def learn(self, known: Known) -> None:
        """Begin the next night with the newest of these entries."""
        self.entries = {name: entries[0][0] for name, entries in known.items()}
        self.came = {name: entries[0][1] for name, entries in known.items()}

    def known(self) -> Project:
        return selection.narrowed(reading.read(self.root, kept.folder(self.root)), self.select, [])

    def night(self, commit: str) -> Night:
        here, folder = top(self.root)
        commit = self.git("rev-parse", commit)
        known = {name: [(entry, self.came.get(name))] for name, entry in self.entries.items()}
        return Night(str(here), commit, tags_of(here), known, "night", folder)  # type: ignore[arg-type]

    def pinned(self, commit: str, record: Repository) -> Night:
        """The night, which knows where its branch is."""
        return replace(self.night(commit), tip=record.tip)

    def attempt(self, stage: str, night: Night, above: Mapping[str, Result], number: int = 1) -> Attempt:
        known = self.known()

        def results(stages: list[str]) -> dict[str, Result]:
            kept = {
                name: Result(name, "unchanged", entry=night.entries[name])
                for name in stages
                if name in night.entries and not known.stages[name].selected
            }
            return kept | {name: above[name] for name in stages if name in above}

        return Attempt(night, known, stage, results, self.root / ".dvc/tmp/clones", {}, number)

    def run(self, commit: str, before: Callable[[], object] = bool) -> dict[str, Result]:
        """All stages in order, night and results by JSON; what ended well is remembered for the next night.

        Args:
            before: is called before each stage.
        """
        night, results = Night.loads(self.night(commit).dumps()), dict[str, Result]()
        known = self.known()
        for stage in (one for one in known.order if known.stages[one].selected):
            before()
            said = self.attempt(stage, night, results).run().as_json()
            results[stage] = Result.of(json.loads(json.dumps(said)))
            if not results[stage].well:
                break
        self.entries = {name: result.entry for name, result in results.items() if result.well}
        return results


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Toy]:
    """Make a toy project; further files and another dvc.yaml may be given."""

    def make(dvc_yaml: str = DVC_YAML, **files: str) -> Toy:
        made = Toy(repository(tmp_path / "toy", {}))
        made.commit({"dvc.yaml": dvc_yaml, "params.yaml": "total: {by: 1}\n", "seed.txt": "7", **files})
        return made

    return make


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Configure an Airflow with these executors."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.executors import executor_loader

    def configure(executors: str) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executors)
        for name in ("_alias", "_module", "_classname"):
            getattr(executor_loader, f"{name}_to_executors_per_team").clear()
        executor_loader._team_name_to_executors.clear()
        executor_loader._executor_names.clear()

    return configure
