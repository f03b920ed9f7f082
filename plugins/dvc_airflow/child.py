"""The process that checks out a stage's deps and reproduces it, once, in a clone of its own.

One process does both through DVC's API (two commands take a second longer a stage). It leads a session of its own,
so that everything that the stage starts can be ended together, and it hangs on a leash: a pipe whose write end only
the task holds. When the task dies, however it dies, the pipe ends and this process ends the whole group, itself
last.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

GRACE_S = 4.0  # between SIGTERM and SIGKILL; Airflow gives a task five seconds


def main(job: str, leash: int) -> int:
    """Reproduce as the job file says; writes `result.json` beside it. Returns 0, or 1 when the stage failed.

    Args:
        job: JSON file with clone, stage, deps (paths to check out), env (for the stage alone), push.
        leash: file descriptor that ends when the task is gone.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # the stage gets the group's SIGTERM; this one reports afterwards
    threading.Thread(target=_hang_on, args=(leash,), daemon=True).start()
    asked = json.loads(Path(job).read_text(encoding="utf-8"))
    result = _reproduce(**asked)
    Path(job).with_name("result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0 if "error" not in result else 1


def _reproduce(clone: str, stage: str, deps: list[str], env: dict[str, str], push: bool) -> dict[str, Any]:
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    os.chdir(clone)
    kind = "failed"
    try:
        with Repo(clone) as repo:
            kind = "storage"
            if deps:
                if push:
                    repo.fetch(targets=deps)
                repo.checkout(targets=deps, force=True)
            kind = "failed"
            made = repo.reproduce(targets=[stage], single_item=True, run_env=env)
            kind = "storage"
            if push and made:
                repo.push(targets=[stage])
    except LockError as error:
        return {"error": "lock", "sentence": str(error)}
    except (DvcException, OSError) as error:
        return {"error": kind, "sentence": _sentence(error)}
    return {"reproduced": bool(made)}


def _sentence(error: BaseException) -> str:
    """What DVC said, with what it had from below."""
    said = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        said.append(str(error))
    return ": ".join(dict.fromkeys(filter(None, said)))


def _hang_on(leash: int) -> None:
    while os.read(leash, 1):
        pass
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
