"""The process that checks out a stage's deps and reproduces it, once, in a clone of its own.

One process does both through DVC's API (two commands take a second longer a stage). Its parent hangs on a
leash (leash.py), and SIGTERM is for what the stage started: this reports afterwards.

What a stage reads from the cache is hashed before, and fetched from the remote where it is missing or damaged.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from dvc_airflow.store import objects, uncached
from dvc_airflow.store.objects import Lacking
from dvc_airflow.store.uncached import TooLarge


def main(job: str) -> int:
    """Reproduce as the job file says; writes `result.json` beside it. Returns 0, or 1 when the stage failed.

    Args:
        job: JSON file with what job.py tells.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    asked = json.loads(Path(job).read_text(encoding="utf-8"))
    Path(job).unlink()  # a stage's secrets stand in it
    os.environ.pop("PYTHONPATH", None)  # the engine's, and nothing that a stage is to import from
    own = Path(job).with_name("tmp")
    own.mkdir()
    tempfile.tempdir = str(own)  # of DVC alone: it leaves a clone there of each repository that is imported from
    gc.disable()  # of DVC's 600 modules nothing can go, and to look for it again and again takes a sixth of their time
    result = _reproduce(**asked)
    Path(job).with_name("result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0 if "error" not in result else 1


def leave(code: int) -> NoReturn:
    """End this process. All is written; to take DVC's 600 modules apart would cost a tenth of a second a stage."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reproduce(
    clone: str,
    stage: str,
    imported: bool,
    deps: list[str],
    below: list[str],
    env: dict[str, str],
    push: bool,
    cache: str,
    needed: dict[str, str],
    own: dict[str, str],
    last: list[str],
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
    with suppress(Lacking):
        objects.require(store, own, members=False)  # a damaged list of its last outs would not be written anew
    try:
        with Repo(clone) as repo:
            gc.freeze()
            gc.enable()
            repo.scm_context.quiet = True  # it would advise to `git add` what the night commits
            _bring(repo, [*deps, *below], push, store, needed)
            _ignore(repo, below)
            if push:
                uncached.fetch(repo, restore | wanted, store)
            there = {path: md5 for path, md5 in wanted.items() if uncached.present(md5, store)}
            uncached.restore(restore | there, executable, store)
            _bring_last(repo, last, push)
            if imported:
                made = repo.update(targets=[stage])
            else:
                kind = "failed"
                made = repo.reproduce(targets=[stage], single_item=True, run_env=env)
            kind = "storage"
            _require_saved(made, store)
            uncached.keep(repo, keep, store, limit_bytes, push)
            if push and made:
                repo.push(targets=[stage])
    except LockError as error:
        return {"error": "lock", "sentence": str(error)}
    except TooLarge as error:
        return {"error": "refused", "sentence": str(error)}
    except Lacking as error:  # with a remote another attempt may fetch it; without one only another night makes it
        return {"error": "storage" if push else "refused", "sentence": str(error), "lacking": True}
    except (DvcException, OSError) as error:
        return {"error": kind, "sentence": _sentence(error)}
    except Exception as error:  # a remote's client raises what it likes, as botocore's NoCredentialsError
        traceback.print_exc()
        return {"error": kind, "sentence": f"{type(error).__name__}: {_sentence(error)}"}
    return {"reproduced": bool(made)}


def _bring(repo: Any, targets: list[str], push: bool, store: Path, needed: dict[str, str]) -> None:
    """Check out what the stage reads, each byte hashed before. Raises Lacking, and what DVC raises."""
    if not targets:
        return
    found = objects.problems(store, needed)
    if found and push:
        repo.fetch(targets=targets)
        found = objects.problems(store, needed)  # what a remote sends is hashed too
    if found:
        raise Lacking(found[0])
    repo.checkout(targets=targets, force=True)


def _require_saved(made: list[Any], store: Path) -> None:
    """Raises OSError where DVC did not save all that a stage made: on a full disk it says so, and goes on."""
    outs = {
        str(out): str(out.hash_info.value)
        for stage in made
        for out in stage.outs
        if out.use_cache and out.hash_info.name == "md5" and out.hash_info.value
    }
    if found := objects.problems(store, outs, members=False):
        free = shutil.disk_usage(store).free
        raise OSError(f"DVC did not save all that it made ({free} bytes are free at {store}): {found[0]}")


def _ignore(repo: Any, targets: list[str]) -> None:
    """Name outs in .gitignore, as DVC does where they are made: it counts that to a dep above one."""
    for target in targets:
        for out in repo.index.targets_view([target]).outs:
            out.ignore()


def _bring_last(repo: Any, paths: list[str], push: bool) -> None:
    """Check out what the stage made last, so that DVC can tell that it need not run; what is lost is passed over."""
    from dvc.exceptions import CheckoutError, DvcException

    if not paths:
        return
    with suppress(DvcException):
        if push:
            repo.fetch(targets=paths)
    with suppress(CheckoutError):
        repo.checkout(targets=paths, force=True, allow_missing=True)


def _sentence(error: BaseException) -> str:
    """What DVC said, with what it had from below, on one line."""
    said = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        said.append(str(error) or type(error).__name__)  # DVC asserts, without a word
    return " ".join(": ".join(dict.fromkeys(filter(None, said))).split())
