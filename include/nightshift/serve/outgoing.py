"""Clean an answer while it is being written: personal data, links that no source holds (links.py), and harm.

The engine's text arrives in pieces, and what must go may be split between two of them. So a piece is held back as long
as it could be the beginning of something: plain prose passes word by word, a number or an open bracket waits for its
end. Cleaned piece by piece or at once, the text is the same (tested on random cuts). Kinds of numbers with blanks in
them are no longer than HOLD characters: an IBAN 42, a card 37, a telephone number about 35.

Harm is a list of phrases by category, people's own (include/policies/harm.yaml), not a classifier: it stops what it
names. A text with one of them ends there, and nothing after it is let out; a rail that breaks lets nothing out either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from nightshift import mask
from nightshift.errors import ParamsError
from nightshift.serve.links import LINK, OPEN, foreign, linked

HOLD = 64  # characters
CONTEXT = 256  # characters before the ones to clean that a pattern may look back at
_LEAD = r"(?:[(\[（［+＋]\W{0,4})"  # what a telephone number may begin with
_NUMBER = re.compile(rf"{_LEAD}{{0,2}}\S*\d")
# what the end of a text may be the beginning of
_OPEN = re.compile(
    rf"(?:{OPEN}"
    rf"|{_LEAD}{{1,2}}"
    r"|-----BEGIN(?:(?!-----END[A-Z ]*PRIVATE KEY-----)[\s\S])*"
    r"|(?:password|passwd|secret|token|api_?key|access_?key)[\"']?\s*(?:[=:]\s*)?"
    r")\Z",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Harm:
    """Phrases that no answer may hold: words in lower case → category."""

    phrases: Mapping[tuple[str, ...], str]
    beginnings: frozenset[tuple[str, ...]] = field(init=False)
    firsts: frozenset[str] = field(init=False)  # words that a phrase begins with: of most texts, few or none
    longest: int = field(init=False)  # words of a phrase

    def __post_init__(self) -> None:
        found = {phrase[:length] for phrase in self.phrases for length in range(1, len(phrase))}
        object.__setattr__(self, "beginnings", frozenset(found))
        object.__setattr__(self, "firsts", frozenset(phrase[0] for phrase in self.phrases))
        object.__setattr__(self, "longest", max(map(len, self.phrases), default=0))

    @classmethod
    def read(cls, path: Path) -> Harm:
        """Read a policy: category → list of phrases. Raises ParamsError."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            said = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise ParamsError(f"it cannot be read ({error})", str(path), "restore it from Git") from None
        lists = said.values() if isinstance(said, dict) else [None]
        if not all(isinstance(one, list) and all(isinstance(phrase, str) for phrase in one) for one in lists):
            raise ParamsError("it is not a map of lists of phrases", str(path), "write it as `category: [phrase, …]`")
        phrases = {
            words: str(category) for category, listed in said.items() for one in listed if (words := _words(one))
        }
        return cls(phrases)

    def find(self, text: str) -> tuple[int, str] | None:
        """Where the first of the phrases begins, and its category."""
        if self.firsts.isdisjoint(map(str.lower, _WORD.findall(text))):
            return None
        found = [(hit.start(), hit[0].lower()) for hit in _WORD.finditer(text)]
        for place, (start, first) in enumerate(found):
            if first not in self.firsts:
                continue
            said = tuple(word for _, word in found[place : place + self.longest])
            for length in range(1, len(said) + 1):
                if category := self.phrases.get(said[:length]):
                    return start, category
        return None

    def open_at(self, text: str, end: int) -> int:
        """Where a phrase begins before `end` that goes across it, or may once more text comes; `end` where none may."""
        begin = max(0, end - 400)
        earlier = list(_WORD.finditer(text, begin, end))[1 - self.longest :]
        if self.firsts.isdisjoint(hit[0].lower() for hit in earlier):
            return end
        later = list(islice(_WORD.finditer(text, end), self.longest))
        words = [hit[0].lower() for hit in earlier + later]
        for place, hit in enumerate(earlier):
            said = words[place : place + self.longest]
            across = range(len(earlier) - place, len(said) + 1)  # words of a phrase from here that reaches the end
            if any(tuple(said[:length]) in self.phrases for length in across if length):
                return hit.start()
            if len(said) == len(words) - place and tuple(said[: len(earlier) - place]) in self.beginnings:
                return hit.start()
        return end


def _words(phrase: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(phrase))


NO_HARM = Harm({})


