"""Write an out whole or not at all, and check it before it is read.

An out is a folder with `manifest.json` (path → sha256 of every other file in it), or one file. It is written under a
temporary name beside its place, fsynced, renamed, and the folder above is fsynced: `kill -9` at any moment leaves the
old or the new. A folder that holds only `absent.json` stands for 'too little to work on', with its reason. The order
(files, manifest, rename, parent) is the one that lost nothing in 60 kills of a probe.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from nightshift import objects
from nightshift.errors import CacheCorrupt, SourceError, full, no_room

MANIFEST = "manifest.json"
ABSENT = "absent.json"
CHUNK = 1 << 20  # bytes of a file in memory at a time


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out`, with its manifest, when the block ends well.

    Raises DiskFull when there is no room; `out` is then as it was.
    """
    draft = _draft(out)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        files = {name: sha256(draft / name) for name in names(draft)}
        (draft / MANIFEST).write_text(dumps(files), encoding="utf-8")
        for name in [*files, MANIFEST]:
            _fsync(draft / name)
        for path in [draft, *(p for p in draft.rglob("*") if p.is_dir())]:
            _fsync(path)
        _replace(draft, out)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if full(error):
            raise no_room(str(out)) from error
        raise


def file(out: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write one file whole or not at all. Raises DiskFull; the old content then stays."""
    draft = _draft(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), content)
        draft.replace(out)
        _fsync(out.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        if full(error):
            raise no_room(str(out)) from error
        raise


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """Yield the name of a file that becomes `out` when the block wrote it and ends well. Raises DiskFull."""
    draft = _draft(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _fsync(draft)
        draft.replace(out)
        _fsync(out.parent)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if full(error):
            raise no_room(str(out)) from error
        raise


def written(out: Path, chunks: Iterable[bytes]) -> None:
    """Write one file of any size whole or not at all. Raises DiskFull; the old content then stays."""
    with replaced(out) as draft, draft.open("wb") as handle:
        handle.writelines(chunks)


def copied(source: Path, out: Path) -> None:
    """Copy one file of any size whole or not at all. Raises DiskFull; the old content then stays."""
    with source.open("rb") as handle:
        written(out, iter(lambda: handle.read(CHUNK), b""))


def secret(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file for its owner alone, once, whole or not at all. Raises FileExistsError, DiskFull."""
    draft = Path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        draft = Path(name)
        _write(handle, content)
        draft.chmod(mode)
        os.link(draft, path)  # unlike a rename, fails where another was faster
        _fsync(path.parent)
    except OSError as error:
        if full(error):
            raise no_room(str(path)) from error
        raise
    finally:
        with suppress(OSError):
            draft.unlink()


def append(path: Path, line: str) -> None:
    """Add a line to a file that only its owner reads, whole and on the disk, or not at all. Raises DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as log:
        os.fchmod(log.fileno(), 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)
        grow(log, line.encode() + b"\n")


def grow(log: FileIO, line: bytes) -> None:
    """Write a line at the end of an open file, to the disk, or none of it: half a line would spoil the next."""
    end = log.seek(0, os.SEEK_END)
    try:
        if log.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(log.fileno())
    except OSError as error:
        log.truncate(end)
        if full(error):
            raise no_room(str(log.name)) from error
        raise


def absent(out: Path, reason: str) -> None:
    """Make `out` a folder that says why there is nothing in it."""
    with folder(out) as draft:
        (draft / ABSENT).write_text(dumps({"reason": reason}), encoding="utf-8")


def why_absent(path: Path) -> str | None:
    """The reason for which `path` is absent, or None where there is something to read."""
    note = path / ABSENT
    return str(json.loads(note.read_text(encoding="utf-8"))["reason"]) if note.is_file() else None


def check(path: Path) -> Path:
    """Return `path` when every file in it is what its manifest says.

    Raises SourceError when it is not there, CacheCorrupt when a file is missing, new or different.
    """
    if not path.exists():
        raise SourceError("it is not there", str(path), "run the stage that makes it (`dvc repro`), or `dvc checkout`")
    if path.is_file():
        return path
    if found := damage(path):
        name, what = found
        raise CacheCorrupt(what, str(path), objects.remedy(path, name))
    return path


def damage(folder: Path) -> tuple[str, str] | None:
    """A file of a folder that is not what the manifest says, and a sentence about it; None when all are."""
    try:
        wanted: dict[str, str] = dict(json.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return MANIFEST, "it has no manifest"
    except (ValueError, TypeError):  # not JSON, not UTF-8, not an object
        return MANIFEST, "its manifest is damaged"
    for name in sorted((set(names(folder)) - {MANIFEST}) ^ set(wanted)):
        return name, f"{name} is {'missing' if name in wanted else 'not in the manifest'}"
    for name, digest in wanted.items():
        if sha256(folder / name) != digest:
            return name, f"{name} differs from the manifest"
    return None


def copy(source: Path, target: Path) -> None:
    """Copy a folder's files into one that is being made; its manifest stays behind, since that one gets its own."""
    ignore = shutil.ignore_patterns(MANIFEST)
    shutil.copytree(source, target, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)


def digest(path: Path) -> str:
    """sha256 that stands for the whole of `path`: of its manifest, or of the file itself."""
    return sha256(path / MANIFEST if path.is_dir() else path)


def sha256(path: Path) -> str:
    """sha256 of one file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hashed(content: bytes) -> str:
    """sha256 of bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def names(path: Path) -> list[str]:
    """Relative POSIX names of all files under a folder, sorted."""
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def dumps(value: Any) -> str:
    """JSON with sorted keys, two spaces and a last newline: the same value is the same bytes. Refuses NaN."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _draft(out: Path) -> Path:
    return out.parent / f".{out.name}.draft"


def _replace(draft: Path, out: Path) -> None:
    """Put `draft` in the place of `out` in one step; a folder that holds files cannot simply be renamed over."""
    if out.is_dir():
        _exchange(draft, out)
        shutil.rmtree(draft)
    else:
        draft.replace(out)
    _fsync(out.parent)


def _exchange(one: Path, other: Path) -> None:
    """Swap two paths atomically (Linux: renameat2 with RENAME_EXCHANGE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _write(handle: int, content: str | bytes) -> None:
    with os.fdopen(handle, "wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)
        out.flush()
        os.fsync(out.fileno())


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
