"""No key, no answer; and a request that is wrong is told what."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from nightshift.errors import AccessDenied, StorageError
from nightshift.mask import find
from nightshift.serve.keys import FORM, Keys
from nightshift.serve.request import Refused, parse

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


GOOD: dict[str, Any] = {"model": "nightshift", "messages": [{"role": "user", "content": "Hello"}]}
WRONG: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"{", 400, "invalid_json"),
    "not UTF-8": (b'{"model": "\xff"}', 400, "invalid_json"),
    "a list": (b"[]", 400, "invalid_json"),
    "a key twice": (b'{"model": "nightshift", "model": "x"}', 400, "duplicate_key"),
    "not a number": (b'{"temperature": NaN}', 400, "non_finite_number"),
    "a lone surrogate": (b'{"model": "\\ud800"}', 400, "invalid_json"),
    "deep": (b"[" * 100_000, 400, "invalid_json"),
    "too large": (b" " * (1 << 20) + b"{}", 413, "request_too_large"),
    "another model": (json.dumps(GOOD | {"model": "gpt"}).encode(), 404, "model_not_found"),
    "an unknown field": (json.dumps(GOOD | {"temprature": 0}).encode(), 400, "unknown_parameter"),
    "tools": (json.dumps(GOOD | {"tools": []}).encode(), 400, "unsupported_parameter"),
    "two answers": (json.dumps(GOOD | {"n": 2}).encode(), 400, "unsupported_parameter"),
    "heat": (json.dumps(GOOD | {"temperature": 0.7}).encode(), 400, "unsupported_parameter"),
    "no messages": (json.dumps(GOOD | {"messages": []}).encode(), 400, "invalid_value"),
    "a strange role": (
        json.dumps(GOOD | {"messages": [{"role": "root", "content": ""}]}).encode(),
        400,
        "invalid_value",
    ),
    "an image": (
        json.dumps(GOOD | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}).encode(),
        400,
        "invalid_value",
    ),
    "the assistant last": (
        json.dumps(GOOD | {"messages": [{"role": "assistant", "content": "Hi"}]}).encode(),
        400,
        "invalid_value",
    ),
    "no tokens": (json.dumps(GOOD | {"max_tokens": 0}).encode(), 400, "invalid_value"),
    "stream as text": (json.dumps(GOOD | {"stream": "yes"}).encode(), 400, "invalid_value"),
}


@pytest.mark.parametrize(("body", "status", "code"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_told_what(body: bytes, status: int, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(body, "nightshift")
    assert (refused.value.status, refused.value.body["error"]["code"]) == (status, code)


def test_a_right_request_is_read() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    asked = parse(
        json.dumps(GOOD | {"messages": messages, "max_completion_tokens": 5, "stream": True}).encode(), "nightshift"
    )
    assert asked.question == "one\ntwo"
    assert asked.messages[0] == {"role": "system", "content": "Be brief."}
    assert (asked.stream, asked.max_tokens) == (True, 5)


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
