"""What may go: objects of the cache that no commit worth keeping names, counted by reason before anything is removed.

Kept is what the work tree, others that `git worktree` made beside it, any branch, tag, experiment and stash names, what
nights that are not published yet name, what is younger than two days (somebody may be making it), and the newest
nights: so many, and while there is room. All of it under the lease, and beside no other, so that no night is under way.
Objects of DVC before version 3 are not touched.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dvc_engine.git import GitError, git, top
from dvc_engine.pipeline.project import LOCK, ProjectError
from dvc_engine.store import objects, uncached, workspace
from dvc_engine.store.lease import RUNNING
from dvc_engine.store.repository import NAME, NONE, TRAILER, Repository

STASH, EXPERIMENTS = "refs/stash", "refs/exps/"
OF_NIGHTS = ["--first-parent", f"--author=^{NAME} "]  # of what Git lists those that are nights
PEOPLES = ("refs/heads/", "refs/tags/", "refs/remotes/", EXPERIMENTS)  # what is called as a lease is there is none
NIGHTLY = (f"/unpublished/{RUNNING}", f"/pinned/{RUNNING}")  # nor is a night whose run is called so
RUN_CACHE = "runs"  # a folder of DVC's cache
YOUNG_S = 2 * 86_400.0  # a night that broke is run again in the next
TREE, HISTORY, TONIGHT, WAITING, NIGHTS, YOUNG = (
    "the work tree",
    "branches, tags, experiments and stashes",
    "the newest night",
    "nights that are not published",
    "older nights",
    "younger than two days",
)
OLD, NOBODY, RUNS, DAMAGED = (
    "nights before those that are kept",
    "named by no commit",
    "run cache of what is gone",
    "damaged and put aside",
)


@dataclass
class Sweep:
    """What would stay and what would go: reason → bytes, and the files that go, with when each was written."""

    kept: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    files: dict[Path, float] = field(default_factory=dict)

    def goes(self, reason: str, path: Path, size: int, written: float) -> None:
        """Count a file that goes."""
        self.gone[reason] = self.gone.get(reason, 0) + size
        self.files[path] = written

    def remove(self) -> None:
        """Do it, but for what another DAG's night took as its own since it was looked at (`objects.touch`).

        A folder's list goes before what it lists, so that what is cut off is not half there.
        """
        for path in sorted(self.files, key=lambda one: not one.name.endswith(".dir")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime == self.files[path]:
                    path.unlink()
            if path.parents[2].name == RUN_CACHE:
                with suppress(OSError):  # another entry is in it
                    path.parent.rmdir()  # in one that is empty DVC finds no entry, and fails

    def text(self) -> str:
        """A line for each reason."""
        lines = [f"kept  {size:>15,} bytes: {reason}" for reason, size in self.kept.items()]
        return "\n".join([*lines, *(f"goes  {size:>15,} bytes: {reason}" for reason, size in self.gone.items())])


def refuse_beside(record: Repository, ours: str = "") -> None:
    """Raises ProjectError while a night is under way, however old its lease: while it waits nothing renews that.

    Args:
        ours: the ref of the caller's own lease.
    """
    for place in filter(None, (".", record.remote)):
        for line in git(record.path, "ls-remote", place, f"refs/*/{RUNNING}").splitlines():
            ref = line.partition("\t")[2]
            lease = not ref.startswith(PEOPLES) and not ref.endswith(NIGHTLY)
            if lease and (place, ref) != (record.remote or ".", ours):
                what = f"{ref} says that a night is under way, or waits for a person or a slot"
                raise ProjectError(f"{what}; wait until it ends, or remove that ref where there is none")


def look(root: Path, record: Repository, nights: int, most_bytes: int | None = None, now: float | None = None) -> Sweep:
    """What may go of a project's cache. Raises ProjectError where that cannot be told, and GitError.

    The lease is the caller's.

    Args:
        nights: that are kept of the branch, the newest of them whatever it takes.
        most_bytes: that all which is kept may take together; older nights go until it is so.
        now: seconds since the epoch.
    """
    if not workspace.cache_of(root).is_relative_to((root / ".dvc").resolve()):
        what = f"the cache {workspace.cache_of(root)} is not this project's alone, and others may need what it holds"
        raise ProjectError(f"{root}: {what}; use `dvc gc --projects`")
    refuse_beside(record, f"{record.refs}/{RUNNING}")
    cache, said, young = workspace.cache_of(root), Sweep(), (time.time() if now is None else now) - YOUNG_S
    held, named, sizes = list(_held(cache)), _Named(record.path, cache), Counter[str]()
    for one in held:
        sizes[one.md5] += one.size
    kept: dict[str, str] = {}  # object → the first reason that it stays for
    for reason, md5s in _protected(root, record, named):
        for md5 in md5s:
            kept.setdefault(md5, reason)
    kept = {one.md5: YOUNG for one in held if one.written > young} | kept
    old, total = set[str](), sum(sizes[md5] for md5 in kept)
    for number, commit in enumerate(_history(record)):
        more = named.by(commit) - kept.keys()
        total += sum(sizes[md5] for md5 in more)
        if number >= nights or (most_bytes is not None and total > most_bytes):
            if not more & sizes.keys():
                break  # it went before, and all before it
            old |= more
            total = sys.maxsize  # once one goes, all before it go
        else:
            kept |= dict.fromkeys(more, NIGHTS)
    for one in held:
        if one.md5 in kept:
            said.kept[kept[one.md5]] = said.kept.get(kept[one.md5], 0) + one.size
        else:
            said.goes(OLD if one.md5 in old else NOBODY, one.path, one.size, one.written)
    for path in [*cache.glob(f"{objects.DAMAGED}/*"), *uncached.store(cache).glob(f"{objects.DAMAGED}/*")]:
        if (found := path.stat()).st_ctime < young:
            said.goes(DAMAGED, path, found.st_size, found.st_mtime)
    _runs(cache, kept.keys() & sizes.keys(), said)
    return said


@dataclass(frozen=True)
class _Object:
    """An object of the cache or of the engine's store; `written` in seconds since the epoch."""

    path: Path
    md5: str
    size: int
    written: float


