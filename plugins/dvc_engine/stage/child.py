"""The process that checks out a stage's deps and reproduces it, once, in a clone of its own.

One process does both through DVC's API (two commands take a second longer a stage). Its parent hangs on a
leash (leash.py), and SIGTERM is for what the stage started: this reports afterwards.

What a stage reads from the cache is hashed before, and fetched from the remote where it is missing or damaged.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from dvc_engine.store import objects, uncached
from dvc_engine.store.objects import Lacking
from dvc_engine.store.uncached import TooLarge

# the file that a stage stands in, its key there, "" for the only one of a `.dvc` file, and a path that it makes
Made = tuple[str, str, str]


def main(folder: str) -> int:
    """Reproduce as a line on standard input says; writes `result.json`. Returns 0, or 1 when the stage failed.

    Args:
        folder: of the job.
    """
    gc.disable()  # of DVC's 600 modules nothing can go, and to look for it again and again takes a sixth of their time
    from dvc.repo import Repo  # noqa: F401  while the task makes the clone

    with os.fdopen(0, closefd=False) as told:
        line = told.readline()  # what job.py tells, as JSON
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not line:  # the task does not need it, or died
        return 1
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.environ.pop("PYTHONPATH", None)  # the engine's, and nothing that a stage is to import from
    own = Path(folder, "tmp")
    own.mkdir()
    tempfile.tempdir = str(own)  # of DVC alone: it leaves a clone there of each repository that is imported from
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).addHandler(HEARD)
    result = _reproduce(**json.loads(line))
    try:
        _write(Path(folder), result)
    except OSError:  # on a full disk what DVC kept of the clone makes place
        shutil.rmtree(Path(folder, "site"), ignore_errors=True)
        _write(Path(folder), result)
    return 0 if "error" not in result else 1


def _write(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def leave(code: int) -> NoReturn:
    """End this process. All is written; to take DVC's 600 modules apart would cost a tenth of a second a stage."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reproduce(
    clone: str,
    stage: str,
    imported: bool,
    deps: list[Made],
    below: list[Made],
    env: dict[str, str],
    remote: bool,
    push: bool,
    cache: str,
    needed: dict[str, str],
    going_on: dict[str, str],
    own: dict[str, str],
    last: list[Made],
    restore: dict[str, str],
    wanted: dict[str, str],
    executable: list[str],
    keep: list[str],
    limit_bytes: int,
) -> dict[str, Any]:
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    os.chdir(clone)
    kind, store = "storage", Path(cache)
    objects.problems(store, own, members=False)  # puts aside: a damaged list of its last outs would not be written anew
    try:
        with Repo(clone) as repo:
            gc.freeze()
            gc.enable()
            repo.scm_context.quiet = True  # it would advise to `git add` what the night commits
            mended = _bring(repo, [*deps, *below], remote, store, needed)
            _link(repo)
            _ignore(repo, below)
            _restore(repo, restore, wanted, executable, remote, store)
            _bring_last(repo, last, remote, store, going_on)
            if imported:
                made = repo.update(targets=[stage])
            else:
                kind = "failed"
                made = repo.reproduce(targets=[stage], single_item=True, run_env=env)
            kind = "storage"
            _take_in(made, store)
            uncached.keep(repo, keep, store, limit_bytes, remote and push)
            if made and push:
                _push(repo, made, stage, remote)
    except (LockError, TooLarge) as error:
        return {"error": "lock" if isinstance(error, LockError) else "refused", "sentence": str(error)}
    except Lacking as error:  # with a remote another attempt may fetch it; without one only another night makes it
        return {"error": "storage" if remote else "refused", "sentence": str(error), "lacking": True}
    except (DvcException, OSError) as error:
        return {"error": kind, "sentence": _sentence(error)}
    except Exception as error:  # a remote's client raises what it likes, as botocore's NoCredentialsError
        traceback.print_exc()
        return {"error": kind, "sentence": f"{type(error).__name__}: {_sentence(error)}"}
    return {"reproduced": bool(made), "mended": mended}


def _push(repo: Any, made: list[Any], stage: str, remote: bool) -> None:
    """Take what was made to the project's remote; where that has none, what names one itself."""
    if remote:
        repo.push(targets=[stage])
    elif named := [out.fs_path for one in made for out in one.outs if out.remote]:
        repo.push(targets=named)


def _restore(
    repo: Any, read: dict[str, str], wanted: dict[str, str], executable: list[str], remote: bool, store: Path
) -> None:
    """Bring what DVC does not cache: what the stage reads, and of what it made last what is there. Raises Lacking."""
    if remote:
        uncached.fetch(repo, read | wanted, store)
    there = {path: md5 for path, md5 in wanted.items() if uncached.present(md5, store)}
    uncached.restore(read | there, executable, store)


def _bring(repo: Any, paths: list[Made], remote: bool, store: Path, needed: dict[str, str]) -> list[str]:
    """Check out what the stage reads, each byte hashed before; a sentence about each object that is mended.

    Raises Lacking, and what DVC raises.
    """
    outs, read = _outs(repo, paths), [path for *_, path in paths]
    first = found = objects.problems(store, needed, read=read)
    old = any(out.hash_name != "md5" and out.changed_cache(place) for out, place in outs)
    if (found or old) and _fetch(repo, paths, remote):
        said = {one.held: one for one in first}  # what was put aside is missing now
        again = objects.problems(store, needed, read=read)  # what a remote sends is hashed too
        found = [said.get(one.held, one) for one in again]
    if found:
        raise Lacking(found[0].sentence)
    for out, place in outs:
        if place == out.fs_path or out.is_dir_checksum:  # else DVC says of the dep that it is not there
            out.checkout(force=True, filter_info=place)
    return [f"{one.what}, and fetched anew" for one in first if one.aside]


