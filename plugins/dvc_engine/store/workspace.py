"""A private clone of one commit for one task, and one cache for all.

Two DVC processes in one checkout lose work (of twelve at a time, three to five finished for nothing); in clones of
their own none does. A local clone takes 14 ms and reaches commits that no branch holds. The clone sees exactly the
tags that the night was pinned with, so that what a stage reads of the registry cannot change under it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from errno import EINVAL
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dvc_engine.git import git
from dvc_engine.store import submodules

if TYPE_CHECKING:
    from configobj import ConfigObj

OWNER = "owner"  # a file that the job's process holds a lock on
BEING_MADE_S = 60.0
MOST_KEPT, MOST_KEPT_BYTES = 10, 5 << 30  # clones of failed attempts that stay to be looked at
LITTLE_BYTES = 1 << 30  # of a disk with less that is free none stays
PATHS = (  # options of a remote that DVC names from the folder of the configuration
    "url",
    "gdrive_user_credentials_file",
    "gdrive_service_account_json_file_path",
    "credentialpath",
    "configpath",
    "keyfile",
    "cert_path",
    "key_path",
)

_owned: dict[Path, TextIO] = {}  # job's folder → its owner's file, held open


def cache_of(root: Path) -> Path:
    """The folder of a project's DVC cache, as its configuration has it."""
    folder, said = _configured(root, "cache", "dir") or (root / ".dvc", "cache")
    return (folder / Path(said).expanduser()).resolve()


def remote_of(root: Path) -> str | None:
    """The name of a project's default remote, or None."""
    _, said = _configured(root, "core", "remote") or (root, None)
    return said


def _configured(root: Path, section: str, key: str) -> tuple[Path, str] | None:
    """A value of DVC's configuration, of this checkout, the project, the user or the machine, and its file's folder."""
    import platformdirs

    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    for file in (root / ".dvc" / "config.local", *(Path(one, "config") for one in (root / ".dvc", user, system))):
        if said := _config(file).get(section, {}).get(key):
            return file.parent, str(said)
    return None


def _config(file: Path) -> ConfigObj:
    """A file of DVC's configuration, as DVC reads it; empty where there is none. Raises OSError where DVC cannot."""
    from configobj import ConfigObj, ConfigObjError, InterpolationError

    try:
        found = ConfigObj(str(file), encoding="utf-8")
        sections = found.dict()
        if wrong := next((name for name, said in sections.items() if not isinstance(said, dict)), None):
            raise ValueError(f"{wrong} stands in no section")
    except (ConfigObjError, InterpolationError, ValueError) as error:
        raise OSError(EINVAL, f"DVC cannot read its configuration ({error}); mend it there", str(file)) from None
    return found


def make(repository: Path, commit: str, job: Path, tags: Mapping[str, str], cache: Path, project: str = "") -> Path:
    """Clone `commit` into `job`/clone, with these tags (name → object) and the shared cache. Raises GitError.

    The folder is this process's until `remove`, or its end: a child's that outlives it by seconds may go.

    Returns:
        Where the project stands in the clone.
    """
    remove(job)
    if _full(job):
        sweep(job.parent)
    job.mkdir(parents=True)
    draft = job / f"{OWNER}.new"  # another's sweep is not to find it before it is locked
    _owned[job] = draft.open("w")
    fcntl.flock(_owned[job], fcntl.LOCK_EX)
    draft.rename(job / OWNER)
    clone = job / "clone"
    git(repository, "clone", "--quiet", "--local", "--no-checkout", "--no-tags", str(repository), str(clone))
    if (clone / ".git" / "shallow").is_file():  # then Git has not linked all objects of the checkout, but of its refs
        git(clone, "fetch", "--quiet", "--no-tags", str(repository), commit)
    git(clone, "checkout", "--quiet", "--detach", commit)
    submodules.bring(repository, clone)
    if tags:
        git(clone, "update-ref", "--stdin", stdin="".join(f"create refs/tags/{n} {o}\n" for n, o in tags.items()))
    _configure(repository / project, clone / project, cache, job / "site")
    return clone / project


