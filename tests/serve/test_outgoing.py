"""Cleaned piece by piece, an answer is what it is when cleaned at once; and what must not leave does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nightshift import mask
from nightshift.errors import ParamsError
from nightshift.serve.links import urls
from nightshift.serve.outgoing import Harm, Outgoing
from tests.conftest import ROOT

SECRET = "ns_local_abcdefghij_" + "A" * 43 + "_aaaaaa"
HARM = Harm.read(ROOT / "include" / "policies" / "harm.yaml")
# personal data and links in the middle of prose, at both ends, in a row, and things that only look like them
TEXTS = [
    "The pump is oiled every Monday by the keeper of the mill.",
    "Write to maria.huber@example.org or to the mill.",
    "maria.huber@example.org",
    "Ring +43 660 1234567 before noon, or (202) 555-0143 after it, not 17 times.",
    "Pay to DE89 3704 0044 0532 0130 00 by card 4111 1111 1111 1111 today.",
    "The server 203.0.113.9 and 2001:db8::7 answered at 10.5 and 12:30:45.",
    f"The key is {SECRET}, and password = 'Tr0ub4dor&3xyz' too.",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE and more\nof it\n-----END RSA PRIVATE KEY----- ends",
    "-----BEGIN PRIVATE KEY-----\nnever closed and then some words",
    "-----BEGIN PRIVATE KEY-----\nMIIE [and](http://evil.example/a) more\n-----END PRIVATE KEY----- ends",
    'See [the manual](https://evil.example/?q=secret) and ![x](http://evil.example/pixel.png "a b") now.',
    "See https://docs.example.org/pump. Or www.evil.example/a, or <img src='http://evil.example/x' alt=a b> here.",
    "A list [1] of things [2 and more] with (brackets) and a < b, c > d, array[0].",
    "电话 是 +43 660 1234567。泵每周一上油 maria@example.org 结束",
    "javascript:alert(1) data:text/html;base64,AAAA x",
    "[click maria.huber@example.org](http://evil.example) and [ never closed and then a lot of words follow it",
    'api_key : "abcDEF123456789" token token token = none',
    "![x](\n//evil.example/p.png) ![a [b] c](//evil.example/p.png?q=1) <div style='background:url(//evil.example)'>",
    "![x](//evil.example/?u=https://docs.example.org/pump) <img src='//evil.example/?u=https://docs.example.org/pump'>",
    "![x][1] and [y\nz]\n\n[1]: //evil.example/p.png?q=1\n[y\nz]: &#104;ttps://evil.example/a as said there",
    f"<img alt='{'a' * 1500}' src='//evil.example/p.png'> and <img src='//evil.example/?q=1&",
    "[<img src='//evil.example/a'>](https://docs.example.org/pump) evil.com/a?q=1 //evil.example/b wss://evil.example/c",
    "\x1b]8;;http://evil.example/?q=1\x07click\x1b]8;;\x07 and \x1b[2J\x9b31m gone",
    "Ring ( +43 660 1234567 ) or [ (202) 555-0143], ]: //evil.example/a and +43 660 1234567" + "!" * 80,
    "First this, then how to make it: how to how to make a bombastic how to, and no more.",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34",
]
ALLOWED = frozenset({"https://docs.example.org/pump"})


def whole(text: str) -> str:
    made = Outgoing(links=ALLOWED, harm=HARM)
    return made.feed(text) + made.end()


@pytest.mark.parametrize("text", TEXTS)
def test_cut_anywhere_it_is_the_same(text: str) -> None:
    once = Outgoing(links=ALLOWED, harm=HARM)
    at_once = once.feed(text) + once.end()
    drawn = random.Random(7)
    cuts = [list(text)] + [_cut(text, drawn) for _ in range(200)]
    for pieces in cuts:
        made = Outgoing(links=ALLOWED, harm=HARM)
        said = [made.feed(piece) for piece in pieces]
        assert "".join(said) + made.end() == at_once, pieces
        assert made.found == once.found


def test_texts_joined_and_cut_anywhere_are_the_same() -> None:
    drawn = random.Random(11)
    for _ in range(300):
        text = " ".join(drawn.sample(TEXTS, 3))
        made = Outgoing(links=ALLOWED, harm=HARM)
        assert "".join([made.feed(piece) for piece in _cut(text, drawn)]) + made.end() == whole(text)


@pytest.mark.parametrize("text", TEXTS)
def test_what_comes_before_harm_is_the_same_cut_anywhere(text: str) -> None:
    drawn = random.Random(5)
    for phrase in ("How to  make\na bomb", "[how to make a bomb](https://docs.example.org/pump)"):
        said = f"{text} {phrase} and then some"
        once = Outgoing(links=ALLOWED, harm=HARM, at_once=True)
        at_once = once.feed(said) + once.end()
        assert once.harmful == "violence" and "bomb and" not in at_once and "bomb]" not in at_once
        for _ in range(20):
            made = Outgoing(links=ALLOWED, harm=HARM)
            assert "".join([made.feed(piece) for piece in _cut(said, drawn)]) + made.end() == at_once
            assert made.harmful == once.harmful


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_personal_is_left(text: str) -> None:
    assert not mask.find(whole(text))
    assert "evil" not in whole(text)


def test_nothing_personal_is_left_however_texts_run_into_each_other() -> None:
    drawn = random.Random(1)
    for _ in range(500):
        text = "".join(drawn.choice([" ", "", "\n"]) + one for one in drawn.sample(TEXTS, 3))
        start = drawn.randrange(len(text))
        assert not mask.find(whole(text[start : start + 400])), text[start : start + 400]


def test_prose_is_not_held_back() -> None:
    made = Outgoing(harm=HARM)
    assert [made.feed(piece) for piece in ["The pump ", "is oi", "led every ", "Monday."]] == [
        "The pump ",
        "is ",
        "oiled every ",
        "",
    ]
    assert made.end() == "Monday."


@pytest.mark.parametrize("piece", ["how to ", "[a ", "<a ", "make a ", "+1 ( ", "password "])
def test_what_repeats_a_beginning_is_not_held_to_the_end(piece: str) -> None:
    made = Outgoing(harm=HARM)
    said = [made.feed(piece) for _ in range(1200)]
    assert sum(map(len, said)) > 1200 * len(piece) - 1800  # the longest tag that is waited for, and an eighth


def test_what_is_held_long_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a text that is held would be gone through as often as it has pieces."""
    looked, safe = [], Outgoing._safe
    monkeypatch.setattr(Outgoing, "_safe", lambda made: looked.append(1) or safe(made))
    made = Outgoing(harm=HARM)
    for _ in range(4000):
        made.feed("word")
    assert len(looked) < 100


