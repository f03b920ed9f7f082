"""Where a command stands: the project, and its places that are not outs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift import checkout
from nightshift.errors import AccessDenied, ParamsError, PortInUse, RepositoryError

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
        root = _top(Path.cwd())
        if not (root / "dvc.yaml").is_file():
            raise RepositoryError("there is no dvc.yaml", str(root), "go into the project's folder")
        checkout.same(root)
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


def free(port: int, do: str) -> None:
    """Raises PortInUse when something listens there, AccessDenied when one may not."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except PermissionError:
            raise AccessDenied("only root may listen there", f"127.0.0.1:{port}", "choose a port over 1023") from None
        except OSError:
            raise PortInUse("something else listens there", f"127.0.0.1:{port}", do) from None


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


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).resolve()
