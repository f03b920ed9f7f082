"""A pid in a file is only a number: nobody else's process is taken for ours, or sent a signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift import process
from nightshift.errors import AccessDenied
from nightshift.process import Process, began


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group of its own."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as one:
        yield one
        one.kill()


def test_a_process_that_runs_is_found_and_stopped_with_its_group(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert started.stdout is not None
    inside = int(started.stdout.readline())
    kept = Process(tmp_path / "kept.json")
    kept.keep(started.pid, 80)
    kept.note(stays=True)
    assert (kept.pid, kept.kept["port"], kept.kept["stays"]) == (started.pid, 80, True)
    kept.stop(5.0)
    assert started.wait(5) != 0
    deadline = time.monotonic() + 5
    while began(inside) is not None and time.monotonic() < deadline:  # a signal takes its time
        time.sleep(0.01)
    assert began(inside) is None
    assert not kept.file.exists()
    kept.stop(5.0)


@pytest.mark.parametrize("at", [1, None, "x"])
def test_a_pid_that_was_given_out_again_is_left_alone(
    at: object, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    kept = Process(tmp_path / "kept.json")
    kept.file.write_text(json.dumps({"pid": child.pid, "began": at, "port": 80}))
    assert kept.pid is None
    kept.stop(1.0)
    assert child.poll() is None
    assert not kept.file.exists()


@pytest.mark.parametrize("text", ["", "[5]", "{}", '{"pid": "self", "began": 1}', '{"pid": -1, "began": 1}', "5"])
def test_a_file_that_names_none_is_no_process(text: str, tmp_path: Path) -> None:
    kept = Process(tmp_path / "kept.json")
    kept.file.write_text(text)
    assert kept.pid is None
    kept.stop(1.0)


def test_what_ended_does_not_run_though_nobody_waited_for_it(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    kept = Process(tmp_path / "kept.json")
    kept.keep(child.pid, 80)
    child.send_signal(9)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert kept.pid is None
    child.wait()


def test_another_users_process_is_said(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: int, number: int) -> None:
        raise PermissionError

    kept = Process(tmp_path / "kept.json")
    kept.keep(child.pid, 80)
    monkeypatch.setattr(process.os, "killpg", refuse)
    with pytest.raises(AccessDenied, match="another user's"):
        kept.stop(1.0)
    assert kept.pid == child.pid
