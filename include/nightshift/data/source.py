"""Where the items of a source lie: which there are, and the bytes of one.

A source is a list of installed packages, a folder, or an S3 prefix (params.yaml: sources). An item is one file.
Packages are taken at the versions of the lock only: another version would be another corpus on every machine. A
folder that Git does not ignore is refused, since documents in Git cannot be taken back.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from nightshift import storage
from nightshift.errors import SourceError
from nightshift.sources import FolderSource, PackagesSource, S3Source
from nightshift.versions import pinned

READ = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".txt": "text", ".rst": "text"}
# folders of the standard library and of packages that hold tests, vendored code or tools rather than documentation
SKIPPED = {"tests", "test", "testing", "site-packages", "idlelib", "lib2to3", "ensurepip", "__pycache__", "_vendor"}
STDLIB = "python"


@dataclass(frozen=True)
class Item:
    """One file of a source. `path` is stable between machines; `sha256` is of its bytes."""

    source: str
    kind: str
    rank: int
    path: str
    bytes: int
    sha256: str
    licence: str
    groups: tuple[str, ...]

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Item:
        """The item that an entry of sources.json stands for."""
        return cls(**entry | {"groups": tuple(entry["groups"])})

    def as_json(self) -> dict[str, object]:
        """The item as it stands in sources.json."""
        return asdict(self) | {"groups": list(self.groups)}


def items(
    source: PackagesSource | FolderSource | S3Source,
    rank: int,
    root: Path,
    lock: str,
    unread: Counter[str] | None = None,
) -> Iterator[Item]:
    """Every item of one source. Raises SourceError, StorageError.

    `unread` counts, by ending, the files of a folder or prefix that no reader is there for.
    """
    if isinstance(source, PackagesSource):
        for name in source.packages:
            yield from _package(source, rank, name, lock)
        return
    place = location(source, root)
    found = storage.listing(place)
    if isinstance(source, FolderSource):
        _outside_git(root / source.path)
    listed = [o for o in found if ending(o.name) in READ]
    if unread is not None:
        unread.update(one or "none" for o in found if (one := ending(o.name)) not in READ)
    if not listed:
        raise SourceError("no Markdown, text or HTML is there", place, f"known endings are {', '.join(READ)}")
    for stored in listed:
        digest = hashlib.sha256(storage.read(f"{place}/{stored.name}")).hexdigest()
        yield Item(
            source.name, source.kind, rank, stored.name, stored.bytes, digest, source.licence, tuple(source.groups)
        )


def ending(name: str) -> str:
    """What a file's name ends with, lower-case: '.md'."""
    return PurePosixPath(name).suffix.lower()


def location(source: FolderSource | S3Source, root: Path) -> str:
    """Folder or prefix that the paths of a source's items are relative to."""
    return source.uri.rstrip("/") if isinstance(source, S3Source) else str(root / source.path)


def read(item: Item, source: PackagesSource | FolderSource | S3Source, root: Path) -> bytes:
    """The bytes of one item. Raises SourceError when they are not those that were discovered."""
    if isinstance(source, PackagesSource):
        content = _content(item.path)
    else:
        content = storage.read(f"{location(source, root)}/{item.path}")
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise SourceError("it changed since it was discovered", f"{item.source}: {item.path}", "run the night again")
    return content


def _package(source: PackagesSource, rank: int, name: str, lock: str) -> Iterator[Item]:
    version, licence = installed(name, lock)
    head = f"{name}=={version}"
    for relative in _python_files(name):
        path = _root(name) / relative
        content = storage.read(str(path))
        digest = hashlib.sha256(content).hexdigest()
        groups = tuple(source.groups)
        yield Item(source.name, source.kind, rank, f"{head}/{relative}", len(content), digest, licence, groups)
    if readme := _readme(name):
        digest = hashlib.sha256(readme).hexdigest()
        groups = tuple(source.groups)
        yield Item(source.name, source.kind, rank, f"{head}/README.md", len(readme), digest, licence, groups)


def installed(name: str, lock: str) -> tuple[str, str]:
    """Version and licence of a package. Raises SourceError when it is not the lock's."""
    if name == STDLIB:
        return sysconfig.get_python_version(), "PSF-2.0"
    wanted = pinned(lock).get(name)
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        found = None
    if found is None or (wanted is not None and found != wanted):
        version = f"=={wanted}" if wanted else ""
        state = "is not installed" if found is None else f"is installed as {found}, the lock has {wanted}"
        do = f"run `pip install {name}{version}`" if wanted else "mend its name, or add it to requirements.in"
        raise SourceError(f"{name} {state}", "params.yaml: sources", do)
    about = metadata.metadata(name)
    return found, "".join(about.get_all("License-Expression") or []) or _classified(about.get_all("Classifier") or [])


def _classified(classifiers: list[str]) -> str:
    """SPDX licence of the commonest classifiers; 'unknown' for the rest."""
    known = {
        "MIT License": "MIT",
        "BSD License": "BSD-3-Clause",
        "Apache Software License": "Apache-2.0",
        "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    }
    ends = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License ::")]
    return next((known[end] for end in ends if end in known), "unknown")


def _root(name: str) -> Path:
    if name == STDLIB:
        return Path(sysconfig.get_paths()["stdlib"])
    return Path(str(metadata.distribution(name).locate_file("")))


def _python_files(name: str) -> list[str]:
    """Relative paths of a package's Python files, tests and vendored code left out, sorted."""
    if name == STDLIB:
        root = _root(name)
        found = [p.relative_to(root) for p in root.rglob("*.py")]
    else:
        found = [Path(str(f)) for f in metadata.files(name) or []]
    kept = [p for p in found if p.suffix == ".py" and not SKIPPED & set(p.parts) and ".." not in p.parts]
    return sorted(p.as_posix() for p in kept if not p.name.startswith(("test_", "conftest")))


def _readme(name: str) -> bytes | None:
    if name == STDLIB:
        return None
    text = str(metadata.metadata(name).json.get("description", ""))
    return text.encode() if text.strip() else None


def _content(path: str) -> bytes:
    head, _, relative = path.partition("/")
    name = head.partition("==")[0]
    if relative == "README.md":
        return _readme(name) or b""
    return storage.read(str(_root(name) / relative))


def _outside_git(folder: Path) -> None:
    """Refuse a folder of documents that Git would keep. Raises SourceError with the line to add."""
    asked = ["git", "-C", str(folder), "rev-parse", "--show-toplevel"]
    top = subprocess.run(asked, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}, check=False)
    if top.returncode != 0 and "not a git repository" in top.stderr:
        return
    if top.returncode != 0:  # not known to be outside: a repository of another owner, say
        said = " ".join(top.stderr.split())
        raise SourceError(f"Git cannot say whether it keeps this folder ({said})", str(folder), "do what Git says")
    line = "/" + folder.resolve().relative_to(Path(top.stdout.strip()).resolve()).as_posix() + "/"
    ignored = subprocess.run(["git", "-C", str(folder), "check-ignore", "-q", "."], check=False).returncode == 0
    tracked = subprocess.run(["git", "-C", str(folder), "ls-files", "."], capture_output=True, check=False).stdout
    if tracked or not ignored:
        raise SourceError(
            "documents inside Git cannot be taken back", str(folder), f"move them away, or add {line} to .gitignore"
        )
