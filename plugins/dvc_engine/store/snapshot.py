"""The commit that a night runs: HEAD, or a work tree with changes; and how others are made of one.

A changed work tree becomes a commit by a copy of the index, so that neither the tree nor the index is touched. Its
author and date are HEAD's: the same tree is the same commit. A new file that is large or looks like a secret is
refused by name; a public key is no secret, whatever its file is called.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from dvc_engine.git import GitError, git, top, without_login
from dvc_engine.pipeline.project import Project

LARGEST_NEW = 1 << 20  # bytes; larger data belongs to DVC
SECRET = re.compile(r"(^|/)(\.env(\..*)?|.*\.pem|.*\.p12|id_(rsa|ed25519|ecdsa)|credentials(\.json)?|.*\.key)$")
PUBLIC = re.compile(rb"(-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*)+")  # the whole file


class Refused(Exception):
    """Something that a night does not take: what, and what to do."""


def take(repository: Path, outs: Set[str] = frozenset(), uncached: Set[str] = frozenset()) -> str:
    """The commit of the work tree as it is. Raises Refused for a new file that should not be committed.

    Args:
        outs: paths that DVC keeps. What lies there and is neither in Git nor ignored came with `dvc checkout`, and were
            it committed, DVC would refuse to make it.
        uncached: paths that a stage makes and DVC does not keep. One with a large new file is not committed: it is made
            anew.
    """
    try:
        head = git(repository, "rev-parse", "--verify", "--quiet", "HEAD")
    except GitError:
        raise Refused(f"{repository} has no commit yet; make one") from None
    if unmerged := git(repository, "diff", "--name-only", "--diff-filter=U").splitlines():
        raise Refused(f"{unmerged[0]} has conflicts of a merge; resolve them and commit, or abort the merge")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        held = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if held.is_file():
            shutil.copyfile(held, index)
        env = {"GIT_INDEX_FILE": str(index)}
        new = git(repository, "ls-files", "--others", "--exclude-standard", "-z", env=env).split("\0")
        made = {path: _holding(path, outs | uncached) for path in new}
        left = {out for path, above in made.items() for out in above if out in outs or _large(repository / path)}
        _refuse(repository, [path for path, above in made.items() if not above & left])
        wanted = "\0".join([":/", *(f":(top,exclude,literal){path}" for path in sorted(left))])
        git(repository, "add", "-A", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=wanted, env=env)
        tree = git(repository, "write-tree", env=env)
    if tree == git(repository, "rev-parse", "HEAD^{tree}"):
        return head
    return commit_tree(repository, tree, [head], "Uncommitted changes", like=head)


def of_tree(root: Path, project: Project) -> str:
    """The commit of a project's work tree as it is. Raises Refused, as `take`."""
    repository, folder = top(root)
    cached, uncached = set[str](), set[str]()
    for stage in project.stages.values():
        cached |= {posixpath.normpath(posixpath.join(folder, path)) for path in stage.cached}
        uncached |= {posixpath.normpath(posixpath.join(folder, path)) for path in stage.uncached}
    return take(repository, cached, uncached)


def refuse_changes(repository: Path, remote: str) -> None:
    """Raises Refused where the work tree is not its commit: what others are to find at a remote is committed."""
    if changed := git(repository, "status", "--porcelain"):
        name, where = changed.split(maxsplit=1)[1].splitlines()[0], without_login(remote)
        raise Refused(f"{name} is not committed, and nights are published at {where}; commit it, or stash it")


def with_files(
    repository: Path,
    commit: str,
    files: Mapping[str, bytes | Path],
    without: Iterable[str] = (),
    executable: Set[str] = frozenset(),
) -> str:
    """The tree of `commit` with these files written, and nothing else at the paths `without`; its object name.

    Args:
        executable: those of the files that may be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        git(repository, "read-tree", commit, env=env)
        if gone := list(without):
            git(repository, "rm", "-r", "-q", "-f", "--cached", "--ignore-unmatch", "--", *gone, env=env)
        places = [_place(Path(folder), number, content) for number, content in enumerate(files.values())]
        asked = "".join(f"{place}\n" for place in places)  # one process for all: a night may have thousands
        blobs = git(repository, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=asked).split()
        modes = ["100755" if path in executable else "100644" for path in files]
        lines = [f"{mode} {blob}\t{path}\0" for mode, blob, path in zip(modes, blobs, files, strict=True)]
        git(repository, "update-index", "-z", "--index-info", stdin="".join(lines), env=env)
        return git(repository, "write-tree", env=env)


def _place(folder: Path, number: int, content: bytes | Path) -> Path:
    """Where this content lies: in a file of its own, made in `folder` if it has none."""
    if isinstance(content, Path):
        return content.resolve()
    place = folder / f"content-{number}"
    place.write_bytes(content)
    return place


def commit_tree(repository: Path, tree: str, parents: list[str], message: str, like: str) -> str:
    """A commit with the author and the dates of another, so that the same content is the same commit."""
    # with @ a date of before 1973 is one too; else Git does not take so small a number for seconds
    raw = ["--format=%an%n%ae%n@%ad", "--date=raw"]
    name, mail, date = git(repository, "show", "-s", "--no-show-signature", *raw, like).splitlines()
    who = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in [("NAME", name), ("EMAIL", mail), ("DATE", date)]
    }
    words = [word for parent in parents for word in ("-p", parent)]
    return git(repository, "commit-tree", tree, *words, "-m", message, env=who)


def _refuse(repository: Path, new: list[str]) -> None:
    for name in filter(None, new):
        path = repository / name
        if SECRET.search(name) and not _public(path):
            raise Refused(f"{name} looks like a secret and Git does not ignore it; add it to .gitignore, or commit it")
        if _large(path):
            raise Refused(f"{name} is new and over 1 MB; `dvc add {name}`, add it to .gitignore, or commit it")


def _holding(path: str, outs: Set[str]) -> Set[str]:
    """Those of these outs that a path is, or lies in."""
    path = path.rstrip("/")  # a repository of its own is listed with one
    found = {path} & outs
    while path := posixpath.dirname(path):
        found |= {path} & outs
    return found


def _large(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size > LARGEST_NEW


def _public(path: Path) -> bool:
    """Whether a file holds public keys in PEM, and nothing else."""
    if path.is_symlink() or not path.is_file() or _large(path):
        return False
    return PUBLIC.fullmatch(path.read_bytes()) is not None
