"""What Git ignores at a commit, and the lines by which it ignores what DVC keeps, as `dvc repro` writes them."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from dvc_airflow.git import git
from dvc_airflow.store.commit import Commit

FILE = ".gitignore"
REGULAR, LINK = "100", "120"  # how modes of Git's begin


def those(repository: Path, commit: str, paths: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
    """Those of these paths in the repository that Git ignores at a commit.

    Args:
        folders: those of them that are; a pattern that ends with a slash is for no other.
    """
    at = Commit(repository, commit)
    with tempfile.TemporaryDirectory() as folder:
        for name in _files(repository, commit, REGULAR):
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(at.content(name) or b"")
        for name in folders:
            (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        held = git(repository, "rev-parse", "--absolute-git-dir")
        asked = ["git", f"--git-dir={held}", f"--work-tree={folder}", "check-ignore", "--no-index", "-z", "--stdin"]
        said = subprocess.run(
            asked,
            input="\0".join(paths),
            capture_output=True,
            check=False,  # 1 where it ignores none
            cwd=folder,
            env=os.environ | {"GIT_INDEX_FILE": str(Path(folder) / "none")},  # in which nothing is a submodule's
            encoding="utf-8",
            errors="surrogateescape",
        )
    return set(filter(None, said.stdout.split("\0")))


def lines(repository: Path, commit: str, outs: Mapping[str, bool]) -> dict[str, bytes]:
    """Path → content of each .gitignore that is to have another line, so that Git ignores all of these outs.

    Args:
        outs: path → whether it is a folder.
    """
    at, found = Commit(repository, commit), dict[str, bytes]()
    known = those(repository, commit, outs, [out for out, is_folder in outs.items() if is_folder])
    links = _files(repository, commit, LINK)  # Git reads none, and what one leads to is not this folder's
    for folder, name in (posixpath.split(out) for out in outs if out not in known):
        if (file := posixpath.join(folder, FILE)) not in links:
            text = found.get(file, at.content(file) or b"")
            ended = b"\n" if text and not text.endswith(b"\n") else b""
            found[file] = text + ended + os.fsencode(f"/{_escaped(name)}\n")
    return found


def _files(repository: Path, commit: str, kind: str) -> list[str]:
    """The .gitignore files of a commit, or links that are called so."""
    listed = git(repository, "ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
    entries = [(about.partition(" ")[0], name) for about, _, name in (one.partition("\t") for one in listed if one)]
    return [name for mode, name in entries if posixpath.basename(name) == FILE and mode.startswith(kind)]


def _escaped(name: str) -> str:
    """A file's name as a pattern that nothing else matches (gitignore(5))."""
    return re.sub(r"[][\\*?!#]| $", r"\\\g<0>", name)
