"""Outs that DVC keeps no object of (`cache: false`): metrics for Git, and data that a project leaves in its work tree.

A clone that reads one is another than the one that made it. So they are kept as DVC keeps the others, in a store of the
engine's beside its cache, under the hash that dvc.lock has of them. The publisher commits those that Git does not
ignore.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dvc_engine.pipeline import lock
from dvc_engine.store import objects, workspace
from dvc_engine.store.objects import Lacking

if TYPE_CHECKING:
    from dvc_engine.pipeline.lock import Entry
    from dvc_engine.pipeline.project import Stage

FOLDER = "dvc-airflow"
FORBIDDEN = 403  # of HTTP
LIMIT = 1 << 30  # bytes of one stage, where nobody says otherwise


def store(cache: Path) -> Path:
    """The folder of the store, beside the objects of DVC's cache."""
    return cache / FOLDER


class TooLarge(Exception):
    """Outs over the limit: how much, and what to do."""


def keep(repo: Any, paths: Sequence[str], cache: Path, limit_bytes: int, push: bool) -> None:
    """Put outs of the clone that one stands in into the store, and into the remote's. Raises TooLarge, and as DVC."""
    from dvc.fs import localfs
    from dvc_data.hashfile.build import build

    held, found = _kept(store(cache)), set()
    if (size := sum(_size(Path(path)) for path in paths)) > limit_bytes:
        what = f"its outs with `cache: false` are {size} bytes, {limit_bytes} at most are kept"
        raise TooLarge(f"{what}; let DVC cache them, or raise the DAG's limit_bytes")
    for path in paths:
        staging, _, one = build(held, path, localfs, "md5", ignore=repo.dvcignore)
        _move(staging, held, {one.hash_info})
        found.add(one.hash_info)
    objects.touch(store(cache), [str(one.value) for one in found])
    if push and found:
        _move(held, _remote(repo), found)


def fetch(repo: Any, wanted: Mapping[str, str], cache: Path) -> None:
    """Bring what the store lacks of outs, by path and md5, from the remote's; what that lacks too is passed over."""
    from dvc_data.hashfile.hash_info import HashInfo

    for md5 in (one for one in wanted.values() if not present(one, cache)):
        with suppress(FileNotFoundError):
            _move(_remote(repo), _kept(store(cache)), {HashInfo("md5", md5)})


def bring(root: Path, wanted: Mapping[str, str], cache: Path) -> None:
    """Fetch outs from the remote of the project at `root`, where it has one; what that lacks is passed over.

    Raises OSError where it does not answer.
    """
    if workspace.remote_of(root) is None:
        return
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            fetch(repo, wanted, cache)
            if lacking := [one for one in wanted.values() if not present(one, cache)]:
                _ask(_remote(repo), lacking[0])
    except Exception as error:  # a remote's client raises what it likes, as botocore's NoCredentialsError
        raise OSError(f"DVC's remote does not answer: {type(error).__name__}: {error}") from error


def restore(wanted: Mapping[str, str], executable: Iterable[str], cache: Path) -> None:
    """Write outs, by path and md5, into the clone that one stands in. Raises Lacking for one that the store lacks.

    Args:
        executable: paths of those that may be run.
    """
    objects.require(store(cache), wanted)
    for path, md5 in wanted.items():
        for name, held in files(path, md5, cache):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held, name)  # and not linked: a stage may write on in it
    for path in set(executable) & wanted.keys():
        Path(path).chmod(Path(path).stat().st_mode | 0o111)


def had(stage: Stage, entry: Entry, content: Callable[[str], bytes | None], cache: Path) -> bool:
    """Whether the store has all of an entry's outs that DVC does not cache.

    A file that `content` has is taken in, and what DVC's cache has, from before `cache: false` was written.

    Args:
        content: of a path at the commit that the entry came with; None for what is no file there.
    """
    md5 = lock.hashes(stage, entry, "outs")
    for path in stage.uncached:
        if path not in md5:
            return False
        if present(md5[path], cache) or _kept_before(md5[path], cache):
            continue
        said = content(path)
        if said is None or objects.md5(said) != md5[path]:
            return False
        _take(said, md5[path], cache)
    return True


def present(md5: str, cache: Path) -> bool:
    """Whether the store has an out, and for a folder all that it lists."""
    try:
        objects.require(store(cache), {"": md5}, members=False)
    except Lacking:
        return False
    return True


def files(path: str, md5: str, cache: Path) -> Iterator[tuple[str, Path]]:
    """Every file of an out: where it lies in a project, and its object."""
    top = objects.place(store(cache), md5)
    if not md5.endswith(".dir"):
        yield path, top
        return
    for one in json.loads(top.read_text(encoding="utf-8")):
        yield f"{path}/{one['relpath']}", objects.place(store(cache), one["md5"])


def _kept_before(md5: str, cache: Path) -> bool:
    """Take in what DVC's cache has; False where it does not have all of it."""
    if not objects.place(cache, md5).is_file() or objects.problems(cache, {"": md5}, members=False):
        return False
    from dvc_data.hashfile.hash_info import HashInfo

    with suppress(OSError):
        _move(_kept(cache), _kept(store(cache)), {HashInfo("md5", md5)})
    return present(md5, cache)


def _take(content: bytes, md5: str, cache: Path) -> None:
    place = objects.place(store(cache), md5)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(place)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(one.lstat().st_size for one in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _kept(folder: Path) -> Any:
    """The objects of DVC's cache, or of the store."""
    from dvc.fs import localfs
    from dvc_data.hashfile.db.local import LocalHashFileDB

    made: Any = LocalHashFileDB
    return made(localfs, str(folder / "files" / "md5"))


def _remote(repo: Any) -> Any:
    """The engine's store in the project's remote, beside DVC's objects."""
    from dvc_data.hashfile.db import get_odb

    remote, made = repo.cloud.get_remote(), cast(Any, get_odb)
    return made(remote.fs, remote.fs.join(remote.path, FOLDER, "files", "md5"), hash_name="md5", **remote.config)


def _ask(remote: Any, md5: str) -> None:
    """Read an object that the remote's store seems to lack, since one of HTTP that is away seems to lack all.

    Raises what its client raises, but for its word that it has none, or none for who asks: S3 says so of both.
    """
    try:
        remote.fs.cat_file(remote.oid_to_path(md5))
    except (FileNotFoundError, PermissionError):
        return
    except Exception as error:
        if getattr(error, "status", None) != FORBIDDEN:
            raise


def _move(source: Any, target: Any, wanted: set[Any]) -> None:
    """Copy objects, of folders with all that they list. Raises OSError where one did not arrive."""
    from dvc_data.hashfile.transfer import transfer

    if failed := transfer(source, target, wanted, shallow=False, verify=True).failed:
        raise OSError(f"{len(failed)} objects of outs with `cache: false` did not arrive at {target.path}")
