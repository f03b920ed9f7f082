"""Read, write and list objects in a folder or under an S3 prefix, by one set of verbs.

A location is a path or `s3://bucket/key`. S3 is asked with bounded patience (botocore's standard retries, six
tries, three seconds to connect, twenty to read: its defaults block for up to five minutes), and every body that is
read is checked against the size that was promised. What fails for good is a StorageError, which the engine tries
again; nothing is half-written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

from nightshift import commit
from nightshift.errors import SourceError, StorageError

TRIES, CONNECT_S, READ_S = 6, 3, 20


@dataclass(frozen=True)
class Stored:
    """One object: its name below the location that was listed, its size, and when it was written (seconds, 1970)."""

    name: str
    bytes: int
    written: float = field(default=0.0, compare=False)


def listing(location: str) -> list[Stored]:
    """Every object below a location, sorted by name. Raises SourceError where there is none, StorageError."""
    found = _listed(location)
    if not found:
        raise SourceError("no files are there", location, "put documents there or take the source out of params.yaml")
    return found


def held(location: str) -> list[Stored]:
    """Every object below a location, sorted by name; none where nobody wrote there yet. Raises StorageError."""
    return _listed(location) if is_s3(location) or Path(location).is_dir() else []


def _listed(location: str) -> list[Stored]:
    return sorted(_objects(location) if is_s3(location) else _files(Path(location)), key=lambda one: one.name)


def read(location: str) -> bytes:
    """The bytes of one object. Raises SourceError where it is not, StorageError when it does not arrive whole."""
    if not is_s3(location):
        try:
            return Path(location).read_bytes()
        except FileNotFoundError:
            raise SourceError("it is not there", location, "restore it") from None
        except OSError as error:
            raise SourceError(f"it cannot be read ({error.strerror})", location, "check its permissions") from None
    bucket, key = _split(location)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = _client().get_object(Bucket=bucket, Key=key)
        body: bytes = answer["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None
    if len(body) != answer["ContentLength"]:
        short = f"{len(body)} of {answer['ContentLength']} bytes arrived"
        raise StorageError(short, location, "it will be tried again")
    return body


def write(location: str, content: bytes) -> None:
    """Write one object whole or not at all. Raises StorageError, DiskFull."""
    if not is_s3(location):
        commit.file(Path(location), content)
        return
    bucket, key = _split(location)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _client().put_object(Bucket=bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256")
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None


def upload(file: Path, location: str) -> None:
    """Write one object from a file of any size, whole or not at all. Raises StorageError, DiskFull."""
    if not is_s3(location):
        commit.copied(file, Path(location))
        return
    bucket, key = _split(location)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with file.open("rb") as body:
            _client().upload_fileobj(body, bucket, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"})
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None


def download(location: str, file: Path) -> None:
    """Bring one object into a file that is being made. Raises SourceError where it is not, StorageError, DiskFull.

    What arrived has the size that was promised; whether it is what was stored says a manifest.
    """
    if not is_s3(location):
        if not Path(location).is_file():
            raise SourceError("it is not there", location, "restore it")
        commit.copied(Path(location), file)
        return
    bucket, key = _split(location)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = _client().get_object(Bucket=bucket, Key=key)
        commit.written(file, answer["Body"].iter_chunks(commit.CHUNK))
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None
    if (arrived := file.stat().st_size) != answer["ContentLength"]:
        short = f"{arrived} of {answer['ContentLength']} bytes arrived"
        raise StorageError(short, location, "it will be tried again")


def remove(location: str) -> None:
    """Remove one object; one that is not there is no error. Raises StorageError."""
    if not is_s3(location):
        Path(location).unlink(missing_ok=True)
        return
    bucket, key = _split(location)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _client().delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None


def is_s3(location: str) -> bool:
    """Whether a location is an address in S3."""
    return location.startswith("s3://")


def _split(location: str) -> tuple[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return bucket, key


def _files(folder: Path) -> Iterator[Stored]:
    if not os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises for a folder above that may not be entered
        what = "it is not a folder" if os.path.exists(folder) else "the folder is not there"  # noqa: PTH110  as above
        raise SourceError(what, str(folder), "make it, or mend its path in params.yaml")
    try:
        for here, inside, names in os.walk(folder, onerror=_unreadable):
            inside[:] = [name for name in inside if not name.startswith(".")]
            for path in (Path(here, name) for name in names if not name.startswith(".")):
                about = path.stat()
                if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                    do = "copy the file there, or take the link away"
                    raise SourceError("it links to a file outside its source", str(path), do)
                if S_ISREG(about.st_mode):
                    yield Stored(path.relative_to(folder).as_posix(), about.st_size, about.st_mtime)
    except OSError as error:
        do = "mend its permissions or where it points, or take it away"
        raise SourceError(f"it cannot be read ({error.strerror})", str(error.filename), do) from None


def _unreadable(error: OSError) -> None:
    """A folder that cannot be listed is refused, where `os.walk` would leave its documents out and say nothing."""
    raise error


def _objects(location: str) -> Iterator[Stored]:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = _split(location)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    try:
        for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    yield Stored(entry["Key"].removeprefix(prefix), entry["Size"], entry["LastModified"].timestamp())
    except (BotoCoreError, ClientError) as error:
        raise _failed(error, location) from None


@cache
def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": TRIES}
    return boto3.client("s3", config=Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=retries))


def _failed(error: Exception, location: str) -> Exception:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
    if code in ("NoSuchKey", "NoSuchBucket", "404"):
        return SourceError(f"it is not there ({code})", location, "mend the address")
    if code in ("AccessDenied", "InvalidAccessKeyId", "NoCredentialsError", "SignatureDoesNotMatch"):
        return SourceError(f"it may not be read ({code})", location, "give AWS credentials that may")
    return StorageError(f"the store did not answer as it must ({code})", location, "it will be tried again")
