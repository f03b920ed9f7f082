"""Keep work on one document between nights: (its hash, a fingerprint of function, params and libraries) → result.

A pure cache under `NIGHTSHIFT_STATE/memo`: without it the same bytes are made, only later. A memo is one SQLite file a
fingerprint, so that what nobody used for long can be told by its date, and removed. An unreadable one is forgotten, not
trusted; one that cannot be written is said, since it would cost that time every night. Results are JSON; who wants
speed stores arrays as bytes with `map_bytes`.

Under an S3 prefix a memo is a folder of such files, a file a run that computed something: each is written once, so that
workers who compute at the same time lose nothing of each other's. Many small ones become one.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift import storage
from nightshift.errors import SourceError, StorageError, full, no_room

MOST_FILES = 16  # of a memo in S3, before they become one
INTO = "insert or replace into memo values (?, ?)"
TABLE = "create table if not exists memo (key text primary key, value blob) without rowid"


@dataclass
class Count:
    """What a stage computed and what it found again; goes to night.json, never into an out."""

    computed: int = 0
    reused: int = 0
    bytes: int = 0


class Memo:
    """Results of one function at one fingerprint.

    Args:
        place: the folder or S3 prefix where memos lie; None keeps nothing between runs.
        name: of the function, like 'dedup.signature'.
        fingerprint: everything but the document that the result depends on.
        count: where computed and reused documents are counted.
    """

    def __init__(self, place: Path | str | None, name: str, fingerprint: Any, count: Count) -> None:
        self.count = count
        digest = hashlib.sha256(json.dumps([name, fingerprint], sort_keys=True, default=str).encode()).hexdigest()[:16]
        remote = isinstance(place, str) and storage.is_s3(place)
        self.prefix = f"{place}/{name}-{digest}" if remote else ""
        self.path = Path(place, f"{name}-{digest}.sqlite") if place and not remote else None

    def map_bytes(self, keys: Sequence[str], compute: Callable[[list[int]], Sequence[bytes]]) -> list[bytes]:
        """The result for each key, in order; `compute` is given the positions that are not known yet, all at once."""
        known = self._load(set(keys))
        todo: dict[str, int] = {}
        for position, key in enumerate(keys):
            if key not in known:
                todo.setdefault(key, position)
        fresh = dict(zip(todo, compute(list(todo.values())), strict=True)) if todo else {}
        self._store(fresh)
        self.count.computed += len(fresh)
        self.count.reused += len(set(keys)) - len(fresh)
        self.count.bytes += sum(map(len, fresh.values()))
        known.update(fresh)
        return [known[key] for key in keys]

    def map(self, keys: Sequence[str], compute: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """As `map_bytes`, for results that JSON can hold."""
        found = self.map_bytes(keys, lambda todo: [json.dumps(r).encode() for r in compute(todo)])
        return [json.loads(value) for value in found]

    def _load(self, keys: set[str]) -> dict[str, bytes]:
        if self.prefix:
            return {key: value for key, value in self._everything()[0].items() if key in keys}
        if self.path is None or not self.path.is_file():
            return {}
        try:
            with sqlite3.connect(self.path, timeout=30) as db:
                self.path.touch()
                return {key: value for key, value in db.execute("select key, value from memo") if key in keys}
        except sqlite3.DatabaseError:
            self.path.unlink(missing_ok=True)
            return {}

    def _store(self, fresh: dict[str, bytes]) -> None:
        if self.prefix and fresh:
            self._share(fresh)
        if self.path is None or not fresh:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        try:
            with sqlite3.connect(self.path, timeout=30) as db:
                db.execute(TABLE)
                db.executemany(INTO, fresh.items())
        except sqlite3.Error as error:
            if new:
                self.path.unlink(missing_ok=True)
            if full(error):
                raise no_room(str(self.path)) from error
            what = f"it cannot be written ({error})"
            raise StorageError(what, str(self.path), "check that disk and run again") from error

    def _everything(self) -> tuple[dict[str, bytes], list[str]]:
        """All results in S3, and the files that they are in; what is removed meanwhile, or unreadable, is forgotten."""
        found: dict[str, bytes] = {}
        files = [f"{self.prefix}/{one.name}" for one in storage.held(self.prefix)]
        for file in files:
            with suppress(SourceError, sqlite3.DatabaseError), closing(sqlite3.connect(":memory:")) as db:
                db.deserialize(storage.read(file))
                found.update(db.execute("select key, value from memo"))
        return found, files

    def _share(self, fresh: Mapping[str, bytes]) -> None:
        """Write a file of these results, and with them what is in the others once they are many."""
        before: list[str] = []
        if len(storage.held(self.prefix)) >= MOST_FILES:
            known, before = self._everything()
            fresh = {**known, **fresh}
        with closing(sqlite3.connect(":memory:")) as db:
            db.execute(TABLE)
            db.executemany(INTO, sorted(fresh.items()))
            db.commit()
            content = db.serialize()
        made = f"{self.prefix}/{hashlib.sha256(content).hexdigest()[:16]}.sqlite"
        storage.write(made, content)
        for file in before:
            if file != made:
                storage.remove(file)