def _configure(root: Path, clone: Path, cache: Path, site: Path) -> None:
    """Give a clone what the checkout's own configuration says (a remote's credentials, say), and where paths lead."""
    local = root / ".dvc" / "config.local"
    own, shared = _config(local), _config(root / ".dvc" / "config")
    own.filename = str(clone / ".dvc" / "config.local")
    for section in dict.fromkeys([*shared.sections, *own.sections]):
        said = {**shared.get(section, {}), **own.get(section, {})}
        paths = {key: str(said[key]) for key in PATHS if section.startswith("remote ") and key in said}
        for key, path in paths.items():
            if "://" not in path and not Path(path).expanduser().is_absolute():
                own[section] = {**own.get(section, {}), key: str((root / ".dvc" / path).resolve())}
    own["core"] = {**own.get("core", {}), "site_cache_dir": str(site)}  # DVC keeps one of each clone, for good
    own["cache"] = {**own.get("cache", {}), "dir": str(cache)}
    if local.is_file():  # no others may read it there either
        Path(own.filename).touch(mode=0o600)
        Path(own.filename).chmod(local.stat().st_mode)
    own.write()


def remove(job: Path) -> None:
    """Remove a job's folder, which nobody needs any more."""
    _removed(job)
    if held := _owned.pop(job, None):
        held.close()


def sweep(clones: Path, most: int = MOST_KEPT, most_bytes: int = MOST_KEPT_BYTES) -> list[Path]:
    """Remove what failed attempts and lost workers left, the oldest first, down to so many and so much.

    Of a disk that is nearly full all of it goes.

    Returns:
        What went. What a living process owns stays, on whatever side of a container's wall it is.
    """
    gone: list[Path] = []
    most = 0 if _full(clones) else most
    dead = [folder for folder in clones.iterdir() if _dead(folder)] if clones.is_dir() else []
    kept_bytes = 0
    for number, folder in enumerate(sorted(dead, key=_made, reverse=True)):
        kept_bytes += _bytes(folder) if most else 0
        if number >= most or kept_bytes > most_bytes:
            gone += [folder] if _removed(folder) else []
    return gone


def _removed(folder: Path) -> bool:
    """Remove a folder, and whether it is gone; nothing can be taken out of a read-only one, as Go keeps its modules."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for above, below, _ in os.walk(folder):
            for inner in (Path(above, name) for name in below):
                if not inner.is_symlink():
                    with suppress(OSError):  # another user's, or another sweep was faster
                        inner.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _full(folder: Path) -> bool:
    """Whether the disk is so full that what failed attempts left is in the way of those to come."""
    there = next(one for one in [folder, *folder.parents] if one.exists())
    disk = shutil.disk_usage(there)
    return disk.free < min(LITTLE_BYTES, disk.total // 10)


def _made(job: Path) -> float:
    """When a job's folder was made, seconds since the epoch; one that another sweep has removed is the oldest."""
    with suppress(OSError):
        return job.stat().st_mtime
    return 0.0


def _dead(job: Path) -> bool:
    """Whether nobody holds a job's folder; one that is just being made is held."""
    try:
        with (job / OWNER).open("r+") as owner:  # a lock over NFS needs one that may be written
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        with suppress(OSError):
            return time.time() - job.stat().st_mtime > BEING_MADE_S
        return False
    except OSError:
        return False
    return True


def _bytes(folder: Path) -> int:
    """What removing a folder would free: what is linked from the cache stays there."""
    found = 0
    with suppress(OSError):  # another sweep removes it
        for one in folder.rglob("*"):
            with suppress(OSError):
                said = one.lstat()
                found += said.st_blocks * 512 if said.st_nlink == 1 or one.is_dir() else 0
    return found
