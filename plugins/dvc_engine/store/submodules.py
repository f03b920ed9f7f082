"""Submodules: in the engine's own checkout as Git fetches them, in clones as the checkout has them.

Git is asked for those alone that a .gitmodules names: it fails for a repository that was added without one.
"""

from __future__ import annotations

from pathlib import Path

from dvc_engine.git import GITLINK, git, named


def follow(place: Path) -> None:
    """Let a checkout have its submodules, and theirs, as it stands. Raises GitError."""
    if paths := list(_here(place).values()):
        git(place, "submodule", "--quiet", "sync", "--", *paths)  # one may be fetched from elsewhere by now
        git(place, "submodule", "--quiet", "update", "--init", "--force", "--", *paths)
    for path in paths:
        follow(place / path)


def bring(checkout: Path, clone: Path) -> None:
    """Check out in a clone those submodules that the checkout has, and theirs, from its own copies. Raises GitError."""
    for name, path in _here(clone).items():
        if ((copy := checkout / path) / ".git").exists():  # it stays where the checkout stands at another commit by now
            git(clone, "config", f"submodule.{name}.url", str(copy))
            git(clone, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--", path)
            bring(copy, clone / path)


def _here(place: Path) -> dict[str, str]:
    """Name → path of the submodules of what is checked out."""
    if not (place / ".gitmodules").is_file():
        return {}
    listed = git(place, "ls-files", "--stage", "-z").split("\0")
    held = {line.partition("\t")[2] for line in listed if line.startswith(GITLINK)}
    return {name: path for name, path in named(place, "--file", ".gitmodules").items() if path in held}
