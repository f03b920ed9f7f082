"""Facts that stand nowhere else: whoever says one has read it where it was planted.

A certificate plants them in texts of growing length (window.py), an evaluation in the sections that a question is
answered from (evaluate/ask.py). No document, item or training pair holds one.

The wording matters: over numpy's documentation SmolLM2-135M-Instruct found a lucky number at 11, 11, 10 and 11 depths
of 256 to 2,048 tokens, and 'the code of the mill', which it took for a program, at 8, 5, 8 and 8.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

PLACES = ("mill", "harbour", "library", "station", "garden", "tower", "bridge", "market", "chapel", "school", "quarry")


@dataclass(frozen=True)
class Fact:
    """A number of six digits that belongs to a place."""

    place: str
    code: str

    @property
    def told(self) -> str:
        """The sentence that is planted."""
        return f"The lucky number of the {self.place} is {self.code}."

    @property
    def asked(self) -> str:
        """The question about it."""
        return f"What is the lucky number of the {self.place}?"

    def said(self, answer: str) -> bool:
        """Whether an answer holds it, digits written apart or not."""
        return self.code in answer.replace(" ", "")


def fact(*by: object) -> Fact:
    """The fact that these values stand for: another for others, and the same each time."""
    drawn = int(hashlib.sha256(" ".join(map(str, by)).encode()).hexdigest(), 16)
    return Fact(PLACES[drawn % len(PLACES)], f"{drawn // len(PLACES) % 900_000 + 100_000}")
