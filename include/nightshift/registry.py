"""Releases and where they are assigned, as Git tags in GTO's format. The ref is the register.

`nightshift@v0.3.0` is a version; `nightshift#prod#4` is the fourth time that a commit was assigned to `prod`. A tag
that exists cannot be made again, so that of two who assign at once one loses and sees it. The message of both is JSON
that names the release's digest, so that nobody needs its files to know which it is.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nightshift import commit, objects
from nightshift.errors import ReleaseInvalid, RepositoryError, StorageError, full, no_room

log = logging.getLogger("nightshift.registry")

NAME = "nightshift"
OUT = "release"  # the out of dvc.yaml that a release is
PROD, CANARY = "prod", "canary"
BRANCH = "nightly"  # that nights are published on
TAG = re.compile(rf"{NAME}(@v\d+\.\d+\.\d+|#[a-z]+#\d+)")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """A released digest: its version, and the commit whose lock file holds it.

    Args:
        role: what the night made it as, winner, plain or refresh; "" where its tag does not say.
    """

    version: str
    commit: str
    digest: str
    role: str = field(default="", compare=False)


@dataclass(frozen=True)
class Assignment:
    """The `number`-th assignment to an environment."""

    environment: str
    number: int
    release: Release

    @property
    def told(self) -> str:
        """The sentence for a person who made it."""
        name = f"{self.release.version} ({self.release.digest[:12]})"
        if self.environment == CANARY:
            return f"{name} is tried by the endpoint now; `nightshift report` says what becomes of it."
        return f"{name} is in {self.environment}."


@dataclass(frozen=True)
class Standing:
    """What serves, what is to be tried beside it, what a rollback goes to, and digests that are neither tried nor gone
    back to."""

    stable: Release | None = None
    candidate: Release | None = None
    before: Release | None = None
    refused: frozenset[str] = frozenset()


def releases(repository: Path) -> list[Release]:
    """Every version, oldest first."""
    return _released(_tags(repository))


def assignments(repository: Path, environment: str = PROD) -> list[Assignment]:
    """Every assignment to an environment, oldest first."""
    return _assignments(_tags(repository), environment)


def current(repository: Path, environment: str = PROD) -> Release | None:
    """The release that an environment has now; None before the first."""
    found = assignments(repository, environment)
    return found[-1].release if found else None


def standing(repository: Path, refused: Collection[str] = (), anew: Collection[str] = ()) -> Standing:
    """What the register says of production, of one look at it; digests of `refused` are neither tried nor gone back to.

    The candidate is the release that was assigned `canary` last, unless it was in production already; one of `anew` is
    tried though it was.
    """
    tags = _tags(repository)
    served = [one.release for one in _assignments(tags, PROD)]
    tried = [one.release for one in _assignments(tags, CANARY)][-1:]
    digests = ({one.digest for one in served} - set(anew)) | {one.digest for one in served[-1:]} | set(refused)
    candidate = next((one for one in tried if one.digest not in digests), None)
    unfit = {*refused, *anew, served[-1].digest if served else ""}  # of what is tried nobody knows yet
    left = [one for one in served if one.digest not in unfit]
    return Standing(served[-1] if served else None, candidate, left[-1] if left else None, frozenset(refused))


def by_digest(repository: Path, digest: str) -> Release | None:
    """The version with this digest; None where it was never released."""
    return next((one for one in releases(repository) if one.digest == digest), None)


def find(repository: Path, name: str) -> Release:
    """The release of this version, or of the one digest that begins so. Raises ReleaseInvalid where it is none."""
    known = releases(repository)
    shortest = 8  # hex digits, so that a slip of the hand names nothing
    found = [one for one in known if name.removeprefix("v") == one.version.removeprefix("v")]
    found = found or [one for one in known if len(name) >= shortest and one.digest.startswith(name)]
    if len(found) != 1:
        what = "several releases begin so" if found else "it was never released"
        raise ReleaseInvalid(what, name, "`nightshift release list` shows what there is")
    return found[0]


def dates(repository: Path) -> dict[str, int]:
    """Version → when it was released, in seconds since 1970."""
    return {tag.name.partition("@")[2]: tag.made for tag in _tags(repository) if tag.name.startswith(f"{NAME}@")}


def environments(repository: Path) -> list[str]:
    """The environments that were ever assigned anything, by name."""
    return sorted({tag.name.split("#")[1] for tag in _tags(repository) if tag.name.startswith(f"{NAME}#")})


def assigned(repository: Path, digest: str, environment: str | None = None) -> bool:
    """Whether a digest was ever assigned to an environment; None for any."""
    prefix = f"{NAME}#{environment}#" if environment else f"{NAME}#"
    return any(tag.name.startswith(prefix) and tag.digest == digest for tag in _tags(repository))


def upcoming(repository: Path, environment: str = PROD) -> int:
    """The number that the next assignment to an environment has."""
    known = assignments(repository, environment)
    return known[-1].number + 1 if known else 1


def next_version(repository: Path, minor: bool) -> str:
    """The version after the last: a new system raises the minor number, documents alone the patch."""
    known = releases(repository)
    if not known:
        return "v0.1.0"
    major, middle, patch = numbers(known[-1].version)
    return f"v{major}.{middle + 1}.0" if minor else f"v{major}.{middle}.{patch + 1}"


def numbers(version: str) -> tuple[int, int, int]:
    """A version as numbers, which sort."""
    major, minor, patch = version.removeprefix("v").split(".")
    return int(major), int(minor), int(patch)


def tag(version: str) -> str:
    """The name of a version's tag."""
    return f"{NAME}@{version}"


