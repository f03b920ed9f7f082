"""Git, as the engine asks it: by its command, whose own words say what went wrong."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

OF_A_PUSH = (  # what Git says beside the reason
    "error: failed to push some refs",
    "error: atomic push failed for ref",
    "fatal: the remote end hung up unexpectedly",
)
GITLINK = "160000"  # Git's mode of another repository's commit
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")  # in a remote's address


class GitError(Exception):
    """A Git command that failed: the command, and what it said of that."""


def git(repository: Path, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a Git command prints, without the last newline, as os.fsdecode reads it. Raises GitError."""
    asked = ["git", "-C", str(repository), *words]
    around: dict[str, Any] = {"env": {**os.environ, **(env or {})}, "encoding": "utf-8", "errors": "surrogateescape"}
    ended = subprocess.run(asked, input=stdin, capture_output=True, check=False, **around)
    if ended.returncode != 0:
        said = f"git {' '.join(words[:3])}: {_why(ended.stderr) or f'ended with {ended.returncode}'}"
        raise GitError(without_login(shown(said)))
    return ended.stdout.rstrip("\n")


def without_login(text: str) -> str:
    """A text whose URLs say nothing of what one logs in with."""
    return CREDENTIALS.sub("", text)


def shown(said: str) -> str:
    """Words of Git that can be written anywhere: of a file's name, bytes that are no UTF-8 are their numbers."""
    return said.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _why(stderr: str) -> str:
    """What Git, or a remote's hook, gave as the reason, on one line; what stands around it is advice."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "! ["))]
    telling = [line for line in marked if not line.startswith(OF_A_PUSH) and "(atomic push failed)" not in line]
    return "; ".join(" ".join(line.split()) for line in (telling or marked or lines[-1:])[:2])


@cache  # a repository does not move under a process
def top(root: Path) -> tuple[Path, str]:
    """The Git repository that a project stands in, and the project's folder there: "" at its top. Raises GitError."""
    held, _, below = git(root, "rev-parse", "--show-toplevel", "--show-prefix").partition("\n")
    return Path(held), below.rstrip("/")


def tags_of(repository: Path) -> dict[str, str]:
    """Name → object of every tag: the state of the registry."""
    listed = git(repository, "for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/tags")
    return dict(line.rsplit(" ", 1) for line in listed.splitlines())


def named(repository: Path, *where: str) -> dict[str, str]:
    """Name → path of the submodules that a .gitmodules names, which is where `git config` is told. Raises GitError."""
    pairs = (one.partition("\n") for one in git(repository, "config", *where, "--null", "--list").split("\0"))
    said = {key: path for key, _, path in pairs if key.startswith("submodule.") and key.endswith(".path")}
    return {key.removeprefix("submodule.").removesuffix(".path"): path for key, path in said.items()}
