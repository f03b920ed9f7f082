"""Hash objects of DVC's cache before a stage reads them, since DVC does not: it trusts one that is read-only.

A damaged object is put aside. Its name is the hash of what it should hold, so that it is of no use to anybody; and as
long as it lies there, DVC neither fetches nor writes the sound one. A remote may have it; else its stage makes it anew
in the next night, since an entry counts only while its objects are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

DAMAGED = "damaged"  # folder in a cache
OLD_S = 43_200.0  # gc.py keeps what is younger than two days, whatever names it
THREADS = 4  # hashing leaves Python's lock alone


class Lacking(Exception):
    """An object that a stage needs is missing or damaged: the out, the object, what to do."""


@dataclass(frozen=True)
class Problem:
    """An object that is missing, or was damaged.

    Args:
        out: what it belongs to.
        held: where it should lie; `aside`, where it was put, since it was damaged.
    """

    out: str
    held: Path
    aside: Path | None

    @property
    def what(self) -> str:
        """What is wrong."""
        said = f"was damaged, and is put aside as {self.aside}" if self.aside else "is missing from the cache"
        return f"{self.out}: its object {self.held} {said}"

    @property
    def sentence(self) -> str:
        """That, and what to do."""
        do = "else the next night makes it anew, or `dvc add` what a .dvc file tracks"
        return f"{self.what}; `dvc push` it where somebody has it; {do}"


def md5(content: bytes | None) -> str | None:
    """DVC's hash of a file; None for no file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() if content is not None else None


def place(cache: Path, md5: str) -> Path:
    """Where DVC's cache keeps an object."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def require(cache: Path, outs: Mapping[str, str], members: bool = True) -> None:
    """Raises Lacking for the first of `problems`."""
    if found := problems(cache, outs, members):
        raise Lacking(found[0].sentence)


def problems(
    cache: Path, outs: Mapping[str, str], members: bool = True, read: Collection[str] | None = None
) -> list[Problem]:
    """Each object that is missing, or not what its name says: that is put aside.

    Args:
        outs: path → md5.
        members: hash the files of folders too, and do not only look whether they are there.
        read: paths of files and folders; what lies in none of them need not be there.
    """
    found: list[Problem] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for out, md5 in outs.items():
            top = place(cache, md5)
            if wrong := _wrong(cache, out, top, hashed=True):
                found.append(wrong)
            elif md5.endswith(".dir"):
                held = [place(cache, one) for one in dict.fromkeys(listed(top, out, read))]
                found += filter(None, pool.map(partial(_wrong, cache, out, hashed=members), held))
    return found


def _wrong(cache: Path, out: str, held: Path, hashed: bool) -> Problem | None:
    """What is wrong with an object; None for nothing."""
    if not held.is_file():
        return Problem(out, held, None)
    if not hashed or sound(held):
        return None
    aside = cache / DAMAGED / (held.parent.name + held.name)
    aside.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # another reader was faster
        held.replace(aside)
    return Problem(out, held, aside)


def sound(held: Path) -> bool:
    """Whether an object is what its name says."""
    with held.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == (held.parent.name + held.name).removesuffix(".dir")


def touch(cache: Path, md5s: Iterable[str]) -> None:
    """Let objects be young, since a night needs them and no commit names them yet (gc.py).

    Those of the last hours stay as they are: with a hard link to one in a checkout, DVC would hash that anew.
    """
    old = time.time() - OLD_S
    for md5 in md5s:
        for one in [md5, *(listed(place(cache, md5)) if md5.endswith(".dir") else [])]:
            held = f"{cache}/files/md5/{one[:2]}/{one[2:]}"  # by `place` it takes four times as long
            with suppress(OSError):  # another user's
                if os.path.getmtime(held) < old:  # noqa: PTH204
                    os.utime(held)


def listed(held: Path, out: str = "", read: Collection[str] | None = None) -> list[str]:
    """The md5 of every file that a folder's object lists; where paths are given, of each that lies in one of them."""
    files = json.loads(held.read_text(encoding="utf-8"))
    if read is not None:
        within = tuple(f"{path}/" for path in read)
        files = [one for one in files if f"{out}/{one['relpath']}/".startswith(within)]
    return [one["md5"] for one in files]
