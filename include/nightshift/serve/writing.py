"""One answer while it is written: the engine's pieces become what the client reads.

Each choice is ended at the first of the caller's stop sequences and cleaned (outgoing.py); both hold text back as long
as it could belong to something that must not leave. An answer that a rail ended says `content_filter`; one that broke
off says an error, never an invented `stop`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from nightshift.serve.outgoing import Outgoing
from nightshift.serve.pieces import Piece, gap


@dataclass
class Stops:
    """Text up to the first of some sequences."""

    sequences: list[str]
    found: bool = False
    _held: str = ""

    def feed(self, text: str) -> str:
        """What certainly stands before any of them."""
        if not self.sequences or self.found:
            return "" if self.found else text
        self._held += text
        places = [place for one in self.sequences if (place := self._held.find(one)) >= 0]
        if places:
            self.found, kept = True, self._held[: min(places)]
            self._held = ""
            return kept
        end = len(self._held) - self._begun()
        kept, self._held = self._held[:end], self._held[end:]
        return kept

    def end(self) -> str:
        """What is left, once no more comes."""
        left, self._held = self._held, ""
        return left

    def _begun(self) -> int:
        """How many of the last characters may be the beginning of a sequence."""
        longest = max(map(len, self.sequences)) - 1
        ends = (self._held[-length:] for length in range(min(longest, len(self._held)), 0, -1))
        return next((len(one) for one in ends if any(whole.startswith(one) for whole in self.sequences)), 0)


@dataclass
class Choice:
    """One of an answer's choices."""

    stops: Stops
    outgoing: Outgoing
    finish: str | None = None
    text: str = ""

    @property
    def early(self) -> bool:
        """Whether it ended before its engine said so."""
        return self.stops.found or self.outgoing.harmful is not None

    def feed(self, piece: Piece) -> str:
        """What the client may read of it now; `finish` is set with the last."""
        said = self.outgoing.feed(self.stops.feed(piece.text))
        if self.stops.found or piece.finish:
            said += self.outgoing.feed(self.stops.end()) + self.outgoing.end()
            self.finish = "stop" if self.stops.found else piece.finish
        if self.outgoing.harmful is not None:
            self.finish = "content_filter"
        self.text += said
        return said


@dataclass
class Writing:
    """An answer, which `pieces` goes through once.

    Args:
        said: the engine's pieces.
        stops: the caller's stop sequences.
        outgoing: makes what cleans a choice.
        clock: seconds that only grow.
        count: choices that were asked for.
        first: when its first token came; None before.
        last: when its last came.
    """

    said: AsyncGenerator[Piece]
    stops: list[str]
    outgoing: Callable[[], Outgoing]
    clock: Callable[[], float]
    count: int = 1
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: dict[str, int] | None = None
    first: float | None = None
    last: float = 0.0
    tokens: int = 0  # chunks with text: the tokens of an engine that does not count them

    async def pieces(self) -> AsyncGenerator[Piece]:
        """What the client reads. Raises Refused where the engine breaks off."""
        async with aclosing(self.said):
            async for piece in self.said:
                self.last = self.clock()
                self.first = self.first or self.last
                self.usage = piece.usage or self.usage
                self.tokens += piece.tokens
                if read := self._read(piece):
                    yield read
                if sum(one.early for one in self.choices.values()) == self.count:
                    return  # the engine would go on, and nobody reads it

    def _read(self, piece: Piece) -> Piece | None:
        if piece.usage is not None and not piece.text and piece.finish is None:
            return None
        choice = self.choices.setdefault(piece.index, Choice(Stops(self.stops), self.outgoing()))
        if choice.finish:
            return None
        text = choice.feed(piece)
        return (
            Piece(piece.index, text, choice.finish, None, piece.more) if text or choice.finish or piece.more else None
        )

    @property
    def token_s(self) -> float | None:
        """Seconds between two tokens, their mean; None for an answer of fewer."""
        return gap(self.first, self.last, self.tokens)

    @property
    def masked(self) -> Counter[str]:
        """What was replaced in all choices, by kind."""
        return sum((one.outgoing.found for one in self.choices.values()), Counter())

    @property
    def harmful(self) -> list[str]:
        """The categories at which choices ended."""
        return [one.outgoing.harmful for one in self.choices.values() if one.outgoing.harmful]

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return self.choices[0].text if 0 in self.choices else ""
