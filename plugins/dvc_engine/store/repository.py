"""The repository of record: the branch of nights, the refs beside it, and where they are written.

It is the checkout's own repository, or a remote of it. Then every worker may have a checkout of its own: what a night
runs lies under `<refs>/pinned`, where they fetch it from. The branch and the lease are moved from the value that was
read, or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dvc_engine.git import GitError, git, tags_of, top
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.store import submodules

NONE = "0" * 40
PUSH = ["push", "--quiet", "--no-verify"]  # a hook of this checkout is for what people push
ALONE = "--no-recurse-submodules"  # they may lie elsewhere in what is fetched: `submodules` asks for them there
FETCH = ["fetch", "--quiet", ALONE, "--no-write-fetch-head"]  # that file is one for all tasks of a checkout
OURS = Path(".git") / "dvc-airflow"  # in a checkout that the engine made: nobody works in it
NAME = "dvc-airflow"
# `git check-ref-format`, and namespaces that are no people's
NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|^[/-]|[./]$|\.lock(/|$)|^@$|^HEAD$")
PRIVATE = re.compile(r"refs/(?!(heads|tags|remotes|notes|stash|exps|replace|bisect|worktree|rewritten)(/|$)).")
TRAILER = "Branch"  # of a night's message
WHO = {  # makes the commits
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in [("NAME", NAME), ("EMAIL", f"{NAME}@localhost")]
}


@dataclass(frozen=True)
class Repository:
    """Where nights are published.

    Args:
        path: the checkout's repository, which clones are made of.
        branch: of nights; nobody else writes it.
        refs: namespace for the lease, for what could not be published or failed nights finished, and for what runs.
        remote: a remote's name or URL; "" where `path` itself is the repository of record.
        own: whether `path` is the engine's own checkout, which follows what is pinned, and nobody works in.
    """

    path: Path
    branch: str
    refs: str
    remote: str = ""
    own: bool = False

    @property
    def tip(self) -> str | None:
        """The branch's tip, as it was fetched last; None where there is no such branch."""
        return self._local(self.nights_ref)

    @property
    def nights_ref(self) -> str:
        """The ref here that the branch's tip is at."""
        return f"{self.refs}/tip" if self.remote else f"refs/heads/{self.branch}"

    @property
    def trailer(self) -> str:
        """Of a night's message: whose it is, since the branch of one may go on from that of another."""
        return f"{TRAILER}: {self.branch}"

    def nights(self) -> list[str]:
        """The branch's tip and the nights that are not on it, the newest first."""
        asked = ["for-each-ref", "--sort=-committerdate", "--format=%(objectname)"]
        return git(self.path, *asked, self.nights_ref, f"{self.refs}/unpublished").splitlines()

    def unpublished(self) -> dict[str, str]:
        """Ref → commit of the nights that are not on the branch."""
        listed = git(self.path, "for-each-ref", "--format=%(refname) %(objectname)", f"{self.refs}/unpublished")
        return dict(line.split(" ") for line in listed.splitlines())

    def fetch(self) -> None:
        """Bring branch, tags and what was not published from the remote. Raises GitError."""
        if self.remote:
            with self._alone():
                self._fetch()
        self._passed()

    def _fetch(self) -> None:
        branch, waiting = f"refs/heads/{self.branch}", f"{self.refs}/unpublished/*"
        listed = git(self.path, "ls-remote", self.remote, branch, waiting)
        there = {ref: made for made, ref in (line.split("\t") for line in listed.splitlines())}
        wanted = [f"+{waiting}:{waiting}"]
        for ref, made in self.unpublished().items():
            if ref in there and self._holds(made, there[ref]):
                wanted.append(f"^{ref}")  # it was kept while the remote was away, and goes on from that
        if branch in there:
            wanted.append(f"+{branch}:{self.nights_ref}")
        elif self.tip:  # somebody removed it there: the next night begins it anew
            git(self.path, "update-ref", "-d", self.nights_ref)
        git(self.path, *FETCH, "--tags", "--force", self.remote, *wanted)

    def _passed(self) -> None:
        """Let what is on the branch by now wait no more: another checkout, or an attempt that died, published it."""
        if tip := self.tip:
            asked = ["for-each-ref", "--merged", tip, "--format=%(refname) %(objectname)"]
            for line in git(self.path, *asked, f"{self.refs}/unpublished").splitlines():
                with suppress(GitError):  # another was faster
                    git(self.path, "update-ref", "-d", *line.split(" "))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of the tasks on this worker one at a time: Git fails the second that fetches the same ref."""
        with Path(self.path, git(self.path, "rev-parse", "--git-path", "dvc-airflow.lock")).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def pin(self, run: str, commit: str) -> None:
        """Keep the commit that a run is of, and let every worker fetch it. Raises GitError."""
        pinned = f"{self.refs}/pinned"  # what is there of other runs somebody ended elsewhere: the lease is this run's
        for ref in git(self.path, "for-each-ref", "--format=%(refname)", pinned).splitlines():
            git(self.path, "update-ref", "-d", ref)
        git(self.path, "update-ref", f"{pinned}/{run}", commit)  # else `git gc` may take it
        if self.remote:
            there = git(self.path, "ls-remote", self.remote, f"{pinned}/*").splitlines()
            if left := [f":{ref}" for ref in (line.split("\t")[1] for line in there) if ref != f"{pinned}/{run}"]:
                with suppress(GitError):  # a remote that has nothing removed has a night all the same
                    git(self.path, *PUSH, self.remote, *left)
            git(self.path, *PUSH, "--force", self.remote, f"{commit}:{pinned}/{run}")

    def unpin(self, run: str) -> None:
        """Take that back; what is not there any more is no error."""
        git(self.path, "update-ref", "-d", f"{self.refs}/pinned/{run}")
        if self.remote and git(self.path, "ls-remote", self.remote, f"{self.refs}/pinned/{run}"):
            git(self.path, *PUSH, self.remote, f":{self.refs}/pinned/{run}")

    def have(self, run: str, commit: str, tags: Iterable[str] = ()) -> None:
        """Fetch what this checkout lacks of a run's commit and the objects of its tags. Raises GitError."""
        if not self.remote:
            return
        if self._lacks([commit, *tags]):
            with self._alone():
                if self._lacks([commit]):  # still, now that no other task fetches it
                    try:
                        git(self.path, *FETCH, self.remote, f"{self.refs}/pinned/{run}")
                    except GitError:  # the night has ended, and somebody cleared its task
                        git(self.path, *FETCH, self.remote, commit)
                if self._lacks(tags):
                    self._fetch()
        if self.own:
            self.follow(commit)

    def _lacks(self, objects: Iterable[str]) -> bool:
        asked = "".join(f"{one}\n" for one in objects)
        return "missing" in git(self.path, "cat-file", "--batch-check", stdin=asked)

    def _holds(self, commit: str, other: str) -> bool:
        """Whether a commit rests on another."""
        return not self._lacks([other]) and not git(self.path, "rev-list", "--max-count=1", other, f"^{commit}")

    def newest(self, wanted: str | None) -> str:
        """What a night of the engine's own checkout runs: this commit, or the remote's HEAD. Raises GitError."""
        found = wanted or git(self.path, "ls-remote", self.remote, "HEAD").partition("\t")[0]
        with self._alone():
            git(self.path, *FETCH, self.remote, "+refs/heads/*:refs/remotes/origin/*")
        return git(self.path, "rev-parse", "--verify", f"{found}^{{commit}}")

    def follow(self, commit: str) -> None:
        """Let the engine's own checkout stand at a commit, for what DVC's configuration says there. Raises GitError.

        Clones have their submodules from it.
        """
        with self._alone():
            if self._local("HEAD") != commit:
                git(self.path, "checkout", "--quiet", ALONE, "--force", "--detach", commit)
            submodules.follow(self.path)  # though it stands there: an attempt before may have failed in between

    def read(self, name: str) -> str | None:
        """The object that one of the refs is at, now. Raises GitError where a remote does not answer."""
        ref = f"{self.refs}/{name}"
        if not self.remote:
            return self._local(ref)
        while there := git(self.path, "ls-remote", self.remote, ref).partition("\t")[0]:
            if not self._lacks([there]):
                return there
            git(self.path, *FETCH, self.remote, ref)  # it may have been moved in between
        return None

    def swap(self, name: str, new: str | None, old: str | None) -> None:
        """Move one of the refs from `old` to `new`; None is no such ref. Raises GitError where it is not at `old`."""
        ref = f"{self.refs}/{name}"
        if self.remote:
            lease = f"--force-with-lease={ref}:{old or ''}"
            git(self.path, *PUSH, lease, self.remote, f"{new or ''}:{ref}")
        elif new:
            git(self.path, "update-ref", ref, new, old or NONE)
        else:
            git(self.path, "update-ref", "-d", ref, old or NONE)

    def publish(self, commit: str, old: str | None, tags: Mapping[str, str], waiting: Mapping[str, str]) -> str:
        """Move the branch from `old` and make the tags, all or nothing; what waited goes.

        Args:
            waiting: ref → commit of the nights that were not on the branch, and are parents of this one.

        Returns:
            Why it was refused, or "".
        """
        branch = f"refs/heads/{self.branch}"
        words = [*PUSH, "--atomic", f"--force-with-lease={branch}:{old or ''}"]
        wanted = [f"{commit}:{branch}", *(f"{made}:refs/tags/{name}" for name, made in tags.items())]
        try:
            there = git(self.path, "ls-remote", self.remote, f"{self.refs}/unpublished/*") if self.remote else ""
            for made, ref in (line.split() for line in there.splitlines()):
                if ref in waiting and self._holds(waiting[ref], made):  # one kept meanwhile is in no night yet
                    words.append(f"--force-with-lease={ref}:{made}")
                    wanted.append(f":{ref}")
            git(self.path, *words, self.remote or str(self.path), *wanted)
        except GitError as error:
            return str(error)
        moved = [[self.nights_ref, commit]] if self.remote else []
        for one in [*moved, *(["-d", ref, held] for ref, held in waiting.items())]:
            with suppress(GitError):  # another was faster, or it is not that night any more; a fetch finds the branch
                git(self.path, "update-ref", *one)
        return ""

    def share(self, pattern: str) -> None:
        """Push the tags of a pattern that the remote lacks. Raises GitError for those it does not take; others go."""
        here = {name: made for name, made in tags_of(self.path).items() if fnmatchcase(name, pattern)}
        if not (self.remote and here):
            return
        with self._alone():
            there = set(git(self.path, "ls-remote", "--refs", "--tags", self.remote).splitlines())
            lacks = [name for name, made in here.items() if f"{made}\trefs/tags/{name}" not in there]
            if lacks:
                git(self.path, *PUSH, self.remote, *(f"{here[name]}:refs/tags/{name}" for name in lacks))

    def keep(self, run: str, commit: str) -> None:
        """Keep a night that is not on the branch: here, and where others find it if the remote takes it."""
        ref = f"{self.refs}/unpublished/{run}"
        git(self.path, "update-ref", ref, commit)
        if self.remote:
            with suppress(GitError):
                git(self.path, *PUSH, "--force", self.remote, f"{commit}:{ref}")

    def _local(self, ref: str) -> str | None:
        try:
            return git(self.path, "rev-parse", "--verify", "--quiet", ref)
        except GitError:
            return None


