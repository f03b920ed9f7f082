"""Copies of a model that are asked side by side: in order, with the same answers, and ended like what they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nightshift import workers
from nightshift.errors import ModelUnsafe
from nightshift.likelihood import Model
from tests.models import COMPUTE, base

MANY = list(range(3 * workers.WORTH))


def load(offset: int) -> tuple[int, int]:
    return offset, os.getpid()


def load_two(folder: Path) -> tuple[int, int]:
    """A copy that is there only once another is."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return load(100)


def question(model: tuple[int, int], one: int) -> tuple[int, int]:
    time.sleep(0.01)
    return model[0] + one, model[1]


def refuse(where: str) -> None:
    raise ModelUnsafe("its weights are a pickle", where, "take safetensors instead")


def choices(model: Model, one: int) -> list[float]:
    return model.choices([{"role": "user", "content": f"What is {one}?"}], ["a number", f"the number {one}"])


def test_answers_come_in_order_from_several_processes(tmp_path: Path) -> None:
    found = list(workers.ask(load_two, (tmp_path,), question, MANY, 2))
    assert [answer for answer, _ in found] == [100 + one for one in MANY]
    processes = {process for _, process in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_few_questions_are_asked_here() -> None:
    assert set(workers.ask(load, (1,), question, [1, 2], 2)) == {(2, os.getpid()), (3, os.getpid())}
    assert list(workers.ask(refuse, ("never loaded",), question, [], 2)) == []


def test_what_loading_refuses_is_said_as_it_was() -> None:
    with pytest.raises(ModelUnsafe, match="there: its weights are a pickle; take safetensors instead"):
        list(workers.ask(refuse, ("there",), question, MANY, 2))


@pytest.mark.long
def test_copies_answer_as_one_does(tmp_path: Path) -> None:
    given = (base(tmp_path / "base"), None, COMPUTE)
    alone = list(workers.ask(Model.load, given, choices, MANY, 1))
    assert list(workers.ask(Model.load, given, choices, MANY, 2)) == alone


PROGRAM = """
import os, sys, time
from nightshift import workers
from tests.test_workers import load
def question(model, one):
    if {kill} and one == 3:
        os.kill(os.getpid(), 9)
    print(os.getpid(), flush=True)
    time.sleep({sleep})
if __name__ == "__main__":
    list(workers.ask(load, (0,), question, list(range(40)), 2))
"""


@pytest.mark.parametrize("kill", [True, False])
def test_a_parent_and_its_copies_end_together(tmp_path: Path, kill: bool) -> None:
    """A copy that is killed ends its parent by the same signal; copies of a parent that is killed end by themselves."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(kill=kill, sleep=0.05 if kill else 60))
    root = Path(__file__).resolve().parents[1]
    around = os.environ | {"PYTHONPATH": f"{root / 'include'}:{root}"}
    started = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=around, text=True)
    assert started.stdout is not None
    copy = int(started.stdout.readline())
    if not kill:
        started.kill()
    assert started.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while psutil.pid_exists(copy) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(copy)
