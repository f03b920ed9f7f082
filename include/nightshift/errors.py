"""What can go wrong, as sentences, each with an exit code of its own.

    NightshiftError
    ├── ParamsError        10  params.yaml: unknown, mistyped or duplicate key, value out of range
    ├── SourceError        11  a source is missing, empty, unreadable, not text, or inside Git
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
    └── AccessDenied       22  a key or a right is missing

A sentence says what is wrong, where (file and line where there is one), and what to do. A refusal is final; a
StorageError may be tried again. `stage.py` and `cli.py` are the only places that turn one into an exit code.
"""

from __future__ import annotations


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
        return f"{head}; {self.do}." if self.do else f"{head}."


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