def _outs(repo: Any, paths: list[Made]) -> list[tuple[Any, str]]:
    """DVC's out of each path, and where the path lies.

    By its own commands' targets DVC takes `train` for the stage of that name where another makes a file `train`; and
    what is no stage it looks for in the graph of all, which takes seconds where they are thousands.
    """
    found = []
    for file, key, path in paths:
        place = repo.fs.abspath(path)
        outs = (out for out in _stage(repo, file, key).outs if out.protocol == "local")
        found.append((next(out for out in outs if out.fs.isin_or_eq(place, out.fs_path)), place))
    return found


@cache
def _stage(repo: Any, file: str, key: str) -> Any:
    return _stages(repo, file)[key or None]


@cache
def _stages(repo: Any, file: str) -> Any:
    """The stages of a file; of 2,000 that takes half a second each time."""
    from dvc.dvcfile import load_file

    return load_file(repo, repo.fs.abspath(file)).stages


def _fetch(repo: Any, paths: list[Made], remote: bool) -> bool:
    """Fetch them: by stage where all that it makes is wanted, else by the whole path, which no stage is called.

    By stage too, and more than is wanted, where the path has a letter that DVC takes for more than a letter.

    Args:
        remote: whether the project has one; else what names one itself, or a repository, is fetched.

    Returns:
        Whether there was anything to be fetched.
    """
    wanted: dict[str, list[tuple[Any, str]]] = {}
    for (file, key, _), found in zip(paths, _outs(repo, paths), strict=True):
        if remote or found[0].remote or found[0].stage.is_repo_import:
            wanted.setdefault(f"{file}:{key}" if key else file, []).append(found)
    stages, parts = [], []
    for stage, outs in wanted.items():
        places = [place for _, place in outs]
        every = {out.fs_path for out in outs[0][0].stage.outs if out.use_cache}
        misread = set("".join(places)) & set("\\:")
        if remote and (misread or every <= set(places)):
            stages.append(stage)
        else:
            parts += places
    for targets in (stages, parts):  # together DVC would look for a part in the file of the target before it alone
        if targets:
            repo.fetch(targets=targets)
    return bool(wanted)


def _link(repo: Any) -> None:
    """Link the clone with what DVC keeps from here on: nothing writes on in that, and the clone goes.

    What a stage reads is brought as the project's `cache.type` says: as copies, if nothing else, since a stage may
    write in its deps (a data base that it opens), root may in what is read-only, and of tracked data the cache may have
    the only one. What it makes DVC copies first, where it cannot clone it: with a hard link before, it would take in
    what the out is itself a link to, and what somebody still writes in.
    """
    for kept in (repo.cache.local, repo.cache.legacy):
        kept.cache_types = ["reflink", "hardlink", "copy"]


def _take_in(made: list[Any], store: Path) -> None:
    """Let what a stage made be young, though DVC had it already.

    Raises OSError where DVC did not save all of it: on a full disk it says so, and goes on.
    """
    outs = {
        str(out): str(out.hash_info.value)
        for stage in made
        for out in stage.outs
        if out.use_cache and out.hash_info.name == "md5" and out.hash_info.value
    }
    if found := objects.problems(store, outs, members=False):
        free = shutil.disk_usage(store).free
        raise OSError(f"DVC did not save all that it made ({free} bytes are free at {store}): {found[0].sentence}")
    objects.touch(store, outs.values())


def _ignore(repo: Any, paths: list[Made]) -> None:
    """Name outs in .gitignore, as DVC does where they are made: it counts that to a dep above one."""
    for out, _ in _outs(repo, paths):
        out.ignore()


def _bring_last(repo: Any, paths: list[Made], remote: bool, store: Path, going_on: dict[str, str]) -> None:
    """Check out what the stage made last: it goes on in it, or DVC looks at it; what is lost is passed over."""
    from dvc.exceptions import DvcException

    lost = objects.problems(store, going_on)
    if lost or any(path not in going_on for *_, path in paths):
        with suppress(DvcException):
            _fetch(repo, paths, remote)
        HEARD.said = ""
    for out, place in _outs(repo, paths):
        with suppress(FileNotFoundError):
            out.checkout(force=True, filter_info=place, allow_missing=True)


class Heard(logging.Handler):
    """The last error that DVC logged: which file a remote did not take, and why, it says nowhere else."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        why = record.exc_info[1] if record.exc_info else None
        self.said = f"{record.getMessage()}: {why}" if why else record.getMessage()


HEARD = Heard(logging.ERROR)


def _sentence(error: BaseException) -> str:
    """What DVC said, with what it had from below and what it logged, on one line."""
    from dvc.exceptions import UploadError

    do = "; for a remote that can only be read there is push=False" if isinstance(error, UploadError) else ""
    said = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        said.append(str(error) or type(error).__name__)  # DVC asserts, without a word
    said.append(HEARD.said)
    return " ".join(": ".join(dict.fromkeys(filter(None, said))).split()) + do
