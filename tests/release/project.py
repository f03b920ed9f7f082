"""A project with two releases that can be served: real papers, a small model, DVC's cache, tags and signatures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from nightshift import commit, registry, signature
from nightshift.release import release
from nightshift.stage import Work
from nightshift.store import Store
from tests import models
from tests.conftest import ROOT
from tests.data.conftest import section

VERSIONS = ("v0.1.0", "v0.2.0")
ROWS: list[dict[str, Any]] = [
    section("pump.md", "Pump > Maintenance", "The pump is oiled every Monday by the keeper of the mill."),
    section("valve.md", "Valve > Colour", "The valve of the old well was painted green in spring."),
]
GATE = {
    "verdict": "GO",
    "releases": "plain",
    "entries": [{"candidate": "plain", "verdict": "GO", "reasons": ["Nothing was in production."]}],
}
TABLES = {"tables": {"unique": {"digest": "u" * 64, "rows": 2, "licences": {"CC0-1.0": 2}}}}


@dataclass(frozen=True)
class Released:
    """A project's folder; its home and state lie in it, as by default."""

    folder: Path

    @property
    def store(self) -> Store:
        """Where its releases are."""
        return Store(self.folder, self.folder / "var", self.folder / ".nightshift")

    def release(self, version: str) -> registry.Release:
        """The release of a version."""
        return registry.find(self.folder, version)

    def cli(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command of `nightshift` in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        env = kept | {"PYTHONPATH": str(self.folder / "include"), "NO_COLOR": "1", "COLUMNS": "200"} | environ
        command = [sys.executable, "-m", "nightshift.cli", *words]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def git(self, *words: str) -> str:
        """Git in it."""
        asked = ["git", "-C", str(self.folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def make(folder: Path) -> Released:
    """Make the project: v0.1.0 in prod, v0.2.0 in nothing yet."""
    made = Released(folder)
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    Repo.init(str(folder)).close()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for name in ("params.yaml", "requirements.txt", "versions.json", ".gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "include", folder / "include", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / ".gitignore").write_text((folder / ".gitignore").read_text().replace("/release\n", "/parts\n"))
    for number, version in enumerate(VERSIONS):
        _released(made, version, ROWS[: len(ROWS) - number])
    registry.assign(folder, made.release(VERSIONS[0]))
    return made


def _released(made: Released, version: str, rows: list[dict[str, Any]]) -> None:
    """One night: the release stage's papers around a small system, in the cache, signed and tagged."""
    parts = made.folder / "parts"
    models.system(parts / "plain", ROOT, rows)
    commit.absent(parts / "none", "nothing is in production")
    recipe = {"recipe": {"tables": {}}, "judged_against": None, "trained_on": {}}
    for name, said in {"gate.json": GATE, "recipe.json": recipe, "facts.json": TABLES}.items():
        commit.file(parts / name, commit.dumps(said))
    with commit.folder(parts / "catalogue") as draft:
        (draft / "croissant.json").write_text("{}")
    with commit.folder(parts / "judged") as draft:
        (draft / f"{commit.digest(parts / 'plain')}.golden.json").write_text("[]")
    out = made.folder / "release"
    names = ("gate.json", "recipe.json", "plain", "none", "plain", "judged", "catalogue", "facts.json")
    read = [parts / one for one in names]
    shutil.rmtree(out, ignore_errors=True)
    release.run(*read, out, Work("release"))
    with Repo(str(made.folder)) as repo:
        repo.add(str(out))
    made.git("add", "-A")
    made.git("commit", "-qm", f"Night of {version}")
    digest = commit.digest(out)
    made.git("tag", "-a", f"nightshift@{version}", "-m", registry.message(digest))
    signature.sign(out, made.store.signature(digest), made.store.home)
