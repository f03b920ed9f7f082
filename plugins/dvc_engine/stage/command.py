"""A command of the project beside its stages (publish, what follows a release): run as a stage is, and ended as one.

What the command says goes into files: a helper that it leaves behind would keep a pipe open, and its task waiting.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from dvc_engine.stage import job, leash
from dvc_engine.stage.process import Leashed


class Command(Leashed):
    """One try at a command.

    Args:
        text: the command, its words as a shell splits them.
        owner: whose run it is: of which DAG, or of which group in it.
        task: the task that runs it.
        number: of this try, from 1.
    """

    def __init__(self, text: str, owner: str = "", task: str = "publish", number: int = 1) -> None:
        super().__init__(whole=False)
        self.text, self.owner, self.task, self.number = text, owner, task, number

    def folder(self, clones: Path, run: str) -> Path:
        """Of its job, which its clone and what it says are in."""
        return job.folder(clones, self.owner, run, self.task, self.number)

    def run(self, words: list[str], folder: Path, clone: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run it in a clone; its exit code (128 + n for signal n), output and errors.

        What it leaves running when it has ended by itself is meant to run: a server that it started, say.
        """
        places = folder / "stdout", folder / "stderr"
        with ExitStack() as stack:
            out, errors = (stack.enter_context(_own(place)) for place in places)

            around: dict[str, Any] = {"cwd": clone, "env": env, "stdout": out, "stderr": errors}
            self.begin(lambda reads: leash.start(reads, self.whole, words, **around))
        code = self.wait()
        said, wrong = (place.read_text(encoding="utf-8", errors="replace") for place in places)
        return code if code >= 0 else 128 - code, said, wrong


def words(text: str) -> list[str]:
    """A command's words, as a shell splits them. Raises ValueError where there is none, or a quote is open."""
    try:
        if found := shlex.split(text):
            return found
        why = "there is none"
    except ValueError as error:
        why = str(error)
    raise ValueError(f"`{text}` cannot be split into words: {why}")


def _own(place: Path) -> BinaryIO:
    """A new file that nobody else may read: a command may say what is secret."""
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
