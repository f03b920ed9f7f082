"""Word search over texts: BM25 as bm25s has it, kept as plain arrays without pickle.

Words are runs of two or more letters, digits and underscores, and single digits ("pump 7"), lower-case, English stop
words left out; parts of a dotted name are words of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WORD = r"(?u)\b(?:\w\w+|\d)\b"
# words that make a question and are of none of its matter; bm25s's stop words hold the others of them
ASKING = frozenset({
    "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "does", "do", "did", "can", "could",
    "should", "would", "may", "might", "must", "shall", "has", "have", "had", "am", "are", "was", "were", "been",
    "being", "me", "my", "we", "our", "us", "you", "your", "please", "tell", "explain", "describe", "say", "give",
    "show",
})  # fmt: skip


class Lexical:
    """An index of texts by their place in the list that it was built from."""

    def __init__(self, index: Any, size: int) -> None:
        self.index, self.size = index, size

    @classmethod
    def build(cls, texts: Sequence[str]) -> Lexical:
        """Index the texts. Raises ValueError for none."""
        import bm25s

        if not texts:
            raise ValueError("nothing to index")
        split = _split(list(texts))
        # a vocabulary of our own: the one that bm25s would make stands in the order of a set
        vocabulary = {word: place for place, word in enumerate(sorted({word for words in split for word in words}))}
        ids = [[vocabulary[word] for word in words] for words in split]
        index = bm25s.BM25()
        index.index((ids, vocabulary), show_progress=False)
        return cls(index, len(texts))

    @classmethod
    def load(cls, folder: Path) -> Lexical:
        """Read what `save` wrote."""
        import bm25s

        index = bm25s.BM25.load(str(folder), allow_pickle=False, show_progress=False)
        return cls(index, int(index.scores["num_docs"]))

    def save(self, folder: Path) -> None:
        """Write it as arrays and JSON."""
        self.index.save(str(folder), allow_pickle=False, show_progress=False)

    def rank(
        self, questions: Sequence[str], k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> list[list[tuple[int, float]]]:
        """For every question the (place, score) of the best `k` texts with a score above 0, best first.

        Equal scores stand in the order of their places. `allowed` masks texts that may not be found.
        """
        found = []
        for tokens in _split(list(questions)):
            scores = self.index.get_scores(tokens) if tokens else np.zeros(self.size, dtype=np.float32)
            if allowed is not None:
                scores = np.where(allowed, scores, 0)
            found.append([(int(place), float(scores[place])) for place in _best(scores, k) if scores[place] > 0])
        return found

    def coverage(self, question: str, texts: Sequence[str]) -> float:
        """Share of the question's words that the text with the most of them holds, each by its rarity, 0 to 1.

        The 'covered query term ratio' of learning to rank (Qin & Liu 2013), weighted by inverse document frequency. A
        word that no text of the index holds is covered where this one has a word that a slip of the keys makes of it,
        as four of five misspellings are (Damerau 1964). Words that only make it a question do not
        count; 1 where none is left.
        """
        asked, *held = _split([question, *texts])
        weight = {word: self._rarity(word) for word in set(asked) - ASKING}
        total = sum(weight.values())
        if not total:
            return 1.0
        best = max((sum(weight[word] for word in self._covered(weight, set(text))) for text in held), default=0.0)
        return best / total

    def _covered(self, asked: Iterable[str], text: set[str]) -> list[str]:
        known = self.index.vocab_dict
        return [one for one in asked if one in text or (one not in known and any(slip(one, other) for other in text))]

    def _rarity(self, word: str) -> float:
        """log((n + 1) / (holders + 1)), Sparck Jones 1972 smoothed; the largest for a word that no text holds."""
        place = self.index.vocab_dict.get(word)
        pointers = self.index.scores["indptr"]
        holders = 0 if place is None else int(pointers[place + 1] - pointers[place])
        return math.log((self.size + 1) / (holders + 1))


def slip(one: str, other: str) -> bool:
    """Whether two words of four letters or more are one inserted, missing, wrong or swapped letter apart, or equal."""
    if min(len(one), len(other)) < 4 or abs(len(one) - len(other)) > 1:
        return False
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    rest, left = one[same:], other[same:]
    swapped = rest[:2] == left[:2][::-1] and rest[2:] == left[2:]
    return swapped or rest[1:] == left[1:] or rest[1:] == left or rest == left[1:]


def _best(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Places of the `k` largest, largest first, ties by place."""
    if k < len(scores):
        least = np.partition(scores, -k)[-k]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((places, -scores[places]))][:k]


def _split(texts: list[str]) -> list[list[str]]:
    import bm25s

    split: list[list[str]] = bm25s.tokenize(
        texts, token_pattern=WORD, stopwords="en", return_ids=False, show_progress=False
    )
    return split
