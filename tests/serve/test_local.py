"""The endpoint is found by its process, not by a number that may be another's by now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nightshift.serve.local import Endpoint
from nightshift.stage import SERVING


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid(), 1], ids=["own", "parent", "init"])
def test_after_a_reboot_a_strangers_pid_is_not_the_endpoint(
    pid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: int) -> None:
        raise PermissionError

    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, signalled)
    (tmp_path / SERVING).write_text(json.dumps({"port": 1, "pid": pid, "began": 0}))
    endpoint = Endpoint(tmp_path, tmp_path, {})
    assert not endpoint.up()
    endpoint.stop()
    assert not (tmp_path / SERVING).exists()
