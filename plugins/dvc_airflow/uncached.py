"""Outs that DVC keeps no object of (`cache: false`): metrics for Git, and data that a project leaves in its work tree.

A clone that reads one is another than the one that made it. So they are kept as DVC keeps the others, in a store of the
engine's beside its cache, under the hash that dvc.lock has of them. The publisher commits those that Git does not
ignore.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc_airflow import objects
from dvc_airflow.objects import Lacking

FOLDER = "dvc-airflow"


def store(cache: Path) -> Path:
    """The folder of the store, beside the objects of DVC's cache."""
    return cache / FOLDER


def keep(repo: Any, paths: Iterable[str], cache: Path) -> None:
    """Put outs of the clone that one stands in into the store. Raises what DVC raises."""
    from dvc.fs import localfs
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.transfer import transfer

    held = _held(cache)
    for path in paths:
        staging, _, found = build(held, path, localfs, "md5", ignore=repo.dvcignore)
        transfer(staging, held, {found.hash_info}, shallow=False)


def restore(wanted: Mapping[str, str], cache: Path) -> None:
    """Write outs, by path and md5, into the clone that one stands in. Raises Lacking for one that the store lacks."""
    objects.require(store(cache), wanted, members=False)
    for path, md5 in wanted.items():
        for name, held in files(path, md5, cache):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held, name)  # and not linked: a stage may write on in it


def take(content: bytes, md5: str, cache: Path) -> None:
    """Put the content of a file into the store, under its md5."""
    place = objects.place(store(cache), md5)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(place)


def present(md5: str, cache: Path) -> bool:
    """Whether the store has an out, and for a folder all that it lists."""
    try:
        objects.require(store(cache), {"": md5}, members=False)
    except Lacking:
        return False
    return True


def files(path: str, md5: str, cache: Path) -> Iterator[tuple[str, Path]]:
    """Every file of an out: where it lies in a project, and its object."""
    top = objects.place(store(cache), md5)
    if not md5.endswith(".dir"):
        yield path, top
        return
    for one in json.loads(top.read_text(encoding="utf-8")):
        yield f"{path}/{one['relpath']}", objects.place(store(cache), one["md5"])


def _held(cache: Path) -> Any:
    from dvc.fs import localfs
    from dvc_data.hashfile.db.local import LocalHashFileDB

    made: Any = LocalHashFileDB
    return made(localfs, str(store(cache) / "files" / "md5"))
