"""A command of `nightshift` in this process: what one of its own does, without the seconds that it takes to start."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

from nightshift.cli import main


def run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in `folder`, with more in its environment; what it printed, and its exit code."""
    out, err, code = StringIO(), StringIO(), 0
    around = {"NO_COLOR": "1", "NIGHTSHIFT_HOME": "", "NIGHTSHIFT_STATE": "", "NIGHTSHIFT_SOURCES": ""} | environ
    told = mock.patch.dict(os.environ, around), mock.patch.object(sys, "argv", ["nightshift", *words])
    with told[0], told[1], chdir(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
