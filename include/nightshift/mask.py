"""Find personal data and secrets in a text, and put their kind in their place.

Patterns propose, checks decide: an IBAN must have its country's length and checksum (schwifty), a card number a known
prefix and Luhn's digit (ISO/IEC 7812-1), an address must be one (ipaddress), a phone number must be assignable
(Google's metadata by phonenumbers). Kinds: EMAIL, PHONE, IP, IBAN, CARD, SECRET. Names of people are not looked for.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Found:
    """Characters `start` to `end` (exclusive) of a text are of this kind."""

    start: int
    end: int
    kind: str


def find(text: str) -> list[Found]:
    """Everything that `replace` would take out, in order, without overlaps; the earlier, then the longer, wins."""
    proposed = sorted((one for look in _LOOKS for one in look(text)), key=lambda one: (one.start, -one.end))
    kept: list[Found] = []
    for one in proposed:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def replace(text: str) -> tuple[str, Counter[str]]:
    """The text with `<KIND>` where something was found, and how often each kind was."""
    found = find(text)
    if not found:
        return text, Counter()
    pieces, place = [], 0
    for one in found:
        pieces += [text[place : one.start], f"<{one.kind}>"]
        place = one.end
    return "".join([*pieces, text[place:]]), Counter(one.kind for one in found)


def _by(kind: str, pattern: str, holds: Callable[[str], bool], needs: str = "") -> Callable[[str], Iterator[Found]]:
    """A look for one kind; `needs` is a text without which the pattern cannot match: a cheap first question."""
    compiled = re.compile(pattern)

    def look(text: str) -> Iterator[Found]:
        if needs and needs not in text:
            return
        for hit in compiled.finditer(text):
            if holds(hit[0]):
                yield Found(hit.start(), hit.end(), kind)

    return look


def _always(_: str) -> bool:
    return True


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _is_iban(text: str) -> bool:
    from schwifty import IBAN
    from schwifty.exceptions import SchwiftyException

    try:
        IBAN(text)
    except SchwiftyException:
        return False
    return True


def _is_card(text: str) -> bool:
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits[::-1])]
    return 13 <= len(digits) <= 19 and digits[0] in (3, 4, 5, 6) and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _is_american(text: str) -> bool:
    import phonenumbers

    return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, "US")))


def _phones(text: str) -> Iterator[Found]:
    """Numbers with a country code; without one a number is only known to be a phone's by its American form."""
    if "+" not in text:
        return
    from phonenumbers import PhoneNumberMatcher

    for hit in PhoneNumberMatcher(text, None, max_tries=sys.maxsize):  # by itself it gives up after 65,535
        yield Found(hit.start, hit.end, "PHONE")


def _is_secret(text: str) -> bool:
    """An assigned value counts as a secret when it mixes letters and digits as generated ones do."""
    value = re.split(r"[\"']", text)[1]
    return sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]")) >= 2 and len(set(value)) >= 8


_TOKENS = "|".join(
    [
        r"AKIA[0-9A-Z]{16}",  # Amazon Web Services
        r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}",
        r"glpat-[A-Za-z0-9_-]{20,}",
        r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI and those who took its form
        r"xox[abprs]-[A-Za-z0-9-]{10,}",  # Slack
        r"AIza[0-9A-Za-z_-]{35}",  # Google
        r"hf_[A-Za-z]{30,}",
        r"ns_[a-z]+_[a-z2-7]{10}_[A-Za-z0-9_-]{43}_[A-Za-z0-9]{6}",  # this project's own
        r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # JSON web tokens
    ]
)
_ASSIGNED = (
    r"(?i)\b(?:password|passwd|secret|token|api_?key|access_?key)[\"']?\s*[=:]\s*(?:\"[^\"\s]{12,}\"|'[^'\s]{12,}')"
)
_KEY = "[A-Z ]*PRIVATE KEY-----"
_LOOKS: list[Callable[[str], Iterator[Found]]] = [
    _by("EMAIL", r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b", _always, "@"),
    _by("SECRET", rf"\b(?:{_TOKENS})", _always),
    _by("SECRET", rf"-----BEGIN {_KEY}[\s\S]*?(?:-----END {_KEY}|\Z)", _always, "-----BEGIN"),
    _by("SECRET", _ASSIGNED, _is_secret),
    _by("IP", r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)", _is_address, "."),
    _by("IP", r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{1,4}(?![\w:])", _is_address, ":"),
    _by("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _is_iban),
    _by("CARD", r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.]?\d)", _is_card),
    _by("PHONE", r"(?<![\w.(])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w.-])", _is_american),
    _phones,
]
