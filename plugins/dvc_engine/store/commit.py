"""Files of a project at one commit, read from Git without a work tree."""

from __future__ import annotations

import os
import posixpath
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from dvc_engine.git import GITLINK, GitError, git, shown
from dvc_engine.pipeline.project import within
from dvc_engine.store import objects

LINK = "120000"  # and of a link
BEYOND = (LINK, GITLINK)  # it lists nothing that lies below
LONGEST_WAY = 40  # links in a row, as in Linux

_reading: dict[tuple[Path, int], subprocess.Popen[bytes]] = {}  # of this process: a fork has its own
_one = threading.Lock()


def _blob(repository: Path, name: str) -> bytes | None:
    """A blob by its name; None for what is none. One process of Git answers all: a night asks for thousands.

    Raises GitError where it died, by the kernel's hand say: of a file that is not there Git says so.
    """
    with _one:
        asked = _reader(repository)
        assert asked.stdin is not None
        assert asked.stdout is not None
        said = content = b""
        with suppress(BrokenPipeError):
            asked.stdin.write(os.fsencode(f"{name}\n"))
            asked.stdin.flush()
            said = asked.stdout.readline()
        if said.endswith((b" missing\n", b" ambiguous\n")):
            return None
        if said.endswith(b"\n"):
            *_, kind, size = said.split()
            content = asked.stdout.read(int(size) + 1)
        if not content.endswith(b"\n") or len(content) <= int(size):
            raise GitError(f"git cat-file: it ended before it had said what {shown(name)} is")
        return content[:-1] if kind == b"blob" else None  # a link that leads nowhere, or out of the repository, is none


def _reader(repository: Path) -> subprocess.Popen[bytes]:
    """Git's `cat-file --batch` in a repository; those of others end."""
    key = (repository, os.getpid())
    if key not in _reading or _reading[key].poll() is not None:
        for (_, process), other in list(_reading.items()):
            if process == os.getpid():
                other.communicate()  # it ends with its input
        _reading.clear()
        asked = ["git", "-C", str(repository), "cat-file", "--batch", "--follow-symlinks"]
        pipe = subprocess.PIPE
        _reading[key] = subprocess.Popen(asked, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    return _reading[key]


@lru_cache(4096)  # many stages may read one file
def _filtered(repository: Path, name: str) -> str | None:
    asked = ["git", "-C", str(repository), "cat-file", "--filters", name]
    ended = subprocess.run(asked, capture_output=True, check=False)
    return objects.md5(ended.stdout) if ended.returncode == 0 else None


@lru_cache(4096)  # many stages may read one folder
def _object(repository: Path, name: str) -> str | None:
    with suppress(GitError):
        return git(repository, "rev-parse", "--verify", "--quiet", name)
    return None


class Commit:
    """One commit, and a project in it.

    Args:
        folder: of the project in the repository; paths are relative to it.
    """

    def __init__(self, repository: Path, commit: str, folder: str = "") -> None:
        self.repository, self.commit, self.folder = repository, commit, folder
        self._params: dict[str, Any] = {}

    @cached_property
    def modes(self) -> Mapping[str, str]:
        """Path in the repository → Git's mode, of every file, link and submodule."""
        listed = git(self.repository, "ls-tree", "-r", "-z", "--full-tree", self.commit).split("\0")
        return {path: about.partition(" ")[0] for about, _, path in (one.partition("\t") for one in listed if one)}

    def content(self, path: str) -> bytes | None:
        """The bytes of a file at this commit; None where there is no such file, or it is a folder."""
        name = self._name(path)
        return _blob(self.repository, name) if name else None

    def behind(self, path: str) -> str | None:
        """Where a path leads by Git's links, itself if by none; None for what is no path in the repository."""
        for _ in range(LONGEST_WAY):
            at = posixpath.normpath(posixpath.join(self.folder, path))
            if at in (".", "..") or at.startswith(("/", "../")):
                break
            if (link := next((one for one in within(at) if self.modes.get(one) == LINK), None)) is None:
                return path
            to = git(self.repository, "cat-file", "blob", f"{self.commit}:{link}")
            led = posixpath.normpath(posixpath.join(posixpath.dirname(link), to, posixpath.relpath(at, link)))
            path = posixpath.relpath(led, self.folder) if self.folder and not led.startswith("/") else led
        return None

    def checked_out(self, path: str) -> str | None:
        """The md5 of a file as this checkout has it: by Git's attributes and filters it may not be the blob's."""
        name = self._name(path)
        return _filtered(self.repository, name) if name else None

    def named(self, path: str) -> str | None:
        """Git's name of a file or a folder at this commit; None for none."""
        name = self._name(path)
        return _object(self.repository, name) if name else None

    def _name(self, path: str) -> str | None:
        """What Git calls a file at this commit; None for one outside the repository, or that it cannot be asked of."""
        at = posixpath.normpath(posixpath.join(self.folder, path))
        return None if at.partition("/")[0] == ".." or "\n" in at else f"{self.commit}:{at}"

    def params(self, file: str) -> Any:
        """A params file as data: YAML 1.2 or JSON. None for a format that only DVC reads, and
        for a missing or a broken file."""
        if file not in self._params:
            content = self.content(file)
            self._params[file] = None if content is None else parsed(file, content)
        return self._params[file]


def parsed(file: str, content: bytes) -> Any:
    """A params file as data; None for a format that only DVC reads, and for a broken one: DVC says what is wrong."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if PurePosixPath(file).suffix not in (".yaml", ".yml", ".json"):
        return None
    with suppress(ValueError, YAMLError):
        return YAML(typ="safe").load(content.decode())
    return None
