"""A release's folder, but only when it is what was released and one of our keys signed it.

Everything that serves, asks or hands on a release begins here, so that an altered, unsigned or superseded one goes
nowhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nightshift import registry, signature
from nightshift.registry import Release

UNASKED_S = 86_400.0


@dataclass(frozen=True)
class Store:
    """Where releases, their copies and their signatures are: a repository, NIGHTSHIFT_HOME, NIGHTSHIFT_STATE."""

    repository: Path
    home: Path
    state: Path

    @property
    def keys(self) -> Path:
        """Public keys that are trusted beside this home's own."""
        return self.repository / "keys"

    def copy(self, digest: str) -> Path:
        """Where the copy of a release lies that is served."""
        return self.state / "releases" / digest

    def signature(self, digest: str) -> Path:
        """Where the signature of a release lies."""
        return self.home / "releases" / digest / "model.sig"

    def trusted(self, release: Release) -> tuple[Path, str]:
        """The release's folder, and the fingerprint of the key that signed it. Raises ReleaseInvalid, StorageError."""
        folder = registry.fetch(self.repository, release, self.copy(release.digest))
        os.utime(folder)
        return folder, signature.verify(folder, self.signature(release.digest), self.home, self.keys)

    def tidy(self, wanted: Collection[str], now: float) -> None:
        """Remove copies that nobody asked for since a day and DVC's cache holds too; a night's model is large.

        What was pulled or unpacked here may be the only copy, and stays; so do those of `wanted`, by digest.
        """
        for release in registry.releases(self.repository):
            copy = self.copy(release.digest)
            old = copy.is_dir() and copy.stat().st_mtime < now - UNASKED_S
            if old and release.digest not in wanted and registry.cached(self.repository, release):
                shutil.rmtree(copy, ignore_errors=True)
