"""An out is written whole or not at all, and a changed one is noticed before it is read."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nightshift import commit
from nightshift.errors import CacheCorrupt, DiskFull, SourceError

WRITER = """
import sys
from pathlib import Path
from nightshift import commit
out, n = Path(sys.argv[1]), 0
while True:
    n += 1
    with commit.folder(out) as draft:
        for name in "abc":
            (draft / name).write_text(str(n) * 50_000)
    print(n, flush=True)
"""


def make(out: Path, text: str = "one") -> Path:
    with commit.folder(out) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a.txt").write_text(text)
    return out


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda out: (out / "deep" / "a.txt").write_text("two"), "differs from the manifest"),
        (lambda out: (out / "deep" / "a.txt").unlink(), "is missing"),
        (lambda out: (out / "new.txt").write_text("x"), "is not in the manifest"),
        (lambda out: (out / "manifest.json").unlink(), "has no manifest"),
    ],
)
def test_a_changed_out_is_not_read(harm: object, sentence: str, tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    harm(out)  # type: ignore[operator]
    with pytest.raises(CacheCorrupt, match=sentence):
        commit.check(out)


def test_a_missing_out_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="dvc repro"):
        commit.check(tmp_path / "none")


def test_a_broken_write_leaves_the_old_one(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    with pytest.raises(RuntimeError), commit.folder(out) as draft:
        (draft / "b").write_text("half")
        raise RuntimeError
    assert commit.names(commit.check(out)) == ["deep/a.txt", "manifest.json"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_named_and_harms_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    commit.file(out, "old")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from pathlib import Path; from nightshift import commit, errors\n"
        "try: commit.file(Path(sys.argv[1]), 'x' * 5000)\n"
        "except errors.DiskFull as error: print(error); sys.exit(error.code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert ended.returncode == DiskFull.code, ended.stderr
    assert "no room left" in ended.stdout
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_kill_at_any_moment_leaves_a_whole_out(tmp_path: Path) -> None:
    out, draw, seen = tmp_path / "out", random.Random(7), 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(draw.random() * 0.1)  # where in the protocol the kill falls is the point of the draw
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        commit.check(out)
        assert len({(out / name).read_text() for name in "abc"}) == 1
        seen += 1
    assert seen == 6


def test_an_absent_out_says_why(tmp_path: Path) -> None:
    commit.absent(tmp_path / "out", "3 documents, 20 are needed")
    assert commit.why_absent(commit.check(tmp_path / "out")) == "3 documents, 20 are needed"
    assert commit.why_absent(make(tmp_path / "there")) is None


def test_the_same_content_has_the_same_digest(tmp_path: Path) -> None:
    one, two, other = (make(tmp_path / name, text) for name, text in [("a", "x"), ("b", "x"), ("c", "y")])
    assert commit.digest(one) == commit.digest(two) != commit.digest(other)
