"""The file behind the keys: keys, their secrets as keyed hashes, and the peppers that they are hashed under.

SQLite in NIGHTSHIFT_HOME/keys, looked at on every request, so that a revocation holds at once in every process. A
pepper is a file of its own, readable by its owner alone; keys are never made or checked under another than their own.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nightshift import commit
from nightshift.errors import AccessDenied, StorageError, full, no_room

VERSION = 2  # of the tables
PEPPER_BYTES = 32
WAIT_S = 10.0  # for another process's transaction
Seen = tuple[int, int, int]
_TABLES = """
create table if not exists keys (
    id text primary key, owner text not null, scopes text not null, groups text not null, limits text,
    created integer not null, revoked integer) without rowid;
create table if not exists secrets (
    id text not null, slot integer not null, hash blob not null, pepper integer not null, created integer not null,
    expires integer not null, used integer, primary key (id, slot)) without rowid;
"""
_FROM_1 = f"""
alter table keys rename to first;
{_TABLES}
insert into keys select id, owner, scopes, groups, null, created, revoked from first;
insert into secrets select id, 1, hash, pepper, created, expires, null from first;
drop table first;
"""


class KeyStore:
    """The store of one home; one connection a thread. `newest` is the pepper that the last transaction found newest."""

    newest: tuple[int, bytes]

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "keys"  # where the store and its peppers lie
        self.file = self.folder / "keys.sqlite"
        self._mine = threading.local()
        self._read: dict[int, tuple[Seen | None, bytes]] = {}  # peppers as they were when they were read
        self._listed: tuple[Seen | None, int] | None = None

    @contextmanager
    def open(self, wait_s: float = WAIT_S, make: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; it waits this long for another's, and may make a store that is not there.

        Raises AccessDenied without the pepper, StorageError for a store that cannot be used.
        """
        self.newest = self.pepper()
        try:
            db = self._connected(wait_s, make)
            with db:
                yield db
        except (sqlite3.Error, ValueError) as error:  # rows of a damaged file may hold anything
            self._mine.db = None
            if full(error):
                raise no_room(str(self.file)) from error
            do = "check that it is whole and may be written; restore it from a backup, or make new keys"
            raise StorageError(f"the key store cannot be used ({error})", str(self.file), do) from error

    def proven(self, db: sqlite3.Connection) -> dict[tuple[bytes, int], Any]:
        """Keys that were right, by the hash of their text and the day, since anything in the store changed.

        A connection sees by SQLite's data_version that another one wrote; what else happens to the file, by its stat.
        """
        now = (db.execute("pragma data_version").fetchone()[0], self._mine.seen, self.newest[0])
        if now != self._mine.when_proven:
            self._mine.when_proven, self._mine.proven = now, {}
        return self._mine.proven

    def pepper(self, version: int | None = None) -> tuple[int, bytes]:
        """A pepper with its version, the newest unless one is named; the first is made with the first key.

        Raises AccessDenied when the keys that there are were made under one that is not there.
        """
        version = version or self._newest()
        seen = _seen(f"{self.folder}/pepper-{version}")
        if seen and (kept := self._read.get(version)) and kept[0] == seen:
            return version, kept[1]
        path = self.folder / f"pepper-{version}"
        if not seen and not self.file.is_file():
            self._write(path)
        pepper = path.read_bytes() if path.is_file() else b""
        if len(pepper) != PEPPER_BYTES:
            what = "it is damaged" if pepper else "it is lost or empty"
            do = f"restore it from a backup, or remove {path.parent} and make new keys"
            raise AccessDenied(f"{what}, and keys are hashed under it", str(path), do)
        self._read[version] = (_seen(path), pepper)
        return version, pepper

    def new_pepper(self) -> int:
        """Make another pepper, for new secrets and, at its next use, for each that there is; returns its version."""
        version = self.pepper()[0] + 1
        self._write(self.folder / f"pepper-{version}")
        return version

    def _write(self, path: Path) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        with suppress(FileExistsError):  # of two who make one at once, both use the first
            commit.secret(path, secrets.token_bytes(PEPPER_BYTES), 0o400)

    def _newest(self) -> int:
        """The version of the newest pepper; looked for again when the folder changed."""
        seen = _seen(self.folder)
        if seen is None or self._listed is None or self._listed[0] != seen:
            found = [one.name.removeprefix("pepper-") for one in self.folder.glob("pepper-*")]
            self._listed = (seen, max((int(one) for one in found if one.isdigit()), default=1))
        return self._listed[1]

    def _connected(self, wait_s: float, make: bool) -> sqlite3.Connection:
        """This thread's connection; a new one when the file is another than it was."""
        seen = self._mine.seen = _seen(self.file)
        if seen is None and not make:
            do = f"restore it from a backup, or remove {self.folder} and make new keys"
            raise StorageError("the key store is not there", str(self.file), do)
        db: sqlite3.Connection | None = getattr(self._mine, "db", None)
        if db is not None and seen and seen[0] == self._mine.inode:
            if wait_s != self._mine.wait_s:
                db.execute(f"pragma busy_timeout = {int(1000 * wait_s)}")
                self._mine.wait_s = wait_s
            return db
        if db is not None:
            db.close()
        db = sqlite3.connect(self.file, timeout=wait_s)
        self.file.chmod(0o600)
        _migrate(db, make)
        self._mine.db, self._mine.inode, self._mine.wait_s = db, self.file.stat().st_ino, wait_s
        self._mine.when_proven = None
        return db


def _seen(path: Path | str) -> Seen | None:
    """What tells that a file is the one that was read: its inode, time of change and size."""
    try:
        found = os.stat(path)  # noqa: PTH116  on every request, and twice as fast as pathlib's
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _migrate(db: sqlite3.Connection, make: bool) -> None:
    """Bring the tables to what they are now; what a store of version 1 holds stays valid.

    A file without any, which may be one that is just being restored, is filled by who may make one alone.
    """
    if db.execute("pragma user_version").fetchone()[0] >= VERSION:
        return
    columns = {row[1] for row in db.execute("pragma table_info(keys)")}
    if not columns and not make:
        raise sqlite3.DatabaseError("it is empty")
    steps = _FROM_1 if "hash" in columns else _TABLES
    db.executescript(f"begin immediate; {steps} pragma user_version = {VERSION}; commit;")


def listed(text: object) -> tuple[str, ...]:
    """A list that was kept as JSON. Raises ValueError for what is none."""
    found = json.loads(str(text))
    if not isinstance(found, list):
        raise ValueError("a list was kept as something else")
    return tuple(map(str, found))
