"""Write an out whole or not at all, and check it before it is read.

An out is a folder with `manifest.json` (path → sha256 of every other file in it), or one file. It is written under a
temporary name beside its place, fsynced, renamed, and the folder above is fsynced: `kill -9` at any moment leaves the
old or the new. A folder that holds only `absent.json` stands for 'too little to work on', with its reason. The order
(files, manifest, rename, parent) is the one that lost nothing in 60 kills of a probe.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightshift.errors import CacheCorrupt, DiskFull, SourceError

MANIFEST = "manifest.json"
ABSENT = "absent.json"


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out`, with its manifest, when the block ends well.

    Raises DiskFull when there is no room; `out` is then as it was.
    """
    draft = _draft(out)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        files = {name: sha256(draft / name) for name in names(draft)}
        (draft / MANIFEST).write_text(dumps(files), encoding="utf-8")
        for name in [*files, MANIFEST]:
            _fsync(draft / name)
        for path in [draft, *(p for p in draft.rglob("*") if p.is_dir())]:
            _fsync(path)
        _replace(draft, out)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _full(error, out) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def file(out: Path, content: str | bytes) -> None:
    """Write one file whole or not at all. Raises DiskFull; the old content then stays."""
    draft = _draft(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        _fsync(draft)
        draft.replace(out)
        _fsync(out.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _full(error, out) from error


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
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise CacheCorrupt("it has no manifest", str(path), _REMEDY)
    wanted: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))
    found = set(names(path)) - {MANIFEST}
    if odd := sorted(found ^ set(wanted)):
        raise CacheCorrupt(
            f"{odd[0]} is {'missing' if odd[0] in wanted else 'not in the manifest'}", str(path), _REMEDY
        )
    for name, digest in wanted.items():
        if sha256(path / name) != digest:
            raise CacheCorrupt(f"{name} differs from the manifest", str(path), _REMEDY)
    return path


def digest(path: Path) -> str:
    """sha256 that stands for the whole of `path`: of its manifest, or of the file itself."""
    return sha256(path / MANIFEST if path.is_dir() else path)


def sha256(path: Path) -> str:
    """sha256 of one file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def names(path: Path) -> list[str]:
    """Relative POSIX names of all files under a folder, sorted."""
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def dumps(value: Any) -> str:
    """JSON with sorted keys, two spaces and a last newline: the same value is the same bytes. Refuses NaN."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


_REMEDY = "remove it and run `dvc checkout`; if it comes back so, remove that object from the cache and run `dvc repro`"


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


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(error: OSError, out: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull("no room left on the disk", str(out), "free some space and run again")
    return error
