"""What Git ignores at a commit, and the lines by which it ignores what DVC keeps, as `dvc repro` writes them."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dvc_airflow.git import git
from dvc_airflow.store.commit import Commit

FILE = ".gitignore"


def those(repository: Path, commit: str, paths: Iterable[str]) -> set[str]:
    """Those of these paths in the repository that Git ignores at a commit; none is taken for a folder."""
    at = Commit(repository, commit)
    listed = git(repository, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit).split("\0")
    with tempfile.TemporaryDirectory() as folder:
        for name in (one for one in listed if posixpath.basename(one) == FILE):
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(at.content(name) or b"")
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


def lines(repository: Path, commit: str, outs: Iterable[str]) -> dict[str, bytes]:
    """Path → content of each .gitignore that is to have another line, so that Git ignores all of these outs."""
    at, found = Commit(repository, commit), dict[str, bytes]()
    ordered = list(dict.fromkeys(outs))
    known = those(repository, commit, ordered)
    for folder, name in (posixpath.split(out) for out in ordered if out not in known):
        file = posixpath.join(folder, FILE)
        text = found.get(file, at.content(file) or b"")
        ended = b"\n" if text and not text.endswith(b"\n") else b""
        found[file] = text + ended + os.fsencode(f"/{_escaped(name)}\n")
    return found


def _escaped(name: str) -> str:
    """A file's name as a pattern that nothing else matches (gitignore(5))."""
    return re.sub(r"[][\\*?!#]| $", r"\\\g<0>", name)