def message(release: str, **more: str) -> str:
    """The message of a tag about the release with this digest."""
    return json.dumps({"digest": release, **more}, sort_keys=True)


def assign(repository: Path, release: Release, environment: str = PROD, number: int | None = None) -> Assignment:
    """Assign a release; the assignment that there is when it is the newest already.

    Raises RepositoryError when another assignment came first, or `number`, the one that was agreed on, is taken.
    """
    known = assignments(repository, environment)
    if known and known[-1].release.digest == release.digest:
        return known[-1]
    made = Assignment(environment, number or (known[-1].number + 1 if known else 1), release)
    _annotate(repository, f"{NAME}#{environment}#{made.number}", release, version=release.version)
    return made


def version(repository: Path, release: Release, **more: str) -> None:
    """Give a release its version. Raises RepositoryError when that version is there already."""
    _annotate(repository, tag(release.version), release, **more)


def fetch(repository: Path, release: Release, target: Path) -> Path:
    """The release's folder, from DVC's cache or remote, checked against its manifest and its digest.

    A copy that was fetched before and is damaged is fetched again, and a warning says so. Raises ReleaseInvalid when
    what the cache holds is not what the tag says, StorageError when it is not to be had; `target` is then not there.
    """
    if target.is_dir():
        if (altered := damage(target, release)) is None:
            return target
        log.warning("The copy in %s was altered (%s: %s), and is fetched anew.", target, *altered)
    shutil.rmtree(target, ignore_errors=True)
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        DVCFileSystem(str(repository), rev=release.commit).get(OUT, str(draft), recursive=True)
    except (DvcException, DataIndexDirError, OSError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        if full(error):
            raise no_room(str(draft)) from None
        do = "`dvc fetch` it from the remote, or assign another release"
        raise StorageError(f"its files are not to be had ({error})", release.version, do) from None
    if found := damage(draft, release):
        shutil.rmtree(draft)
        raise _invalid(repository, release, *found)
    draft.replace(target)
    return target


def cached(repository: Path, release: Release) -> bool:
    """Whether DVC's cache holds a release, so that a copy of it can be made again."""
    lock = _git(repository, "cat-file", "blob", f"{release.commit}:dvc.lock").stdout
    held = objects.place(lock, repository, OUT, commit.MANIFEST)
    return held is not None and held.is_file() and commit.sha256(held) == release.digest


@dataclass(frozen=True)
class _Tag:
    name: str
    commit: str
    made: int  # seconds since 1970
    said: dict[str, str]

    @property
    def digest(self) -> str:
        return self.said.get("digest", "")


def _annotate(repository: Path, name: str, release: Release, **more: str) -> None:
    words = ["-c", "user.name=Nightshift", "-c", "user.email=nightshift@localhost", "tag", "--annotate", name]
    done = _git(repository, *words, "--message", message(release.digest, **more), release.commit)
    if done.returncode != 0:
        raise RepositoryError(f"{name} could not be made ({done.stderr.strip()})", str(repository), "try again")


def _released(tags: Sequence[_Tag]) -> list[Release]:
    found = [_release(tag) for tag in tags if tag.name.startswith(f"{NAME}@")]
    return sorted(found, key=lambda one: numbers(one.version))


def _assignments(tags: Sequence[_Tag], environment: str) -> list[Assignment]:
    prefix = f"{NAME}#{environment}#"
    known = {one.digest: one for one in _released(tags)}
    found = [
        Assignment(environment, int(tag.name.removeprefix(prefix)), known[tag.digest])
        for tag in tags
        if tag.name.startswith(prefix) and tag.digest in known
    ]
    return sorted(found, key=lambda one: one.number)


def _release(tag: _Tag) -> Release:
    return Release(tag.name.partition("@")[2], tag.commit, tag.digest, str(tag.said.get("role", "")))


def _tags(repository: Path) -> list[_Tag]:
    """Annotated tags of ours whose message is JSON with a digest; other tags are other people's.

    The digest names a folder that may be removed: nothing but 64 hex digits is one.
    """
    wanted = "--format=%(refname:strip=2)%1f%(*objectname)%1f%(creatordate:unix)%1f%(contents:subject)"
    listed = _git(repository, "for-each-ref", wanted, f"refs/tags/{NAME}[@#]*")
    if listed.returncode != 0:
        raise RepositoryError("this is not a Git repository", str(repository), "go into the project's folder")
    found = []
    for line in listed.stdout.split("\n"):
        with suppress(ValueError, TypeError):
            name, at, when, said = line.split("\x1f")
            message = dict(json.loads(said))
            if at and TAG.fullmatch(name) and DIGEST.fullmatch(str(message.get("digest"))):
                found.append(_Tag(name, at, int(when), message))
    return found


def damage(folder: Path, release: Release) -> tuple[str, str] | None:
    """A file that makes a folder another one than was released, and how; None when it is the one."""
    if found := commit.damage(folder):
        return found
    return None if commit.digest(folder) == release.digest else (commit.MANIFEST, "it has another manifest")


def _invalid(repository: Path, release: Release, name: str, what: str) -> ReleaseInvalid:
    """The error of a release that the cache holds in another form than it was released in."""
    lock = _git(repository, "cat-file", "blob", f"{release.commit}:dvc.lock").stdout
    held = objects.place(lock, repository, OUT, name)
    do = f"remove {held}, run the night again and restart the endpoint, or " if held else ""
    said = f"its files are not those that were released ({what})"
    return ReleaseInvalid(said, release.version, f"{do}assign another release")


def _git(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=False)
