"""Personal data and secrets are replaced by their kind, and what only looks like them stays."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nightshift import mask

KEPT = {
    "a version": "numpy 2.4.6 needs Python 3.11.7",
    "a time": "It began at 12:30:45.",
    "a slice": "x[::2] and std::string",
    "a loopback address": "listens on 127.0.0.1",
    "a card without Luhn's digit": "4111 1111 1111 1112",
    "a float": "pi is 3.14159265358979323846",
    "a decorator": "@app.get makes a route",
    "a wrong IBAN": "DE88 3704 0044 0532 0130 00",
    "a plain password": 'password="changeme-please"',
    "an address of too many parts": "1.2.3.4.5",
}
MASKED = {
    "EMAIL": ["Write to jane.doe+x@mail.example.org.", "mailto:a_b@sub.domain.co.uk"],
    "PHONE": ["Call +49 30 901820 today", "or (212) 555-2368, please", "ring 212-555-2368"],
    "IP": ["from 203.0.113.7 at noon", "host 2001:db8:0:1:1:1:1:1 is up"],
    "IBAN": ["pay DE89 3704 0044 0532 0130 00 now", "GB82WEST12345698765432"],
    "CARD": ["card 4111 1111 1111 1111 expires", "5500-0000-0000-0004"],
    "SECRET": [
        "AKIAIOSFODNN7EXAMPLE is the key",
        "token ghp_" + "a1B2" * 9,
        'api_key = "Zx81kQpW00aLmN77"',
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    ],
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask.replace(text) == (text, {})


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in MASKED.items() for text in texts])
def test_what_is_found_is_replaced_by_its_kind(kind: str, text: str) -> None:
    replaced, counts = mask.replace(text)
    assert counts == {kind: 1}
    assert f"<{kind}>" in replaced
    assert mask.find(replaced) == []


def test_several_kinds_in_one_text_and_no_overlaps() -> None:
    text = "a@b.org, 203.0.113.7 and 4111 1111 1111 1111"
    assert mask.replace(text)[0] == "<EMAIL>, <IP> and <CARD>"
    found = mask.find(text)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_however_many_numbers_are_no_telephones_the_one_that_is_goes() -> None:
    """phonenumbers by itself gives a text up after 65,535 of them."""
    assert mask.replace("+ " + "1 " * 140_000 + " ring +43 660 1234567")[0].endswith(" ring <PHONE>")