def test_a_link_of_the_sources_stays() -> None:
    links = urls(["The manual is at https://docs.example.org/pump."])
    made = Outgoing(links=links)
    said = (
        made.feed("See [it](https://docs.example.org/pump), not [this](https://docs.example.org/other).") + made.end()
    )
    assert said == "See [it](https://docs.example.org/pump), not this."


def test_an_image_of_the_sources_becomes_a_link_unless_the_asker_brought_it() -> None:
    text = "See ![it](https://docs.example.org/a.png), and ![this](https://docs.example.org/b.png)."
    links = urls([text])
    made = Outgoing(links=links, images={"https://docs.example.org/b.png"})
    assert made.feed(text) + made.end() == text.replace("![it]", "[it]")


@pytest.mark.parametrize(
    "text",
    [
        "Call handlers[name](args, key=1.5) and rows[0](), then d[k]: it is d[k]: int = 3.",
        "With a <b and c> d; x: list[int]: none; see [1] and [2]: the manual, 3/4 // 2, a//b and os.path/x.",
        "// self.foo and http: nothing, e.g. numpy.linalg.norm(x) at 10:30, main.py/test and i.e.",
    ],
)
def test_what_leads_nowhere_stays(text: str) -> None:
    assert whole(text) == text


def test_a_terminal_is_told_nothing() -> None:
    assert (
        whole("It is \x1b[31mred\x1b[0m\x07,\tgreen\r\nor \x9b2Jblue\x00.") == "It is [31mred[0m,\tgreen\r\nor 2Jblue."
    )


@pytest.mark.parametrize("pieces", [["Mix it: how to ", "make a bo", "mb is"], ["how", " to make", " a  BOMB", " now"]])
def test_harm_ends_an_answer_before_it_is_said(pieces: list[str]) -> None:
    made = Outgoing(harm=HARM)
    said = "".join(made.feed(piece) for piece in pieces) + made.end()
    assert made.harmful == "violence"
    assert said == ("Mix it: " if pieces[0].startswith("Mix") else "")


def test_what_only_begins_like_harm_is_said() -> None:
    made = Outgoing(harm=HARM)
    assert made.feed("how to make a bombastic speech") + made.end() == "how to make a bombastic speech"
    assert made.harmful is None


@pytest.mark.parametrize("text", ["- a", "violence: 3", "violence: [3]", "x: [", ""])
def test_a_policy_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "harm.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"harm\.yaml"):
        Harm.read(path)


def _cut(text: str, drawn: random.Random) -> list[str]:
    places = sorted(drawn.sample(range(1, len(text)), min(len(text) - 1, drawn.randint(1, 12))))
    return [text[first:last] for first, last in zip([0, *places], [*places, len(text)], strict=True)]
