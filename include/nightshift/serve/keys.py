"""Keys of the endpoint: made, checked, rotated, revoked. Only a keyed hash of a secret is kept.

A key is `ns_{environment}_{id}_{secret}_{crc}`: ten base32 letters that find it, 256 bits of secret, and a checksum, so
that scanners and our own masking can tell one and a mistyped one is refused without a look into the store. The secret
is random and long, so that HMAC-SHA256 under a pepper is enough: a slow hash on every request would be a lever for
denial of service. Scopes are refused unless given. A rotated key has two secrets for a while, each with a slot of its
own, so that the last use of the old one can be seen before it ends. What is done to a key stands in the audit before it
is done.
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
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from nightshift import audit
from nightshift.errors import AccessDenied
from nightshift.serve.keystore import KeyStore, listed
from nightshift.serving import KeyLimits
from nightshift.sources import GROUP

SCOPES = {
    "infer:chat": "ask it, and rate what it said",
    "infer:completions": "let its model go on with a text",
    "infer:embeddings": "vectors of its sentence encoder",
    "models:read": "what is served",
    "metrics:read": "counters and latencies",
    "keys:admin": "make, rotate and revoke keys",
    "deploy:propose": "begin a rollout",
    "deploy:approve": "approve a promotion, sign a release again, and replace the key that signs",
    "deploy:rollback": "go back to the release before",
    "audit:read": "who did what",
}
ASKING = ("infer:chat", "infer:completions", "infer:embeddings", "models:read")  # of those who ask, and of nobody else
ADMIN = ("models:read", "metrics:read", "keys:admin", "deploy:propose", "deploy:rollback", "audit:read")
FORM = re.compile(r"ns_([a-z]+)_([a-z2-7]{10})_([A-Za-z0-9_-]{43})_([0-9A-Za-z]{6})")
LONGEST_DAYS, DAY_S, HOUR_S = 90, 86_400, 3_600
CHECKED_WITHIN_S = 0.1  # longer than another process takes to write a key
LONGEST_OVERLAP_H = 7 * 24
_ALPHABET = string.digits + string.ascii_letters


@dataclass(frozen=True)
class Secret:
    """One of a key's secrets, without it; times are seconds since 1970, `used` is the day of its last use."""

    slot: int
    created: int
    expires: int
    used: int | None


@dataclass(frozen=True)
class Key:
    """What is known of a key; times are seconds since 1970.

    Args:
        slot: of the secret that was shown; of the newest in a list.
        limits: narrower than everybody's; None for everybody's.
    """

    id: str
    owner: str
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    created: int
    expires: int
    revoked: int | None
    limits: KeyLimits | None = None
    slot: int = 1
    secrets: tuple[Secret, ...] = ()


