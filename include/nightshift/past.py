"""One commit as it was: its files in Git, and its outs, read through DVC from the cache or a remote.

Nothing is checked out, so that a command may look into any night while another one runs. Of a release that came in a
bundle there is no such commit: what its own folder holds is all that can be read.
"""

from __future__ import annotations

import json
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

TABLES = ("data/unique", "data/clean", "data/raw")  # from what is searched back to what was read


class Past:
    """One commit of a repository."""

    tables: Sequence[str] = TABLES

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

    def sources(self) -> list[dict[str, Any]]:
        """Source, path, bytes and sha256 of each file that was read. Raises StorageError."""
        return list(json.loads(self.read("data/sources.json"))["items"])

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

    @property
    def published(self) -> bool:
        """Whether it is a night's: what a bundle is unpacked into has an empty commit."""
        return bool(self.git("ls-tree", "--name-only"))

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


class Unpacked(Past):
    """What is to be had where a release was unpacked: its papers, and the sections that it answers from."""

    tables = TABLES[:1]

    def __init__(self, repository: Path, at: str, copy: Path) -> None:
        super().__init__(repository, at)
        self.parts = {f"{TABLES[0]}/rows.parquet": copy / "system" / "index" / "sections.parquet"}
        self.parts |= {f"release/{name}": copy / name for name in ("facts.json", "lineage.json")}

    def read(self, path: str) -> bytes:
        """One file. Raises StorageError for one that a release does not hold."""
        try:
            return self.parts[path].read_bytes()
        except (KeyError, OSError):
            do = "look into the repository that the release was made in"
            raise StorageError("it is not to be had where a bundle was unpacked", path, do) from None

    def sources(self) -> list[dict[str, Any]]:
        """None: no file was read here."""
        return []
