"""What an environment rests on that is made of a requirements file: the file, those that it names, local archives.

It is kept by the hash of their content. So what has no content of its own to hash is refused: a folder, editable or
not, which would be that of a clone that is gone when the next stage comes, and a file at a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

OPTION = re.compile(r"(?:(-r|-c|-e)\s*|(--requirement|--constraint|--editable)[\s=]+)(\S+)")
# a requirement that is a path, as pip and uv take one: './a.whl', '/b', 'file:c', 'name @ file:d', 'e.tar.gz'
LOCAL = re.compile(r"(?:[^\s@]+\s*@\s*)?(file:(?://)?)?(\S+)")
ARCHIVES = (".whl", ".tar.gz", ".zip")
_REMEDY = "let PYTHONPATH show what the clone has, or name a wheel of it"


class RequirementsError(ValueError):
    """A requirements file of which no environment can be kept: file, line, what to do."""


def rests_on(file: Path) -> list[Path]:
    """The file and all that it names, each once, in the order in which they are read.

    What is not there is left out: the installer says so. Raises RequirementsError.
    """
    found: dict[Path, None] = {}
    _read(file, file.parent, found)
    return list(found)


def _read(file: Path, folder: Path, found: dict[Path, None]) -> None:
    """Add a file and all that it names; local paths are relative to the folder that the installer runs in."""
    if file.resolve() in {one.resolve() for one in found} or not file.is_file():
        return
    found[file] = None
    for number, line in _lines(file):
        where = f"{file.name}:{number}: {line}"
        if option := OPTION.match(line):
            kind, path = option[1] or option[2], option[3]
            if kind in ("-e", "--editable"):
                raise RequirementsError(f"{where} is of a clone that goes; {_REMEDY}")
            if "://" in path:
                raise RequirementsError(f"{where} may say something else tomorrow; commit that file, and name it")
            _read(file.parent / path, folder, found)
        elif path := _local(line):
            if (folder / path).is_dir():
                raise RequirementsError(f"{where} is a folder, of a clone that goes; {_REMEDY}")
            if (folder / path).is_file():
                found[folder / path] = None


def _local(line: str) -> str:
    """The path that a requirement is; "" for one of an index, a repository or a URL."""
    found = LOCAL.match(line)
    if found is None or "://" in found[2]:
        return ""
    path = found[2].partition("[")[0]  # extras
    return (
        path
        if found[1] or path.startswith(("./", "../", "/")) or path in (".", "..") or path.endswith(ARCHIVES)
        else ""
    )


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that says something, without comments; continued ones are one."""
    began, held = 0, ""
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        began = began or number
        held += re.sub(r"(^|\s)#.*", "", line)
        if held.endswith("\\"):
            held = held[:-1]
            continue
        if held.strip():
            yield began, held.strip()
        began, held = 0, ""
