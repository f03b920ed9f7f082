"""A tiny real DVC project, and a night in it without Airflow."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_airflow import reading, workspace
from dvc_airflow.attempt import Attempt
from dvc_airflow.outcome import Night, Result

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


@dataclass
class Toy:
    """A DVC project in a folder of its own."""

    root: Path
    entries: dict[str, object] = field(default_factory=dict)
    came: dict[str, str] = field(default_factory=dict)

    def git(self, *words: str) -> str:
        return workspace.git(self.root, *words)

    def commit(self, files: Mapping[str, str]) -> str:
        for name, text in files.items():
            (self.root / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def night(self, commit: str) -> Night:
        return Night(str(self.root), commit, workspace.tags(self.root), dict(self.entries), dict(self.came), "night")

    def attempt(self, stage: str, night: Night, above: Mapping[str, Result], number: int = 1) -> Attempt:
        known = reading.read(self.root)

        def results(stages: list[str]) -> dict[str, Result]:
            return {name: above[name] for name in stages if name in above}

        return Attempt(night, known, stage, results, self.root / ".dvc/tmp/clones", {}, number)

    def run(self, commit: str) -> dict[str, Result]:
        """All stages in order; what ended well is remembered for the next night."""
        night, results = self.night(commit), dict[str, Result]()
        for stage in reading.read(self.root).order:
            results[stage] = self.attempt(stage, night, results).run()
            if not results[stage].well:
                break
        self.entries = {name: result.entry for name, result in results.items() if result.well}
        return results


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Toy]:
    """Make a toy project; further files and another dvc.yaml may be given."""

    def make(dvc_yaml: str = DVC_YAML, **files: str) -> Toy:
        root = tmp_path / "toy"
        root.mkdir()
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
        Repo.init(str(root)).close()
        made = Toy(root)
        made.git("config", "user.name", "toy")
        made.git("config", "user.email", "toy@example.org")
        made.commit({"dvc.yaml": dvc_yaml, "params.yaml": "total: {by: 1}\n", "seed.txt": "7", **files})
        return made

    return make
