"""Where a command stands: the project, and its places that are not outs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift.errors import ParamsError, RepositoryError

if TYPE_CHECKING:
    from nightshift.airflow import Airflow
    from nightshift.serve.local import Endpoint


@dataclass(frozen=True)
class Place:
    """The checkout, NIGHTSHIFT_STATE, NIGHTSHIFT_HOME and NIGHTSHIFT_SOURCES."""

    root: Path
    state: Path
    home: Path
    sources: Path

    @classmethod
    def here(cls) -> Place:
        """The project that one stands in. Raises RepositoryError."""
        asked = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
        root = Path(asked.stdout.strip())
        if asked.returncode != 0:
            raise RepositoryError("this is not a Git repository", str(Path.cwd()), "go into the project's folder")
        if not (root / "dvc.yaml").is_file():
            raise RepositoryError("there is no dvc.yaml", str(root), "go into the project's folder")
        return cls(
            root,
            _folder("NIGHTSHIFT_STATE", root / ".nightshift"),
            _folder("NIGHTSHIFT_HOME", root / "var"),
            _folder("NIGHTSHIFT_SOURCES", root),
        )

    def airflow(self) -> Airflow:
        """The project's own Airflow."""
        from nightshift.airflow import Airflow

        return Airflow(self.root, self.environ())

    def endpoint(self) -> Endpoint:
        """The project's own endpoint."""
        from nightshift.serve.local import Endpoint

        return Endpoint(self.root, self.state, self.environ())

    def environ(self) -> dict[str, str]:
        """The environment for processes of this project: its commands first, its places said."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        places = {"STATE": self.state, "HOME": self.home, "SOURCES": self.sources}
        return dict(os.environ) | {"PATH": path} | {f"NIGHTSHIFT_{name}": str(at) for name, at in places.items()}


def port(variable: str, default: int) -> int:
    """A port from the environment. Raises ParamsError for what is none."""
    said = os.environ.get(variable, str(default))
    if not said.isdigit() or not 1 <= int(said) <= 65_534:
        raise ParamsError(f"{said!r} is not a port", variable, "give a number from 1 to 65534")
    return int(said)


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).resolve()