def _held(cache: Path) -> Iterator[_Object]:
    for store in (cache, uncached.store(cache)):
        for path in (store / "files" / "md5").glob("??/*"):
            with suppress(OSError):
                said = path.stat()
                yield _Object(path, path.parent.name + path.name, said.st_size, said.st_mtime)


def _protected(root: Path, record: Repository, named: _Named) -> Iterator[tuple[str, Iterable[str]]]:
    """Reason → objects, in the order in which reasons are told."""
    if record.tip:
        yield TONIGHT, named.by(record.tip)
    for commit in record.unpublished().values():
        yield WAITING, named.by(commit)
    yield TREE, named.in_tree(root)
    for tree, head in _trees(record):
        if (there := tree / top(root)[1]) != root.resolve():
            yield TREE, named.in_tree(there)
        if head != NONE:  # no commit yet
            yield TREE, named.by(head)
    ours = {f"{record.refs}/tip", f"{record.refs}/running"} | {record.nights_ref}
    refs = [line.split() for line in git(record.path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()]
    for ref, made in refs:
        if ref not in ours and not ref.startswith((f"{record.refs}/unpublished/", f"{record.refs}/pinned/")):
            yield HISTORY, named.by(made)
    stashes = [STASH, *(ref for ref, _ in refs if ref.startswith(EXPERIMENTS))]  # where DVC has those that are queued
    for line in git(record.path, "rev-list", "--walk-reflogs", "--parents", "--ignore-missing", *stashes).splitlines():
        for commit in line.split():  # of what is stashed a parent has what Git did not know
            yield HISTORY, named.by(commit)
    for commit in _others(record):
        yield HISTORY, named.by(commit)


def _trees(record: Repository) -> Iterator[tuple[Path, str]]:
    """Each work tree of the repository that is still there, and its HEAD: of one that is detached no ref tells."""
    for one in git(record.path, "worktree", "list", "--porcelain").split("\n\n"):
        said = dict(line.partition(" ")[::2] for line in one.split("\n"))
        if "HEAD" in said and "prunable" not in said:  # else it is bare, or somebody removed its folder
            yield Path(said["worktree"]), said["HEAD"]


def _history(record: Repository) -> list[str]:
    """Nights of this DAG on the branch, the newest first."""
    if not record.tip:
        return []
    told = ["--format=%x00%H%x00%B%x00", "--encoding=UTF-8"]  # and not by `log`, which people configure
    _, *said = git(record.path, "rev-list", *OF_NIGHTS, *told, record.tip).split("\0")
    nights = zip(said[::3], said[1::3], strict=True)
    return [night for night, message in nights if _whose(message) in ("", record.trailer)]


def _whose(message: str) -> str:
    """The trailer of a night's message, which people may have added to; "" of one from before nights had it."""
    return next((line for line in reversed(message.split("\n")) if line.startswith(f"{TRAILER}: ")), "")


def _others(record: Repository) -> list[str]:
    """Nights of other DAGs, on branches of their own, here or at a remote: how many stay these say themselves."""
    ours = set(_history(record))
    every = git(record.path, "rev-list", *OF_NIGHTS, f"--exclude={record.refs}/*", "--all")
    return [one for one in every.splitlines() if one not in ours]


def _runs(cache: Path, left: Set[str], said: Sweep) -> None:
    """Entries of DVC's run cache whose outs are not all left: they restore nothing."""
    for path in (cache / RUN_CACHE).glob("??/*/*"):
        with suppress(OSError, YAMLError, AttributeError, TypeError):
            outs = YAML(typ="safe").load(path.read_bytes()).get("outs") or []
            if any(one.get("md5") and one["md5"] not in left for one in outs):
                found = path.stat()
                said.goes(RUNS, path, found.st_size, found.st_mtime)


class _Named:
    """The objects that commits name, each lock file read once however many commits have it."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self._blobs: dict[str, frozenset[str]] = {}
        self._folders: dict[str, list[str]] = {}

    def by(self, commit: str) -> set[str]:
        """The md5 of every object that a commit's dvc.lock and `.dvc` files name, with what folders list."""
        found: set[str] = set()
        try:
            listed = git(self.repository, "ls-tree", "-r", "-z", "--full-tree", commit)
        except GitError as error:
            if git(self.repository, "cat-file", "-t", f"{commit}^{{}}") == "blob":
                return found  # some ref is of a file
            what = f"Git cannot read {commit}, which may name anything, so nothing is removed"
            raise ProjectError(f"{what}: {error}; `git fsck` says what is damaged") from None
        for line in listed.split("\0"):
            about, _, path = line.partition("\t")
            if path.endswith((".dvc", f"/{LOCK}")) or path == LOCK:
                blob = about.split()[2]
                if blob not in self._blobs:
                    self._blobs[blob] = self._read(git(self.repository, "cat-file", "blob", blob))
                found |= self._blobs[blob]
        return found

    def in_tree(self, root: Path) -> set[str]:
        """The same of the work tree."""
        found: set[str] = set()
        for path in [*root.rglob(LOCK), *root.rglob("*.dvc")]:
            if ".dvc" not in path.relative_to(root).parts[:-1] and path.is_file():
                found |= self._read(path.read_text(encoding="utf-8", errors="replace"))
        return found

    def _read(self, text: str) -> frozenset[str]:
        """Every md5 of a document's outs. Raises ProjectError for one that cannot be read, and may name anything."""
        try:
            document = YAML(typ="safe").load(text)
        except YAMLError as error:
            said = " ".join(str(error).split())[:200]
            raise ProjectError(f"a dvc.lock or .dvc file cannot be read, so nothing is removed: {said}") from None
        stages: Iterable[Any] = [document] if isinstance(document, Mapping) else []
        if isinstance(document, Mapping) and isinstance(document.get("stages"), Mapping):
            stages = document["stages"].values()
        outs = [out for one in stages if isinstance(one, Mapping) for out in one.get("outs") or []]
        outs += [one for out in outs if isinstance(out, Mapping) for one in out.get("files") or []]
        tops = [str(out["md5"]) for out in outs if isinstance(out, Mapping) and out.get("md5")]
        return frozenset([*tops, *(md5 for top in tops if top.endswith(".dir") for md5 in self._listed(top))])

    def _listed(self, top: str) -> list[str]:
        if top not in self._folders:
            self._folders[top] = []
            for store in (self.cache, uncached.store(self.cache)):
                with suppress(OSError, ValueError, KeyError):
                    self._folders[top] = objects.listed(objects.place(store, top))
                    break
        return self._folders[top]
