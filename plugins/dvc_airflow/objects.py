"""Hash objects of DVC's cache, since DVC does not: it trusts one that is read-only, and hands out a flipped byte.

A damaged object is removed. Its name is the hash of what it should hold, so that it is of no use to anybody; and as
long as it lies there, DVC neither fetches nor writes the sound one. Its stage makes it anew in the next night, since
an entry counts only while its objects are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path


class Lacking(Exception):
    """An object that a stage needs is missing or damaged: the out, the object, what to do."""


def md5(content: bytes | None) -> str | None:
    """DVC's hash of a file; None for no file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() if content is not None else None


def place(cache: Path, md5: str) -> Path:
    """Where DVC's cache keeps an object."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def require(cache: Path, outs: Mapping[str, str], members: bool) -> None:
    """Raises Lacking for an object that is missing or not what its name says; the latter is removed.

    Args:
        outs: path → md5.
        members: hash the files of folders too, not only the folders' lists.
    """
    for out, md5 in outs.items():
        for held, checked in _objects(cache, md5, members):
            if not held.is_file():
                raise Lacking(_sentence(out, held, "is missing from the cache"))
            if checked and not sound(held):
                held.unlink()
                raise Lacking(_sentence(out, held, "was damaged, and is removed from the cache"))


def sound(held: Path) -> bool:
    """Whether an object is what its name says."""
    with held.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == (held.parent.name + held.name).removesuffix(".dir")


def listed(held: Path) -> list[str]:
    """The md5 of every file that a folder's object lists."""
    return [one["md5"] for one in json.loads(held.read_text(encoding="utf-8"))]


def _objects(cache: Path, md5: str, members: bool) -> Iterator[tuple[Path, bool]]:
    """Every object of an out, the folder's own first, and whether it is to be hashed."""
    top = place(cache, md5)
    yield top, True
    if md5.endswith(".dir"):
        yield from ((place(cache, one), members) for one in listed(top))


def _sentence(out: str, held: Path, what: str) -> str:
    return f"{out}: its object {held} {what}; run the night again, which makes it anew"
