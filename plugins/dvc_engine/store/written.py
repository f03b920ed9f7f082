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
        from fsspec.implementations.local import LocalFileSystem

        fs, path = fsspec.core.url_to_fs(place)
        if not isinstance(fs, LocalFileSystem):
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
    kind, _, path = place.rpartition("://")
    if kind:
        import fsspec

        try:
            for one in place.split("::"):  # simplecache::s3://…
                fsspec.get_filesystem_class(one.partition("://")[0])
        except (ValueError, ImportError) as error:
            raise ProjectError(without_login(f"record: {place} cannot be written to: {error}")) from None
    if kind in ("", "file", "local"):
        with suppress(OSError):
            there = next(one for one in (Path(path), *Path(path).parents) if one.exists())
            if not there.is_dir():
                raise ProjectError(f"record: {there} is no folder")
