"""What can go wrong, as sentences, each with an exit code of its own.

    NightshiftError
    ├── UsageError          2  the words of a command are not those that it takes
    ├── ParamsError        10  params.yaml: unknown, mistyped or duplicate key, value out of range
    ├── SourceError        11  a source is missing, empty, unreadable, not text, or inside Git; a path that is none
    ├── DataRefused        12  a validation, a cap or a check says no
    ├── StorageError       13  an object store or a disk did not answer as it must; worth another try
    ├── DiskFull           14  no room; nothing was half-written
    ├── CacheCorrupt       15  a file differs from its manifest
    ├── ReleaseInvalid     16  a release whose signature, manifest or contents do not match
    ├── RepositoryError    17  not a Git repository, or one that cannot be used
    ├── CheckoutMismatch   18  code of another checkout would run
    ├── PortInUse          19  something else listens there
    ├── NightBroke         20  the night ended without a verdict
    ├── ModelUnsafe        21  a pickle, remote code, or a model that cannot be loaded as plain weights
    ├── AccessDenied       22  a key or a right is missing
    └── NotKept            23  a trace, or the words of one, that is not kept, or is no more

A sentence says what is wrong, where (file and line where there is one), and what to do. A refusal is final; a
StorageError may be tried again. What the operating system refuses is one of these too (`known`); what is none of them
is a bug, and shows its traceback. `tell` is the one way in which a program says an error and ends with its code.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path


class NightshiftError(Exception):
    """One sentence: what, where, what to do.

    Args:
        what: what is wrong, without a full stop.
        where: file, file:line, or address; "" where there is none.
        do: what the reader can do about it, without a full stop.
    """

    code = 1
    retry = False

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        super().__init__(what, where, do)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        said = f"{head}; {self.do}." if self.do else f"{head}."
        return " ".join(said.split())  # what others said, and is quoted here, may have lines


class UsageError(NightshiftError):
    """Words of a command that it does not take."""

    code = 2


class ParamsError(NightshiftError):
    """A value in params.yaml that cannot be used."""

    code = 10


class SourceError(NightshiftError):
    """A source of documents that cannot be read as asked."""

    code = 11


class DataRefused(NightshiftError):
    """Data that a check does not let through."""

    code = 12


class StorageError(NightshiftError):
    """A store that failed in a way that may pass."""

    code = 13
    retry = True


class DiskFull(NightshiftError):
    """No room left to write."""

    code = 14


class CacheCorrupt(NightshiftError):
    """A file that is not what its manifest says."""

    code = 15


class ReleaseInvalid(NightshiftError):
    """A release that must not be served."""

    code = 16


class RepositoryError(NightshiftError):
    """A Git or DVC repository that is missing or unusable."""

    code = 17


class CheckoutMismatch(NightshiftError):
    """The code that would run is not the code of this checkout."""

    code = 18


class PortInUse(NightshiftError):
    """An address that something else listens on."""

    code = 19


class NightBroke(NightshiftError):
    """A night that ended without a verdict."""

    code = 20


class ModelUnsafe(NightshiftError):
    """A model that is not plain weights and data."""

    code = 21


class AccessDenied(NightshiftError):
    """A key or a right that is missing."""

    code = 22


class NotKept(NightshiftError):
    """A trace, or the words of one, that was never written down or is gone."""

    code = 23


NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# how the writers of Rust, SQLite, NumPy and torch say it, in errors without a number
NO_ROOM_SAID = re.compile(
    r"no space left|disk is full|quota exceeded|file too large|\d+ requested and \d+ written|unexpected pos \d+ vs \d+",
    re.IGNORECASE,
)
NO_SUCH = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def full(error: BaseException) -> bool:
    """Whether an error of others is about a disk without room, a quota, or a limit on a file's size."""
    if isinstance(error, NightshiftError):
        return False
    return getattr(error, "errno", None) in NO_ROOM or bool(NO_ROOM_SAID.search(str(error)))


def full_at(path: Path) -> bool:
    """Whether the disk that this lies on has no block left."""
    try:
        said = os.statvfs(path.parent)
    except OSError:
        return False
    return said.f_bavail == 0


def no_room(where: str) -> DiskFull:
    """The error of a disk that has no room for `where`."""
    return DiskFull("no room left on the disk", where, "free some space there and run again")


def known(error: BaseException) -> NightshiftError | None:
    """One of ours: the error itself, or what the operating system refused to do with a path; None for a bug."""
    if isinstance(error, NightshiftError):
        return error
    where = str(getattr(error, "filename", None) or "")
    what = f"it cannot be used ({str(getattr(error, 'strerror', None)).lower()})"
    if full(error):
        made: NightshiftError = no_room(where)
    elif not isinstance(error, OSError) or not where:
        return None
    elif error.errno in NOT_ALLOWED:
        made = AccessDenied(what, where, "check its owner and its permissions")
    elif error.errno in NO_SUCH:
        made = SourceError(what, where, "restore it, or mend what names it")
    else:
        made = StorageError(what, where, "check the disk and run again")
    made.__cause__ = error
    return made


def tell(program: str, error: NightshiftError) -> int:
    """Say on stderr what went wrong, with the traceback where one was asked for; returns the exit code."""
    if os.environ.get("NIGHTSHIFT_DEBUG"):
        traceback.print_exception(error)
    print(f"{program}: {error}", file=sys.stderr)
    return error.code
