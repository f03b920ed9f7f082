"""What of its work tree Git does not take at a commit, and the lines by which it ignores what DVC keeps."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dvc_engine.git import GitError, git, shown
from dvc_engine.store.commit import BEYOND, Commit

FILE = ".gitignore"


class Ignored:
    """By the .gitignore files of a commit, and by what this repository and its user ignore everywhere."""

    def __init__(self, repository: Path, commit: str) -> None:
        self.at = Commit(repository, commit)

    def those(self, paths: Iterable[str], folders: Iterable[str] = ()) -> set[str]:
        """Those of these paths that Git does not take. Raises GitError.

        Args:
            folders: those of them that are; a pattern that ends with a slash is for no other.
        """
        known = list(paths)
        beyond = {name for name, mode in self.at.modes.items() if mode in BEYOND}
        below = {path for path in known if not beyond.isdisjoint(map(str, PurePosixPath(path).parents))}
        return below | self._ignored([path for path in known if path not in below], folders)

    def lines(self, outs: Mapping[str, bool]) -> dict[str, bytes]:
        """Path → content of each .gitignore that is to have another line, so that Git takes none of these outs.

        As DVC writes them: at the end, in this order.

        Args:
            outs: path → whether it is a folder.
        """
        found = dict[str, bytes]()
        known = self.those(outs, [out for out, is_folder in outs.items() if is_folder])
        for folder, name in (posixpath.split(out) for out in outs if out not in known):
            if self.at.modes.get(file := posixpath.join(folder, FILE)) not in BEYOND:  # Git reads no link
                text = found.get(file, self.at.content(file) or b"")
                ended = b"\n" if text and not text.endswith(b"\n") else b""
                found[file] = text + ended + os.fsencode(f"/{_escaped(name)}\n")
        return found

    def _ignored(self, paths: list[str], folders: Iterable[str]) -> set[str]:
        with tempfile.TemporaryDirectory() as tree:
            for name, mode in self.at.modes.items():
                if posixpath.basename(name) != FILE or mode in BEYOND:
                    continue
                (Path(tree) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(tree) / name).write_bytes(self.at.content(name) or b"")
            for name in folders:
                (Path(tree) / name).mkdir(parents=True, exist_ok=True)
            held = git(self.at.repository, "rev-parse", "--absolute-git-dir")
            said = subprocess.run(
                ["git", f"--git-dir={held}", f"--work-tree={tree}", "check-ignore", "--no-index", "-z", "--stdin"],
                input="\0".join(f"./{path}" for path in paths),  # one that begins with a colon means something else
                capture_output=True,
                check=False,
                cwd=tree,
                encoding="utf-8",
                errors="surrogateescape",
            )
        if said.returncode > 1:  # 1: it ignores none
            raise GitError(shown(f"git check-ignore: {said.stderr.strip()}"))
        return {one.removeprefix("./") for one in said.stdout.split("\0") if one}


def _escaped(name: str) -> str:
    """A file's name as a pattern that nothing else matches (gitignore(5))."""
    return re.sub(r"[][\\*?!#]| $", r"\\\g<0>", name)