class Keys:
    """The keys of one home; those that are made hold this word, which says of which environment they are."""

    def __init__(self, home: Path, word: str = "local") -> None:
        self.home, self.word = home, word
        self.store = KeyStore(home)

    def create(
        self,
        owner: str,
        scopes: tuple[str, ...],
        groups: tuple[str, ...],
        days: int,
        now: float,
        limits: KeyLimits | None = None,
        actor: str = "local",
    ) -> str:
        """Make a key; the text that is returned is kept nowhere. Raises AccessDenied."""
        _sane(owner, scopes, groups, days)
        identifier = base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]
        with self.store.open() as db:
            self._noted(now, actor, "key.create", identifier, owner=owner, scopes=list(scopes), groups=list(groups))
            kept = (identifier, owner, json.dumps(scopes), json.dumps(groups), _kept(limits), int(now))
            db.execute("insert into keys values (?, ?, ?, ?, ?, ?, null)", kept)
            return self._secret(db, identifier, 1, days, now)

    def readable(self) -> None:
        """Raises AccessDenied, StorageError for a store that cannot tell."""
        with self.store.open(CHECKED_WITHIN_S, make=False) as db:
            db.execute("select 1 from keys limit 1").fetchall()

    def check(self, text: str, now: float) -> Key | None:
        """The key that this text is, when it is known, unexpired and not revoked; else None, after the same work.

        Raises AccessDenied, StorageError for a store that cannot tell, at once: everybody else waits meanwhile.
        """
        parsed = FORM.fullmatch(text)
        if not parsed or checksum(text.rpartition("_")[0]) != parsed[4]:
            return None
        today, shown = int(now) // DAY_S, hashlib.sha256(text.encode()).digest()
        with self.store.open(CHECKED_WITHIN_S, make=False) as db:
            proven = self.store.proven(db)
            if (known := proven.get((shown, today))) and known.created <= now < known.expires:
                return known
            asked = "select k.*, s.* from keys k join secrets s using (id) where k.id = ? and s.expires > ?"
            rows = db.execute(asked, (parsed[2], now)).fetchall() or [None]
            right = [row for row in rows if self._is(parsed[3], row)]
            found = _key(right[0]) if right else None
            if found is None or found.revoked is not None or not found.created <= now < found.expires:
                return None
            self._used(db, found, parsed[3], right[0], now)
            proven[shown, today] = found
        return found

    def listed(self) -> list[Key]:
        """Every key, oldest first; `slot` and `expires` are those of its newest secret."""
        with self.store.open() as db:
            asked = "select k.*, s.* from keys k join secrets s using (id) order by k.created, k.id, s.slot"
            found: dict[str, Key] = {}
            for row in db.execute(asked):
                one = _key(row)
                before = found[one.id].secrets if one.id in found else ()
                found[one.id] = Key(**(vars(one) | {"secrets": (*before, *one.secrets)}))
        return list(found.values())

    def rotate(self, identifier: str, overlap_h: float, days: int, now: float, actor: str = "local") -> str:
        """Give a key another secret; the one before ends after these hours. Raises AccessDenied."""
        if not 0 <= overlap_h <= LONGEST_OVERLAP_H:
            what = f"two secrets live beside each other for 0 to {LONGEST_OVERLAP_H} hours, not {overlap_h:g}"
            raise AccessDenied(what, "--overlap", "give another number")
        _lives(days)
        with self.store.open() as db:
            slots = [row[0] for row in db.execute("select slot from secrets where id = ? order by slot", (identifier,))]
            live = db.execute("select 1 from keys where id = ? and revoked is null", (identifier,)).fetchone()
            if not slots or not live:
                raise _unknown(identifier, "rotated")
            self._noted(now, actor, "key.rotate", identifier, slot=slots[-1] + 1, overlap_h=overlap_h)
            until = "update secrets set expires = min(expires, ?) where id = ? and slot {} ?"
            db.execute(until.format("="), (int(now + overlap_h * HOUR_S), identifier, slots[-1]))
            db.execute(until.format("<"), (int(now), identifier, slots[-1]))
            return self._secret(db, identifier, slots[-1] + 1, days, now)

    def revoke(self, identifier: str, now: float, actor: str = "local", reason: str = "") -> None:
        """End a key at once. Raises AccessDenied for an unknown id."""
        with self.store.open() as db:
            if not db.execute("select 1 from keys where id = ? and revoked is null", (identifier,)).fetchone():
                raise _unknown(identifier, "revoked")
            self._noted(now, actor, "key.revoke", identifier, reason=reason)
            db.execute("update keys set revoked = ? where id = ? and revoked is null", (int(now), identifier))

    def new_pepper(self, now: float, actor: str = "local") -> int:
        """Make another pepper (keystore.py); returns its version. Raises AccessDenied, DiskFull."""
        self._noted(now, actor, "key.pepper", f"pepper-{self.store.pepper()[0] + 1}")
        return self.store.new_pepper()

    def _noted(self, now: float, actor: str, action: str, identifier: str, **more: object) -> None:
        audit.write(self.home, now, actor=actor, action=action, target=identifier, **more)

    def _secret(self, db: sqlite3.Connection, identifier: str, slot: int, days: int, now: float) -> str:
        """A new secret in this slot, as the key that is shown once."""
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        version, pepper = self.store.pepper()
        kept = (identifier, slot, _hash(secret, pepper), version, int(now), int(now) + days * DAY_S)
        db.execute("insert into secrets values (?, ?, ?, ?, ?, ?, null)", kept)
        head = f"ns_{self.word}_{identifier}_{secret}"
        return f"{head}_{checksum(head)}"

    def _is(self, secret: str, row: tuple[object, ...] | None) -> bool:
        """Whether a row is this secret's; of an unknown id after the same work."""
        newest, pepper = self.store.newest
        version, wanted = (int(str(row[10])), row[9]) if row else (newest, bytes(32))
        if version != newest:
            _, pepper = self.store.pepper(version)
        return hmac.compare_digest(_hash(secret, pepper), bytes(wanted)) and row is not None  # type: ignore[call-overload]

    def _used(self, db: sqlite3.Connection, key: Key, secret: str, row: tuple[object, ...], now: float) -> None:
        """Note the day of a secret's last use, and hash it under the newest pepper, once a day and once a pepper."""
        today = int(now) // DAY_S
        version, pepper = self.store.newest
        if row[13] == today and row[10] == version:
            return
        kept = (today, version, _hash(secret, pepper), key.id, key.slot)
        db.execute("update secrets set used = ?, pepper = ?, hash = ? where id = ? and slot = ?", kept)


