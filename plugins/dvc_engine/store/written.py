"""What is written of a night for others to read: a file, whole or not at all, in a folder or an object store."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from dvc_engine.git import without_login
from dvc_engine.pipeline.project import ProjectError


def write(place: str, content: bytes) -> None:
    """Write a file at a path, or at a URL that DVC's file systems know (s3://…). Raises OSError."""
    if "://" in place:
        import fsspec

        fs, path = fsspec.core.url_to_fs(place)
        if "file" not in fs.protocol:
            fs.pipe_file(path, content)  # an object is there once it has all its bytes
            return
        place = path
    file = Path(place)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid4().hex}")  # of two that write the same each has its own
    draft.write_bytes(content)
    draft.replace(file)


def refuse(place: str) -> None:
    """Raises ProjectError for what can never be written to: a URL of no type that is known, a file for a folder.

    Whether a store answers, or a share is there, is another matter: it may, when the night has ended.
    """
    if "://" not in place:
        with suppress(OSError):
            if Path(place).exists() and not Path(place).is_dir():
                raise ProjectError(f"record: {place} is no folder")
        return
    import fsspec

    try:
        fsspec.get_filesystem_class(place.partition("://")[0].rpartition("::")[2])  # simplecache::s3://… too
    except (ValueError, ImportError) as error:
        raise ProjectError(without_login(f"record: {place} cannot be written to: {error}")) from None