def of(project: Path, branch: str | None = None, refs: str | None = None, remote: str = "") -> Repository:
    """The repository of record of a project.

    By default two projects of one repository have a branch and refs each, and a branch of another name its own refs.
    Raises ProjectError for names that Git does not take, or that are people's.
    """
    path, folder = top(project)
    name = "-".join(filter(None, [NAME, _named(folder)]))
    own = name if branch in (None, name) else f"{name}@{branch}"  # no folder's name has that
    found = Repository(path, branch or name, refs or f"refs/{own}", remote)
    for what, said in (("branch", found.branch), ("refs", found.refs)):
        if NO_REF.search(said):
            raise ProjectError(f"{what} is {said!r}, of which Git makes no ref; call it otherwise")
    if not PRIVATE.match(found.refs):
        why = "where Git looks for nothing or keeps what is people's; name some of its own, like refs/dvc-airflow"
        raise ProjectError(f"refs is {found.refs}, {why}")
    return found


def _named(folder: str) -> str:
    """A folder's name in a ref, which no other folder has."""
    if re.fullmatch(r"(\w+([-/]\w+)*)?", folder, re.ASCII):
        return folder.replace("/", "--")
    parts = re.findall(r"\w+", folder, re.ASCII)
    return "-".join([*parts, hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:6]])


def checked_out(place: Path, url: str) -> None:
    """Make the engine's own checkout of a repository on this worker, where it is not there yet. Raises GitError."""
    if (place / OURS).is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as held:  # of tasks that begin together one makes it
        fcntl.flock(held, fcntl.LOCK_EX)
        if (place / OURS).is_file():
            return
        if place.is_dir() and any(place.iterdir()):
            what = "is not empty, and the engine did not make it; name a folder of its own as `checkout`"
            raise GitError(f"{place} {what}")
        draft = place.with_name(f"{place.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        git(place.parent, "clone", "--quiet", url, str(draft))
        (draft / OURS).touch()
        draft.rename(place)
