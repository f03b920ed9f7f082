"""A pipeline that cannot go on ends its process, so that another is started."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
from pathlib import Path
import openvino_genai

class Broken:
    def __init__(self, *given): self.asked = 0
    def add_request(self, *given): self.asked += 1; return object()
    def has_non_finished_requests(self): return self.asked
    def step(self): raise RuntimeError("no memory for keys and values")

openvino_genai.ContinuousBatchingPipeline = Broken
from nightshift.batching import Asked, Batch

Batch(Path("graph"), 1, 1).ask(Asked([1], 1, frozenset({0})), print)
threading.Event().wait()
"""


def test_a_step_that_fails_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 70
    assert "no memory for keys and values" in ended.stderr
