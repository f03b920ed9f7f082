"""What is written of a night for others to read: a file, whole or not at all, in a folder or an object store."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write(place: str, content: bytes) -> None:
    """Write a file at a path, or at a URL that DVC's file systems know (s3://…). Raises OSError."""
    if "://" in place:
        import fsspec

        fs, path = fsspec.core.url_to_fs(place)
        fs.pipe_file(path, content)  # an object is there once it has all its bytes
        return
    file = Path(place)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid4().hex}")  # of two that write the same each has its own
    draft.write_bytes(content)
    draft.replace(file)


def refuse(place: str) -> None:
    """Raises OSError for a folder that nothing can be written in, or a URL of a type that nobody knows."""
    if "://" in place:
        import fsspec

        try:
            fsspec.core.url_to_fs(place)
        except (ValueError, ImportError) as error:
            raise OSError(f"{place} cannot be written to: {error}") from None
        return
    Path(place).mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OSError(f"{place} cannot be written to")
