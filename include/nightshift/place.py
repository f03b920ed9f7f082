"""Where a command stands: the project, and its places that are not outs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift import checkout
from nightshift.errors import RepositoryError

if TYPE_CHECKING:
    from nightshift.airflow import Airflow
    from nightshift.serve.local import Endpoint


@dataclass(frozen=True)
class Place:
    """The checkout, NIGHTSHIFT_STATE, NIGHTSHIFT_HOME and NIGHTSHIFT_SOURCES.

    `state` is a folder of this machine, `shared` the S3 prefix that all machines share instead; "" for none.
    """

    root: Path
    state: Path
    home: Path
    sources: Path
    shared: str = ""

    @classmethod
    def here(cls) -> Place:
        """The project that one stands in. Raises RepositoryError."""
        root = _top(Path.cwd())
        if not (root / "dvc.yaml").is_file():
            raise RepositoryError("there is no dvc.yaml", str(root), "go into the project's folder")
        checkout.same(root)
        state, shared = checkout.state(root)
        home, sources = checkout.folder("NIGHTSHIFT_HOME", root / "var"), checkout.folder("NIGHTSHIFT_SOURCES", root)
        return cls(root, state, home, sources, shared)

    @property
    def nights(self) -> Path | str:
        """Where nights are recorded: a folder or an S3 prefix."""
        return self.shared or self.state

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
        places = {"STATE": self.nights, "SCRATCH": self.state, "HOME": self.home, "SOURCES": self.sources}
        return dict(os.environ) | {"PATH": path} | {f"NIGHTSHIFT_{name}": str(at) for name, at in places.items()}


def _top(here: Path) -> Path:
    """The top of the repository that `here` is in. Raises RepositoryError, in Git's words where it has other ones."""
    asked = ["git", "-C", str(here), "rev-parse", "--show-toplevel"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}, check=False)
    except FileNotFoundError:
        raise RepositoryError("the command `git` is not there", "PATH", "install Git") from None
    if said.returncode == 0:
        return Path(said.stdout.removesuffix("\n"))
    if "not a git repository" in said.stderr:
        raise RepositoryError("this is not a Git repository", str(here), "go into the project's folder")
    raise RepositoryError(f"Git cannot use this repository ({said.stderr.strip()})", str(here), "do what Git says")
