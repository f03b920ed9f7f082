"""Files of a project at one commit, read from Git without a work tree."""

from __future__ import annotations

import posixpath
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any


class Commit:
    """One commit, and a project in it.

    Args:
        folder: of the project in the repository; paths are relative to it.
    """

    def __init__(self, repository: Path, commit: str, folder: str = "") -> None:
        self.repository, self.commit, self.folder = repository, commit, folder
        self._params: dict[str, Any] = {}

    def content(self, path: str) -> bytes | None:
        """The bytes of a file at this commit; None where there is no such file, or it is a folder."""
        at = posixpath.normpath(posixpath.join(self.folder, path))
        asked = ["git", "-C", str(self.repository), "cat-file", "blob", f"{self.commit}:{at}"]
        shown = subprocess.run(asked, capture_output=True, check=False)
        return shown.stdout if shown.returncode == 0 else None

    def params(self, file: str) -> Any:
        """A params file as data: YAML 1.2 or JSON. None for a format that only DVC reads, and for a missing file."""
        if file not in self._params:
            content = self.content(file)
            self._params[file] = None if content is None else parsed(file, content)
        return self._params[file]


def parsed(file: str, content: bytes) -> Any:
    """A params file as data; None for a format that only DVC reads."""
    from ruamel.yaml import YAML

    known = PurePosixPath(file).suffix in (".yaml", ".yml", ".json")
    return YAML(typ="safe").load(content.decode()) if known else None
