"""Environments of stages: one for each content of a requirements file and all that it names, kept by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from dvc_engine.pipeline.requirements import RequirementsError, rests_on
from dvc_engine.stage import leash
from dvc_engine.stage.process import Leashed, scrubbed

MOST_KEPT = 10
LOOK_S = 0.1  # between two looks whether another has installed it
MADE = "complete"  # a file in one that was made to its end

_used: dict[Path, TextIO] = {}  # environment → its lock, held open


class VenvError(Exception):
    """An environment that could not be made: of which file, and what the installer said."""


def make(requirements: Path, folder: Path, installer: Leashed | None = None) -> Path:
    """The environment with what a file names, made if there is none; the least used over ten go. Raises VenvError.

    It is this process's, beside others', until that ends: nobody removes it meanwhile.

    Args:
        installer: what installs it is run as, by whoever may have to end it.
    """
    if not requirements.is_file():
        raise VenvError(f"{requirements.name}: no such file at this commit; commit it, or name another in venv")
    try:
        files = rests_on(requirements)
    except RequirementsError as error:
        raise VenvError(str(error)) from None
    hashes = [hashlib.sha256(said).hexdigest() for said in [sys.version.encode(), *(one.read_bytes() for one in files)]]
    content = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    made, held = folder / content, (folder / f"{content}.lock").open("a+")
    installer = installer or Leashed(whole=True)
    _locked(held, fcntl.LOCK_SH, installer)
    while not (made / MADE).is_file():
        _locked(held, fcntl.LOCK_EX, installer)  # lets go first, so that two who want it do not wait for each other
        if not (made / MADE).is_file():
            shutil.rmtree(made, ignore_errors=True)
            _install(requirements, made, held, installer)
            (made / MADE).touch()
        _locked(held, fcntl.LOCK_SH, installer)  # in between somebody may have removed it
    _used[made] = held
    os.utime(made)
    _sweep(folder)
    return made


def _locked(held: TextIO, how: int, installer: Leashed) -> None:
    """Take a lock, however long others install; not by `flock` alone, which a signal's handler does not end."""
    fcntl.flock(held, fcntl.LOCK_UN)
    while not installer.killed:
        with suppress(BlockingIOError):
            return fcntl.flock(held, how | fcntl.LOCK_NB)
        time.sleep(LOOK_S)
    raise VenvError("it was ended while another installed it")


def _install(requirements: Path, made: Path, held: TextIO, installer: Leashed) -> None:
    """By uv where there is one, else by venv and pip."""
    python = str(made / "bin" / "python")
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"):
        commands = [[uv, "venv", "--quiet", "--python", sys.executable, str(made)]]
        commands += [[uv, "pip", "install", "--quiet", "--python", python, "-r", requirements.name]]
    else:
        commands = [[sys.executable, "-m", "venv", str(made)]]
        commands += [[python, "-m", "pip", "install", "--quiet", "-r", requirements.name]]
    for command in commands:
        code, said = _ended(command, requirements.parent, held, installer)
        if code != 0:
            raise VenvError(f"{requirements.name}: its environment could not be made: {' '.join(said.split())[-600:]}")


def _ended(command: list[str], folder: Path, held: TextIO, installer: Leashed) -> tuple[int, str]:
    """The exit code of a command, and its errors. It goes with its task; the lock, its output, is held until then."""
    with tempfile.TemporaryFile() as errors:
        around: dict[str, Any] = {"cwd": folder, "env": scrubbed(), "stdout": held, "stderr": errors}
        installer.begin(lambda reads: leash.start(reads, True, command, **around))
        try:
            code = installer.wait()
        except BaseException:  # the task's time is over
            installer.kill()
            installer.wait()
            raise
        errors.seek(0)
        return code, errors.read().decode(errors="replace")


def _sweep(folder: Path) -> None:
    """Remove the least used; one that is being made, or used, is locked, and stays."""
    made = sorted((one for one in folder.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
    for old in made[:-MOST_KEPT]:
        with (folder / f"{old.name}.lock").open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(old, ignore_errors=True)
