"""One commit as it was: its files in Git, and its outs, read through DVC from the cache or a remote.

Nothing is checked out, so that a command may look into any night while another one runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightshift.errors import StorageError

if TYPE_CHECKING:
    import polars as pl


class Past:
    """One commit of a repository."""

    def __init__(self, repository: Path, at: str) -> None:
        self.repository, self.at = repository, at

    @cached_property
    def files(self) -> Any:
        """DVC's file system of the commit."""
        from dvc.api import DVCFileSystem

        with self._told("dvc.yaml"):
            return DVCFileSystem(str(self.repository), rev=self.at)

    def read(self, path: str) -> bytes:
        """One file. Raises StorageError where it is not to be had."""
        files = self.files
        with self._told(path):
            return bytes(files.read_bytes(path))

    def rows(self, table: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of a section table with these ids."""
        held = self.table(f"{table}/rows.parquet")
        return {row["id"]: row for row in held.filter(held["id"].is_in(list(ids))).iter_rows(named=True)}

    def table(self, path: str) -> pl.DataFrame:
        """A Parquet file. Raises StorageError where it is not to be had."""
        import polars as pl

        return pl.read_parquet(BytesIO(self.read(path)))

    def git(self, *words: str) -> bytes:
        """What Git says of the commit; b"" where it says nothing."""
        asked = ["git", "-C", str(self.repository), *words, self.at]
        return subprocess.run(asked, capture_output=True, check=False).stdout

    def git_file(self, path: str) -> bytes:
        """A file that Git has of the commit; b"" where it has none."""
        asked = ["git", "-C", str(self.repository), "show", f"{self.at}:{path}"]
        return subprocess.run(asked, capture_output=True, check=False).stdout

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        from dvc.exceptions import DvcException
        from dvc_data.index import DataIndexDirError

        try:
            yield
        except (DvcException, DataIndexDirError, OSError) as error:
            said = str(error) or type(error).__name__
            what = f"it is not to be had of commit {self.at[:10]} ({said})"
            raise StorageError(what, path, "`dvc fetch` it from the remote, or run that night again") from None
