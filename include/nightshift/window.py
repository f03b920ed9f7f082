"""The window that a release really reads: how long a text may be in which it still finds a planted fact.

The context of a configuration says what a model takes, not what it uses. So a fact is planted at eleven depths of texts
of growing length (Kamradt 2023, needle in a haystack), and asked for; the certified window is the largest at which, as
at every smaller one, nine in ten are found: RULER's effective length (Hsieh et al. 2024, §4) with a bound of our own.
The texts are sections of the release's own index, in the order of their ids; facts and places follow from the release's
digest alone, so that a certificate repeated is the same. It is bounded in tokens: a window that the budget does not
reach is not certified. The certificate lies beside the signature, and never in the release.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nightshift import answer, commit, planted
from nightshift.answer import Message, System
from nightshift.errors import DataRefused
from nightshift.planted import Fact

Ask = Callable[[Sequence[Message], int], str]  # messages and tokens of the answer → the answer
FILE = "window.json"
SMALLEST = 256  # tokens
DEPTHS = tuple(range(0, 101, 10))  # percent of the text that stands before the fact
ENOUGH = 0.9  # share of the depths at which it must be found
ANSWER = 24  # tokens of an answer: the fact as a sentence, a token a digit
BETWEEN = 2  # tokens of what stands between two texts
TURN = 8  # tokens that a chat template puts around a turn, at most, of those that were looked at


@dataclass(frozen=True)
class Tried:
    """One length of text.

    Args:
        window: tokens of messages and answer together.
        found: share of the depths at which the fact was found.
        missed: depths at which it was not, in percent.
    """

    window: int
    found: float
    missed: tuple[int, ...]


@dataclass(frozen=True)
class Certificate:
    """What was tried, and what holds.

    Args:
        window: the largest that holds with all smaller ones, in tokens; None when not even the smallest does.
        context: what the configuration says, in tokens.
        tokens: that were read to find out.
        tried: every length, in order.
        reached: whether the budget reached all lengths.
    """

    window: int | None
    context: int
    tokens: int
    tried: tuple[Tried, ...]
    reached: bool


def certify(system: System, ask: Ask, budget: int) -> Certificate:
    """Try growing windows until one does not hold, or `budget` tokens are read. Raises DataRefused without text."""
    texts = _texts(system)
    if not any(texts):
        raise DataRefused("its index has no text to plant a fact in", str(system.folder), "release one with documents")
    context = int(system.settings["context"])
    tried: list[Tried] = []
    read, reached = 0, True
    for window in windows(context, _bare(system)):
        if read + window * len(DEPTHS) > budget:
            reached = False
            break
        missed = []
        for depth in DEPTHS:
            fact = planted.fact(system.digest, window, depth)
            messages = haystack(system, texts, fact, depth, window - ANSWER)
            read += tokens(system, messages) + ANSWER
            if not fact.said(ask(messages, ANSWER)):
                missed.append(depth)
        tried.append(Tried(window, 1 - len(missed) / len(DEPTHS), tuple(missed)))
        if tried[-1].found < ENOUGH:
            break
    held = [one.window for one in tried if one.found >= ENOUGH]
    return Certificate(held[-1] if held else None, context, read, tuple(tried), reached)


def windows(context: int, least: int = 0) -> Iterator[int]:
    """Doubling lengths up to the context, and the context itself; those from `least` on."""
    window = SMALLEST
    while window < context:
        if window >= least:
            yield window
        window *= 2
    yield context


def haystack(system: System, texts: Sequence[str], fact: Fact, depth: int, room: int) -> list[Message]:
    """Messages of `room` tokens, or a few less: texts with the fact after `depth` percent, then the question."""
    left = room - tokens(system, _messages(system, [fact.told], fact))
    chosen: list[str] = []
    for text in _around(texts):
        chosen.append(system.cut(text, left))
        left -= _size(system, chosen[-1]) + BETWEEN
        if left <= 0:
            break
    while (over := tokens(system, made := _placed(system, chosen, fact, depth)) - room) > 0 and chosen:
        last = chosen.pop()
        if shorter := system.cut(last, _size(system, last) - over):
            chosen.append(shorter)
    return made


def tokens(system: System, messages: Sequence[Message]) -> int:
    """Tokens of a conversation in the model's own template, counted from above."""
    return sum(_size(system, one["content"]) + TURN for one in messages) + TURN


def store(home: Path, digest: str, certificate: Certificate) -> Path:
    """Keep the certificate of a release."""
    path = _place(home, digest)
    commit.file(path, commit.dumps(asdict(certificate)))
    return path


def certified(home: Path, digest: str) -> bool:
    """Whether a release has a certificate, whatever it says."""
    return _place(home, digest).is_file()


def effective(home: Path, digest: str, context: int) -> int:
    """The window of a release as its certificate has it, in tokens; its context where it has none that holds."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(_place(home, digest).read_text(encoding="utf-8"))["window"]
        if isinstance(said, int) and not isinstance(said, bool) and 0 < said <= context:
            return said
    return context


def _place(home: Path, digest: str) -> Path:
    """Where the certificate of a release lies: beside its signature."""
    return home / "releases" / digest / FILE


def _bare(system: System) -> int:
    """Tokens of a conversation with the fact alone, and of its answer: a smaller window holds no text at all."""
    fact = planted.fact(system.digest, 0, 0)
    return tokens(system, _messages(system, [fact.told], fact)) + ANSWER


def _messages(system: System, texts: Sequence[str], fact: Fact) -> list[Message]:
    """The conversation as the release would make it of these sections."""
    shown = [("", text) for text in texts]
    return answer.messages(system.template, fact.asked, shown, system.examples)


def _placed(system: System, chosen: Sequence[str], fact: Fact, depth: int) -> list[Message]:
    at = round(len(chosen) * depth / 100)
    return _messages(system, [*chosen[:at], fact.told, *chosen[at:]], fact)


def _texts(system: System) -> list[str]:
    """Bodies of the index's public sections in the order of their ids, cut as the release cuts them."""
    table = system.index.sections
    seen = system.index.seen_by(("public",))
    limit = 4 * int(system.settings["section_tokens"])  # characters of about so many tokens
    return [body[:limit] for body, allowed in zip(table["body"], seen, strict=True) if allowed]


def _around(texts: Sequence[str]) -> Iterator[str]:
    """The texts, and again from the first: a small corpus fills a large window too."""
    while True:
        yield from texts


def _size(system: System, text: str) -> int:
    return len(system.tokens.encode(text, add_special_tokens=False))