@dataclass
class Outgoing:
    """One answer on its way out. Feed it pieces, then end it.

    Args:
        personal: whether personal data and secrets are replaced by their kind.
        links: those that may stay; None for all.
        images: of these, those that may stay images; the others become links.
        harm: phrases at which it ends.
        at_once: nobody reads it before its end: it is cleaned then, once.
        found: how often each kind was replaced.
        harmful: the category at which it ended; None while it goes on.
    """

    personal: bool = True
    links: Collection[str] | None = ()
    harm: Harm = NO_HARM
    at_once: bool = False
    images: Collection[str] = ()
    found: Counter[str] = field(default_factory=Counter)
    harmful: str | None = None
    _text: str = ""
    _done: int = 0  # characters of `_text` that were let out
    _again: int = 0  # how long it is when it is looked at again: what is held long is looked at less often

    def feed(self, piece: str) -> str:
        """What can be let out now."""
        self._text += piece
        if self.at_once or len(self._text) < self._again:
            return ""
        said = self._let_out(self._safe())
        self._again = len(self._text) + (len(self._text) - self._done) // 8
        return said

    def end(self) -> str:
        """What is left, once no more comes."""
        return self._let_out(len(self._text))

    def _let_out(self, end: int) -> str:
        if self.harmful is not None or end <= self._done:
            return ""
        begin = max(0, self._done - CONTEXT)
        if hit := self.harm.find(self._text[begin:end]):
            self.harmful, end = hit[1], self._before(begin + hit[0])
        if end <= self._done:
            return ""
        kept, self._done = self._clean(begin, self._done, end), end
        return kept

    def _before(self, end: int) -> int:
        """The last place at or before `end` that nothing known goes across: no part of a link or an address is said."""
        known = self._known()
        while across := [first for first, last in known if first < end < last]:
            end = min(across)
        return end

    def _clean(self, begin: int, start: int, end: int) -> str:
        """Characters `start` to `end`, read from `begin` on."""
        text = self._text[begin:end]
        pieces, place = [], start - begin
        for first, last, instead, kind in self._spans(text):
            if last > place:  # of what begins in what was let out, the rest goes
                pieces += [text[place:first], instead]
                place = last
                self.found[kind] += 1
        return "".join([*pieces, text[place:]])

    def _spans(self, text: str) -> list[tuple[int, int, str, str]]:
        """What is replaced: from, to, by what, and what it is called; in order, without overlaps.

        A link goes with what is personal in it; where what is personal goes beyond it, that goes with the link.
        """
        spans = list(self._linked(text)) if self.links is not None else []
        for one in mask.find(text) if self.personal else ():
            touched = [span for span in spans if one.start < span[1] and span[0] < one.end]
            if any(first <= one.start and one.end <= last for first, last, _, _ in touched):
                continue
            ends = [one.start, one.end, *(end for span in touched for end in span[:2])]
            spans = [span for span in spans if span not in touched]
            spans.append((min(ends), max(ends), f"<{one.kind}>", one.kind))
        return sorted(spans)

    def _linked(self, text: str) -> Iterable[tuple[int, int, str, str]]:
        for first, last, instead in foreign(text, self.links or (), self.images):
            yield first, last, LINK if self.personal and mask.find(instead) else instead, "LINK"

    def _safe(self) -> int:
        """Up to where nothing that is still to come can change what is replaced."""
        at = self._boundary(len(self._text))
        earlier = min(self._digits(at), self._opened(at), self.harm.open_at(self._text, at))
        known = self._known() if earlier < at else []
        while earlier < at:  # nor may what is known already be let out in part
            at = self._boundary(earlier)
            across = (first for first, last in known if first < at < last)
            earlier = max(self._done, min([at, self.harm.open_at(self._text, at), *across]))
        return at

    def _known(self) -> list[tuple[int, int]]:
        """What is replaced of the text as it is, and every link, replaced or not: from, to."""
        begin = max(0, self._done - CONTEXT)
        text = self._text[begin:]
        found = [*(span[:2] for span in self._spans(text)), *(linked(text) if self.links is not None else ())]
        return [(begin + first, begin + last) for first, last in found]

    def _boundary(self, end: int) -> int:
        """The last place at or before `end` that no word of ASCII letters goes across."""
        while end > self._done and not (self._text[end - 1].isspace() or ord(self._text[end - 1]) > 127):
            end -= 1
        return end

    def _digits(self, end: int) -> int:
        """Where the first number begins that is among the last characters before `end`."""
        start = max(self._done, end - HOLD)
        hit = _NUMBER.search(self._text, start, end)
        return hit.start() if hit else end

    def _opened(self, end: int) -> int:
        """Where the construct begins that is open at `end`, if one is."""
        hit = _OPEN.search(self._text, max(0, self._done - CONTEXT), end)
        return max(self._done, hit.start()) if hit else end
