"""Keys of the endpoint: made, checked, revoked. Only a keyed hash of a secret is kept.

A key is `ns_{environment}_{id}_{secret}_{crc}`: ten base32 letters that find it, 256 bits of secret, and a checksum, so
that scanners and our own masking can tell one and a mistyped one is refused without a look into the store. The secret
is random and long, so that HMAC-SHA256 under a pepper is enough: a slow hash on every request would be a lever for
denial of service. Scopes are refused unless given. The store is SQLite in NIGHTSHIFT_HOME, read on every request, so
that a revocation holds at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import string
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nightshift import commit
from nightshift.errors import AccessDenied, StorageError, full, no_room

SCOPES = ("infer:chat", "models:read")
FORM = re.compile(r"ns_([a-z]+)_([a-z2-7]{10})_([A-Za-z0-9_-]{43})_([0-9A-Za-z]{6})")
LONGEST_DAYS = 90
PEPPER_BYTES = 32
GROUP = re.compile(r"[\w.-]+")
_ALPHABET = string.digits + string.ascii_letters
_TABLE = """create table if not exists keys (
    id text primary key, hash blob not null, pepper integer not null, owner text not null, scopes text not null,
    groups text not null, created integer not null, expires integer not null, revoked integer) without rowid"""


@dataclass(frozen=True)
class Key:
    """What is known of a key; times are seconds since 1970."""

    id: str
    owner: str
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    created: int
    expires: int
    revoked: int | None


class Keys:
    """The key store of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def create(
        self, owner: str, scopes: tuple[str, ...], groups: tuple[str, ...], days: int, now: float, place: str = "local"
    ) -> str:
        """Make a key; the text that is returned is kept nowhere. Raises AccessDenied."""
        if unknown := set(scopes) - set(SCOPES):
            raise AccessDenied(f"no scope {sorted(unknown)[0]}", "--scope", f"there are {', '.join(SCOPES)}")
        if not owner.strip() or not owner.isprintable():
            raise AccessDenied(f"{owner!r} is no name", "--owner", "say who the key is for")
        for one in groups:
            if not GROUP.fullmatch(one):
                raise AccessDenied(f"{one!r} is no group", "--group", "write letters, digits, and any of . _ -")
        if not 1 <= days <= LONGEST_DAYS:
            raise AccessDenied(f"a key lives 1 to {LONGEST_DAYS} days, not {days}", "--days", "give another number")
        identifier = base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        with self._store() as db:
            db.execute(
                "insert into keys values (?, ?, 1, ?, ?, ?, ?, ?, null)",
                (
                    identifier,
                    self._hash(secret),
                    owner,
                    json.dumps(scopes),
                    json.dumps(groups),
                    int(now),
                    int(now) + days * 86_400,
                ),
            )
        head = f"ns_{place}_{identifier}_{secret}"
        return f"{head}_{checksum(head)}"

    def check(self, text: str, now: float) -> Key | None:
        """The key that this text is, when it is known, unexpired and not revoked; else None, after the same work."""
        parsed = FORM.fullmatch(text)
        if not parsed or checksum(text.rpartition("_")[0]) != parsed[4]:
            return None
        with self._store() as db:
            row = db.execute("select * from keys where id = ?", (parsed[2],)).fetchone()
            wanted = row[1] if row else bytes(32)
            if not hmac.compare_digest(self._hash(parsed[3]), wanted) or not row:
                return None
            found = _key(row)
        return found if found.revoked is None and found.created <= now < found.expires else None

    def listed(self) -> list[Key]:
        """Every key, oldest first."""
        with self._store() as db:
            return [_key(row) for row in db.execute("select * from keys order by created, id")]

    def revoke(self, identifier: str, now: float) -> None:
        """End a key at once. Raises AccessDenied for an unknown id."""
        with self._store() as db:
            done = db.execute("update keys set revoked = ? where id = ? and revoked is null", (int(now), identifier))
            if done.rowcount == 0:
                raise AccessDenied(
                    f"no key {identifier} that could be revoked", "", "`nightshift keys list` shows them"
                )

    @property
    def _file(self) -> Path:
        return self.home / "keys" / "keys.sqlite"

    def _hash(self, secret: str) -> bytes:
        return hmac.new(self._pepper(), secret.encode(), hashlib.sha256).digest()

    def _pepper(self) -> bytes:
        """What secrets are hashed under. Raises AccessDenied when the keys that there are were made under another."""
        path = self.home / "keys" / "pepper-1"
        if not path.is_file() and not self._file.is_file():
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)
            with suppress(FileExistsError):  # of two who make one at once, both use the first
                commit.secret(path, secrets.token_bytes(PEPPER_BYTES), 0o400)
        pepper = path.read_bytes() if path.is_file() else b""
        if len(pepper) != PEPPER_BYTES:
            what = "it is damaged" if pepper else "it is lost or empty"
            do = f"restore it from a backup, or remove {path.parent} and make new keys"
            raise AccessDenied(f"{what}, and keys are hashed under it", str(path), do)
        return pepper

    @contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        path = self._file
        self._pepper()
        try:
            with closing(sqlite3.connect(path, timeout=10)) as db:
                path.chmod(0o600)
                with db:
                    db.execute(_TABLE)
                    yield db
        except (sqlite3.Error, ValueError) as error:  # rows of a damaged file may hold anything
            if full(error):
                raise no_room(str(path)) from error
            do = "check that it is whole and may be written; restore it from a backup, or make new keys"
            raise StorageError(f"the key store cannot be used ({error})", str(path), do) from error


def checksum(text: str) -> str:
    """CRC-32 as six letters and digits: tells a mistyped key, proves nothing."""
    number = binascii.crc32(text.encode())
    letters = []
    for _ in range(6):
        number, rest = divmod(number, 62)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))


def _key(row: tuple[object, ...]) -> Key:
    identifier, _, _, owner, scopes, groups, created, expires, revoked = row
    return Key(
        str(identifier),
        str(owner),
        tuple(json.loads(str(scopes))),
        tuple(json.loads(str(groups))),
        int(str(created)),
        int(str(expires)),
        None if revoked is None else int(str(revoked)),
    )
