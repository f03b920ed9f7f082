"""What is written of a night for others to read: a file, whole or not at all, in a folder or an object store."""

from __future__ import annotations

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
