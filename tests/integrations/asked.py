"""What is asked of the index, and through every framework: one question finds the same everywhere."""

from __future__ import annotations

from nightshift.retrieve import Filter

# the question, how many sections (None: as many as the release answers from), of which part, for which groups
ASKED: list[tuple[str, int | None, Filter, tuple[str, ...]]] = [
    ("When is the pump oiled?", None, Filter(), ("public",)),
    ("What colour has the valve?", 4, Filter(), ("public",)),
    ("How far down does it go?", 3, Filter(sources=["survey"]), ("public",)),
    ("What is painted?", 3, Filter(path="plant/"), ("public",)),
    ("What about the salaries?", 2, Filter(licences=["CC0-1.0"]), ("public", "board")),
    ("What about the salaries?", 2, Filter(), ("public",)),
]
