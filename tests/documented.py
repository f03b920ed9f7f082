"""Run what a page shows: the blocks that it marks, in a project of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.night.project import make


def blocks_run(page: str, folder: Path) -> None:
    """Every block that is marked `sh run` ends well, in their order; there is at least one."""
    blocks = re.findall(r"```sh run\n(.*?)```", page, flags=re.S)
    assert blocks
    project = make(folder / "project", folder / "home")
    for block in blocks:
        words = ["bash", "-euo", "pipefail", "-c", block]
        ended = subprocess.run(
            words, cwd=project.folder, env=project.environ, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