def checksum(text: str) -> str:
    """CRC-32 as six letters and digits: tells a mistyped key, proves nothing."""
    number = binascii.crc32(text.encode())
    letters = []
    for _ in range(6):
        number, rest = divmod(number, 62)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))


def _hash(secret: str, pepper: bytes) -> bytes:
    return hmac.new(pepper, secret.encode(), hashlib.sha256).digest()


def _sane(owner: str, scopes: tuple[str, ...], groups: tuple[str, ...], days: int) -> None:
    """Raises AccessDenied for what no key can be."""
    if unknown := set(scopes) - set(SCOPES):
        raise AccessDenied(f"no scope {sorted(unknown)[0]}", "--scope", f"there are {', '.join(SCOPES)}")
    if not owner.strip() or not owner.isprintable():
        raise AccessDenied(f"{owner!r} is no name", "--owner", "say who the key is for")
    for one in groups:
        if not GROUP.fullmatch(one):
            raise AccessDenied(f"{one!r} is no group", "--group", "write letters, digits, and any of . _ -")
    _lives(days)


def _lives(days: int) -> None:
    if not 1 <= days <= LONGEST_DAYS:
        raise AccessDenied(f"a key lives 1 to {LONGEST_DAYS} days, not {days}", "--days", "give another number")


def _unknown(identifier: str, what: str) -> AccessDenied:
    return AccessDenied(f"no key {identifier} that could be {what}", "", "`nightshift keys list` shows them")


def _kept(limits: KeyLimits | None) -> str | None:
    return limits.model_dump_json() if limits else None


def _key(row: tuple[object, ...]) -> Key:
    """A key with one of its secrets, of a row of both tables. Raises ValueError for a damaged one."""
    identifier, owner, scopes, groups, limits, created, revoked, _, slot, _, _, since, expires, used = row
    try:
        own = KeyLimits.model_validate_json(str(limits)) if limits is not None else None
    except ValidationError as error:
        raise ValueError(f"limits of {identifier}: {error.error_count()} errors") from None
    number = [int(str(one)) for one in (slot, since, expires)]
    day = None if used is None else int(str(used)) * DAY_S
    return Key(
        str(identifier),
        str(owner),
        listed(scopes),
        listed(groups),
        int(str(created)),
        number[2],
        None if revoked is None else int(str(revoked)),
        own,
        number[0],
        (Secret(number[0], number[1], number[2], day),),
    )
