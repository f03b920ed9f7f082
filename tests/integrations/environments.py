"""Small environments for frameworks whose pins collide with the lock's: made once from a pinned file, kept, reused.

`.environments/NAME` holds what `requirements/NAME.txt` says, and a note of the file's hash; with another file it is
made anew. uv links files from its cache, so that a new one takes a second or two once the wheels are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".environments"
REQUIREMENTS = Path(__file__).parent / "requirements"
OTHERS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "OTEL_SDK_DISABLED")  # of this process alone


def python(name: str) -> Path:
    """The interpreter of an environment, which is made where it is not there; of two who ask at once one makes it."""
    pinned = REQUIREMENTS / f"{name}.txt"
    wanted = hashlib.sha256(pinned.read_bytes()).hexdigest()
    place = FOLDER / name
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        note = place / "requirements.sha256"
        if not note.is_file() or note.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
            _uv("venv", "--python", sys.executable, str(place))
            _uv("pip", "sync", "--python", str(place / "bin" / "python"), str(pinned))
            note.write_text(wanted)
    return place / "bin" / "python"


def cases(name: str, folder: Path, url: str, *chosen: str) -> None:
    """Run NAME_cases.py in its environment, standing in a checkout whose endpoint is at `url`; raises their report.

    `chosen` are words for pytest that choose among them.
    """
    known = {key: value for key, value in os.environ.items() if key not in OTHERS}
    around = known | {"PYTHONPATH": f"{ROOT / 'include'}:{ROOT}", "NIGHTSHIFT_TEST_URL": url}
    file = Path(__file__).with_name(f"{name}_cases.py")
    words = ["-m", "pytest", "-q", "--noconftest", "-o", "addopts=", "-p", "no:cacheprovider", *chosen, str(file)]
    asked = [str(python(name)), *words]
    ended = subprocess.run(asked, cwd=folder, env=around, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _uv(*words: str) -> None:
    done = subprocess.run([Path(sys.executable).parent / "uv", *words, "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, f"uv {words[0]}: {done.stderr}"
