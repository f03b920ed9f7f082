"""Find the source that holds a document, by the rules by which `discover` lists it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nightshift import storage
from nightshift.data import source
from nightshift.errors import SourceError
from nightshift.sections import Sources
from nightshift.sources import FolderSource, PackagesSource, S3Source


def holders(path: str, params: Sources, root: Path, lock: str) -> list[tuple[str, str]]:
    """(source, path inside it) for every source that holds the document; `path` may name the source's folder, too.

    Raises SourceError when none does, or when one cannot be looked into.
    """
    found = [
        (one.name, inside) for one in params.items for inside in _inside(one, path) if _has(one, inside, root, lock)
    ]
    if not found:
        do = "name it as data/sources.json does, like python==3.11/json/decoder.py"
        raise SourceError("no source of params.yaml holds this document", path, do)
    return found


def _inside(one: PackagesSource | FolderSource | S3Source, path: str) -> Iterator[str]:
    """What the path may be called inside a source."""
    yield path
    if not isinstance(one, PackagesSource):
        prefix = (one.uri if isinstance(one, S3Source) else one.path).rstrip("/") + "/"
        if path.startswith(prefix):
            yield path.removeprefix(prefix)


def _has(one: PackagesSource | FolderSource | S3Source, path: str, root: Path, lock: str) -> bool:
    if isinstance(one, PackagesSource):
        package = path.partition("==")[0]
        only = one.model_copy(update={"packages": [package]})
        return package in one.packages and any(item.path == path for item in source.items(only, 0, root, lock))
    if source.ending(path) not in source.READ:
        return False
    return any(stored.name == path for stored in storage.listing(source.location(one, root)))
