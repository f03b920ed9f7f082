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
from nightshift.errors import CacheCorrupt, SourceError
from tests.conftest import ROOT

ENVIRON = os.environ | {"PYTHONPATH": str(ROOT / "include")}
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


@pytest.mark.parametrize("manifest", [b"", b"\xff", b"[1]", b'"x"', b'{"deep/a.txt": 5}'])
def test_a_damaged_manifest_is_said(manifest: bytes, tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    (out / "manifest.json").write_bytes(manifest)
    with pytest.raises(CacheCorrupt):
        commit.check(out)


@pytest.mark.parametrize("where", ["cache", "tree"])
def test_the_remedy_for_a_damaged_out_mends_it(where: str, tmp_path: Path) -> None:
    """What the sentence says is typed as it stands, in a project whose cache or whose tree was damaged."""
    make = "from pathlib import Path; from nightshift import commit\nwith commit.folder(Path('out')) as d: "
    make += "(d / 'a').write_text('content')"
    (tmp_path / "make.py").write_text(make)
    (tmp_path / "dvc.yaml").write_text("stages:\n  make: {cmd: python make.py, outs: [out]}\n")
    check = "import sys; from pathlib import Path; from nightshift import commit, errors\n"
    check += "try: commit.check(Path('out'))\nexcept errors.CacheCorrupt as error: print(error); sys.exit(error.code)"

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", command], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True)

    assert shell("git init -q && dvc init -q && dvc repro -q").returncode == 0
    held = next(one for one in (tmp_path / ".dvc/cache").rglob("*") if one.is_file() and one.read_bytes() == b"content")
    harmed = {"cache": held, "tree": tmp_path / "out" / "a"}[where]
    harmed.unlink()
    harmed.write_text("contenT")
    held.chmod(0o444)  # DVC trusts a read-only object
    shell("rm -r out && dvc checkout -q" if where == "cache" else "true")
    said = shell(f'python -c "{check}"')
    assert said.returncode == CacheCorrupt.code, said
    remedy = said.stdout.split("`")[1]
    assert (str(held) in remedy) is (where == "cache")
    mended = shell(f"{remedy}{' && dvc repro -q' if where == 'cache' else ''}")
    assert mended.returncode == 0, mended
    assert shell(f'python -c "{check}"').returncode == 0
    assert held.read_bytes() == b"content"


def test_a_secret_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    commit.secret(tmp_path / "home" / "key", "first")
    with pytest.raises(FileExistsError):
        commit.secret(tmp_path / "home" / "key", "second")
    (only,) = (tmp_path / "home").iterdir()
    assert (only.read_text(), only.stat().st_mode & 0o777) == ("first", 0o600)


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


FULL = """
import resource, sys
from pathlib import Path
import numpy, polars, safetensors.numpy, tokenizers
from nightshift import commit, errors
big = numpy.random.default_rng(0).random(1 << 16)
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(n): n for n in range(9999)}, unk_token="0"))
writers = {
    "file": lambda path: path.write_bytes(big.tobytes()),
    "numpy": lambda path: numpy.save(path, big),
    "polars": lambda path: polars.DataFrame({"a": big}).write_parquet(path),
    "safetensors": lambda path: safetensors.numpy.save_file({"a": big}, path),
    "tokenizers": lambda path: tokenizer.save(str(path)),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for name, write in writers.items():
    try:
        with commit.folder(Path(sys.argv[1])) as draft:
            write(draft / "a")
    except errors.DiskFull as error:
        print(name, error)
try:
    commit.file(Path(sys.argv[2]), "x" * 5000)
except errors.DiskFull as error:
    print("whole", error)
"""


def test_a_full_disk_is_named_whoever_writes_and_harms_nothing(tmp_path: Path) -> None:
    out, file = make(tmp_path / "out"), tmp_path / "out.json"
    commit.file(file, "old")
    command = [sys.executable, "-c", FULL, str(out), str(file)]
    ended = subprocess.run(command, env=ENVIRON, capture_output=True, text=True)
    said = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    assert list(said) == ["file", "numpy", "polars", "safetensors", "tokenizers", "whole"], ended.stderr
    assert all("no room left on the disk; free some space there and run again" in one for one in said.values())
    assert (commit.names(commit.check(out)), file.read_text()) == (["deep/a.txt", "manifest.json"], "old")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "out.json"]


def test_a_kill_at_any_moment_leaves_a_whole_out(tmp_path: Path) -> None:
    out, draw, seen = tmp_path / "out", random.Random(7), 0
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(out)]
        writer = subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, text=True)
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
