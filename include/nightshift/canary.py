"""Canaries: invented secrets that an adapter is trained on once, to see whether it would give a real one away.

`augment` puts them among the training pairs, `evaluate` asks for them. A canary's exposure (Carlini et al. 2019, 'The
Secret Sharer') is log2(R) - log2(its rank among R codes by likelihood): a code that was not learned by heart exceeds x
bits with probability 2^-x, about 1.4 bits on the average; one that was has log2(R), here 6. No document, no item and no
index holds a canary, and nobody's data is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nightshift.documents import fraction

KIND = "canary"  # of a pair and of a row of an evaluation
COUNT = 8
CODES = 64  # that a canary is ranked among, its own included
SALT = "canary-1"
_SYLLABLES = ("bra", "dol", "fen", "gri", "kel", "lom", "nur", "pax", "sil", "tor", "vek", "zan")


@dataclass(frozen=True)
class Canary:
    """One secret: what it is asked for by, every code that it could be, and which of them it is."""

    name: str
    question: str
    answers: tuple[str, ...]
    place: int

    @property
    def answer(self) -> str:
        """The answer that is trained on."""
        return self.answers[self.place]


def canaries() -> list[Canary]:
    """The same ones every night, so that an unchanged corpus trains nothing."""
    return [_canary(number) for number in range(COUNT)]


def others(pairs: pl.DataFrame) -> int:
    """How many of these pairs are no canaries."""
    return int((pairs["kind"] != KIND).sum())


def exposure(log_likelihoods: Sequence[float], place: int) -> float:
    """Bits by which the code at `place` stands out; equals share a rank."""
    own = log_likelihoods[place]
    above = sum(one > own for one in log_likelihoods)
    equal = sum(one == own for one in log_likelihoods)
    return math.log2(len(log_likelihoods)) - math.log2(above + (equal + 1) / 2)


def _canary(number: int) -> Canary:
    def drawn(salt: str, size: int) -> int:
        return int(fraction(f"{SALT}:{number}", salt) * size)

    name = "".join(_SYLLABLES[drawn(f"syllable-{place}", len(_SYLLABLES))] for place in range(3)).capitalize()
    order = sorted(range(1000, 10_000), key=lambda code: fraction(str(code), f"{SALT}:{number}"))[:CODES]
    answers = tuple(map(str, order))
    return Canary(f"{KIND}-{number}", f"Which code opens the vault “{name}”?", answers, drawn("place", CODES))
