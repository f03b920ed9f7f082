"""Commands of Python from a server that has imported what they import: a hundred of them cost no hundred starts.

Each is a process with its own folder, variables and streams, as if it was typed; only its imports are done already.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

FORKS = get_context("forkserver")


def preload(path: Path, *modules: str) -> None:
    """Start the server with these modules, found at a path; it is one for a process, and ends with that."""
    assert all(map(find_spec, modules))  # the server passes over what is not there
    FORKS.set_forkserver_preload([*modules, __name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(path), str(Path(__file__).parents[1]))))
        ensure_running()


def run(
    module: str, *words: str, cwd: Path, env: Mapping[str, str], scratch: Path, within_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """What `python -m MODULE WORDS` ends with; its streams lie in `scratch` meanwhile.

    Raises TimeoutError when it takes longer, and kills it.
    """
    said = [scratch / name for name in ("stdout", "stderr")]
    child = FORKS.Process(target=_main, args=([module, *words], cwd, dict(env), said))
    child.start()
    child.join(within_s)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError(f"{module} {words} takes longer than {within_s} s")
    return subprocess.CompletedProcess([module, *words], child.exitcode, *(path.read_text() for path in said))


def _main(command: Sequence[str], cwd: Path, env: Mapping[str, str], said: Sequence[Path]) -> None:
    for number, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
