"""No key, no answer; a key that is rotated or revoked ends when it is said to."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from nightshift import audit
from nightshift.errors import AccessDenied, StorageError
from nightshift.mask import find
from nightshift.serve.keys import FORM, Keys
from nightshift.serving import KeyLimits

NOW = 1_700_000_000.0
DAY = 86_400


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "home")


def create(keys: Keys, days: int = 30, scopes: tuple[str, ...] = ("infer:chat",)) -> str:
    keys.home.mkdir(exist_ok=True)
    return keys.create("me", scopes, ("public",), days, NOW)


def test_unknown_scopes_and_long_lives_are_refused(keys: Keys) -> None:
    with pytest.raises(AccessDenied, match="no scope root"):
        create(keys, scopes=("root",))
    with pytest.raises(AccessDenied, match="1 to 90 days"):
        create(keys, days=91)


def test_what_is_not_the_key_opens_nothing(keys: Keys) -> None:
    key = create(keys)
    other = create(Keys(keys.home.parent / "other"))
    swapped = key[:-8] + ("A" if key[-8] != "A" else "B") + key[-7:]
    for wrong in ("", "ns_", key[:-1], key.upper(), swapped, other, f" {key}", key + "x", "ns_local_" + "a" * 70):
        assert keys.check(wrong, NOW) is None
    assert keys.check(key, NOW) is not None


def test_a_key_ends_by_time_and_by_revocation(keys: Keys) -> None:
    key = create(keys, days=1)
    found = keys.check(key, NOW)
    assert found is not None
    assert keys.check(key, NOW + DAY) is None
    assert keys.check(key, NOW - 1) is None
    keys.revoke(found.id, NOW)
    assert keys.check(key, NOW) is None
    with pytest.raises(AccessDenied, match="no key"):
        keys.revoke(found.id, NOW)


def test_only_a_keyed_hash_is_kept(keys: Keys) -> None:
    key = create(keys)
    secret = key.split("_", 3)[3][:43]
    stored = (keys.home / "keys" / "keys.sqlite").read_bytes()
    assert secret.encode() not in stored
    assert sqlite3.connect(keys.home / "keys" / "keys.sqlite").execute("select count(*) from keys").fetchone() == (1,)
    assert (keys.home / "keys" / "pepper-1").stat().st_mode & 0o777 == 0o400
    assert keys.home.stat().st_mode & 0o777 == 0o700


def test_a_key_has_its_form_and_our_own_masking_knows_it(keys: Keys) -> None:
    for _ in range(20):
        key = create(keys)
        assert FORM.fullmatch(key)
        assert [one.kind for one in find(f"the key {key} is mine")] == ["SECRET"]


@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["lost", "empty", "damaged"])
def test_keys_are_not_made_or_checked_under_another_pepper(keys: Keys, content: bytes | None) -> None:
    key = create(keys)
    pepper = keys.home / "keys" / "pepper-1"
    pepper.unlink()
    if content is not None:
        pepper.write_bytes(content)
    for use in (lambda: create(keys), lambda: keys.check(key, NOW), keys.listed):
        with pytest.raises(AccessDenied, match=r"pepper-1: it is .*restore it from a backup"):
            use()
    assert (pepper.read_bytes() if pepper.exists() else None) == content


def test_rows_that_are_no_keys_are_said_in_a_sentence(keys: Keys) -> None:
    create(keys)
    with sqlite3.connect(keys.home / "keys" / "keys.sqlite") as db:
        db.execute("update keys set scopes = 'not JSON'")
    with pytest.raises(StorageError, match="the key store cannot be used"):
        keys.listed()


@pytest.mark.parametrize(("owner", "group", "said"), [("", "public", "--owner"), ("a\nb", "public", "--owner"),
                                                      ("ann", "a b", "--group"), ("ann", "", "--group")])  # fmt: skip
def test_who_and_what_a_key_is_for_have_names(keys: Keys, owner: str, group: str, said: str) -> None:
    with pytest.raises(AccessDenied, match=said):
        keys.create(owner, ("infer:chat",), (group,), 30, NOW)


def test_a_rotated_key_has_two_secrets_until_the_old_one_ends(keys: Keys) -> None:
    old = create(keys)
    found = keys.check(old, NOW)
    assert found
    new = keys.rotate(found.id, 24, 30, NOW)
    for text, slot in ((old, 1), (new, 2)):
        seen = keys.check(text, NOW + 23 * 3600)
        assert seen and (seen.id, seen.slot) == (found.id, slot)
    assert keys.check(old, NOW + 24 * 3600) is None
    assert keys.check(new, NOW + 24 * 3600)
    third = keys.rotate(found.id, 1, 30, NOW + 60)
    assert keys.check(old, NOW + 61) is None  # two live at a time
    assert keys.check(new, NOW + 61) and keys.check(third, NOW + 61)
    keys.revoke(found.id, NOW + 62)
    assert keys.check(new, NOW + 62) is None and keys.check(third, NOW + 62) is None
    with pytest.raises(AccessDenied, match="could be rotated"):
        keys.rotate(found.id, 1, 30, NOW)


@pytest.mark.parametrize(("overlap", "days"), [(-1, 30), (169, 30), (1, 0), (1, 91)])
def test_a_rotation_has_bounds(keys: Keys, overlap: float, days: int) -> None:
    key = create(keys)
    with pytest.raises(AccessDenied, match=r"--overlap|--days"):
        keys.rotate(key.split("_")[2], overlap, days, NOW)


def test_a_key_says_of_which_environment_it_is(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    keys = Keys(tmp_path / "home", "staging")
    first = create(keys)
    second = keys.rotate(first.split("_")[2], 24, 30, NOW)
    for one in (first, second):
        assert one.startswith("ns_staging_") and keys.check(one, NOW)


def test_the_last_use_of_each_secret_can_be_seen(keys: Keys) -> None:
    old = create(keys)
    keys.rotate(old.split("_")[2], 24, 30, NOW)
    keys.check(old, NOW + 2 * 3600)
    [listed] = keys.listed()
    today = (int(NOW) + 2 * 3600) // DAY * DAY
    assert [(one.slot, one.used) for one in listed.secrets] == [(1, today), (2, None)]


def test_a_new_pepper_takes_over_at_the_next_use(keys: Keys) -> None:
    key, other = create(keys), create(keys)
    assert keys.store.new_pepper() == 2
    assert keys.check(key, NOW)
    (keys.home / "keys" / "pepper-1").unlink()
    assert keys.check(key, NOW)
    with pytest.raises(AccessDenied, match=r"pepper-1: it is lost"):
        keys.check(other, NOW)  # was not used since


def test_a_secret_that_ended_needs_its_pepper_no_more(keys: Keys) -> None:
    old = create(keys)
    new = keys.rotate(old.split("_")[2], 1, 30, NOW)
    keys.store.new_pepper()
    assert keys.check(new, NOW)
    (keys.home / "keys" / "pepper-1").unlink()
    assert keys.check(new, NOW + 3600)
    assert keys.check(old, NOW + 3600) is None


def test_limits_of_its_own_are_kept(keys: Keys) -> None:
    keys.home.mkdir()
    own = KeyLimits(concurrency=1, requests_a_minute=2, tokens_a_minute=3)
    found = keys.check(keys.create("me", ("infer:chat",), ("public",), 1, NOW, limits=own), NOW)
    assert found and found.limits == own


def test_what_is_done_to_a_key_stands_in_the_audit(keys: Keys) -> None:
    key = create(keys)
    identifier = key.split("_")[2]
    keys.rotate(identifier, 1, 30, NOW, actor="ann")
    keys.revoke(identifier, NOW, actor="ann", reason="it was pasted into a chat")
    assert keys.new_pepper(NOW, actor="ann") == 2
    text = (keys.home / audit.FILE).read_text()
    assert audit.verify(keys.home) == 4
    said = audit.events(keys.home)[-1]
    assert (said["actor"], said["action"], said["target"]) == ("ann", "key.pepper", "pepper-2")
    assert text.count(identifier) == 3 and key.split("_", 3)[3][:43] not in text


def test_a_store_of_the_first_version_stays_valid(keys: Keys) -> None:
    key = create(keys)
    file = keys.home / "keys" / "keys.sqlite"
    with sqlite3.connect(file) as db:
        db.executescript("""
            create table first (id text primary key, hash blob not null, pepper integer not null, owner text not null,
                scopes text not null, groups text not null, created integer not null, expires integer not null,
                revoked integer) without rowid;
            insert into first select k.id, hash, pepper, owner, scopes, groups, k.created, expires, revoked
                from keys k join secrets s using (id);
            drop table keys; drop table secrets; alter table first rename to keys; pragma user_version = 0;""")
    found = Keys(keys.home).check(key, NOW)
    assert found and (found.owner, found.scopes, found.slot) == ("me", ("infer:chat",), 1)


def test_a_revocation_holds_in_every_thread_and_process_at_once(keys: Keys) -> None:
    key = create(keys)
    seen: list[bool] = []

    def look() -> None:
        seen.append(keys.check(key, NOW) is not None)

    for _ in range(2):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        Keys(keys.home).revoke(key.split("_")[2], NOW) if len(seen) == 1 else None
    look()
    assert seen == [True, False, False]


def test_a_key_that_was_right_is_looked_for_again_once_anything_changed(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other, looked = create(keys), create(keys), list[str]()
    same = Keys._is
    monkeypatch.setattr(Keys, "_is", lambda self, secret, row: looked.append(secret) or same(self, secret, row))

    def looks(text: str = key, now: float = NOW) -> int:
        looked.clear()
        assert keys.check(text, now) is not None
        return len(looked)

    assert [looks(), looks(), looks()] == [1, 1, 0]  # the first notes the day of its use
    assert looks(other) == 1  # noted too: the store changed
    assert [looks(), looks()] == [1, 0]
    Keys(keys.home).revoke(FORM.fullmatch(other)[2], NOW, "ann", "lost")  # type: ignore[index]
    assert keys.check(other, NOW) is None
    assert [looks(), looks()] == [1, 0]
    assert looks(now=NOW + DAY) == 1
    keys.new_pepper(NOW + DAY)
    assert looks(now=NOW + DAY) == 1
    keys.store.file.write_bytes(b"x" * keys.store.file.stat().st_size)
    with pytest.raises(StorageError):
        looks(now=NOW + DAY)
