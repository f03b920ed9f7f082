"""A copy of this checkout as a project of its own, and its commands, as a person would type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from nightshift import port

ROOT = Path(__file__).resolve().parents[2]
BRANCH = "nightly"


@dataclass
class Project:
    """A project folder, and the environment that its commands run in."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """A command of `nightshift`."""
        command = [sys.executable, "-m", "nightshift.cli", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command of `nightshift`, not waited for; it leads a process group."""
        command = [sys.executable, "-m", "nightshift.cli", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environ, start_new_session=True, **pipes)

    def night(self) -> dict[str, Any]:
        """night.json of the last night."""
        said = self.run("night", "--json")
        assert said.returncode == 0, said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def git(self, *words: str) -> str:
        """Git in the project."""
        asked = ["git", "-C", str(self.folder), *words]
        return subprocess.run(asked, env=self.environ, capture_output=True, text=True, check=True).stdout.strip()

    def tip(self) -> str:
        """The commit that the branch of nights is at."""
        return self.git("rev-parse", BRANCH)

    def lock(self) -> dict[str, Any]:
        """The entries of the last published night."""
        found: dict[str, Any] = YAML(typ="safe").load(self.git("show", f"{BRANCH}:dvc.lock"))["stages"]
        return found

    def params(self, text: str, instead: str) -> None:
        """Change params.yaml, and commit."""
        path = self.folder / "params.yaml"
        said = path.read_text()
        assert text in said
        path.write_text(said.replace(text, instead, 1))
        self.git("commit", "-qam", "Change params")


def make(folder: Path, home: Path, **environ: str) -> Project:
    """Copy what Git would commit of this checkout, and commit it there."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "AIRFLOW", "DVC_"))
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    ports = {"NIGHTSHIFT_AIRFLOW_PORT": str(unused()), "NIGHTSHIFT_PORT": str(unused())}
    settings = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "telemetry.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    who = {f"GIT_{role}_{part}": "test" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    about = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(folder / "include")}
    project = Project(folder, kept | settings | ports | who | about | environ)
    project.git("init", "-q", "-b", "main")
    project.git("add", "-A")
    project.git("commit", "-qm", "The project")
    return project


def unused() -> int:
    """A port that is free, and the next one too."""
    return port.unused(2)
