"""What an answer is worth: the same functions at night and by day.

Exact match and token F1 compare words without case, punctuation and articles, as SQuAD does (Rajpurkar et al. 2016).
A choice is the one with the largest log-likelihood per character, so that a long text is not wrong for being long
('acc_norm' of the LM Evaluation Harness). How well an answer is grounded in the sections that it was given is
K-Precision, the lexical measure that agreed best with people about instruction-following models (Adlakha et al. 2024,
TACL 12): the share of its words that stand in them.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’`")


def words(text: str) -> list[str]:
    """The words that count."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, wanted: str) -> float:
    """1 when both have the same words in the same order, else 0."""
    return float(words(answer) == words(wanted))


def token_f1(answer: str, wanted: str) -> float:
    """Harmonic mean of the precision and recall of words, 0 to 1."""
    said, right = Counter(words(answer)), Counter(words(wanted))
    shared = sum((said & right).values())
    if not said or not right or not shared:
        return float(not said and not right)
    precision, recall = shared / said.total(), shared / right.total()
    return 2 * precision * recall / (precision + recall)


def grounded(answer: str, sections: Sequence[str]) -> float:
    """Share of an answer's words that stand in these sections, each as often as there, 0 to 1; 1 for no words."""
    said, given = Counter(words(answer)), Counter(word for text in sections for word in words(text))
    return (said & given).total() / said.total() if said else 1.0


def chosen(log_likelihoods: Sequence[float], choices: Sequence[str]) -> int:
    """The choice with the largest log-likelihood per character; the first of equals."""
    each = [value / max(1, len(text)) for value, text in zip(log_likelihoods, choices, strict=True)]
    return each.index(max(each))


def bits_per_byte(log_likelihood: float, text: str) -> float:
    """Bits that a byte of the text costs the model; lower is better."""
    return -log_likelihood / math.log(2) / max(1, len(text.encode()))


def altered(question: str, reworded: str, seed: str) -> tuple[str, str]:
    """One of the ways in which people ask the same thing, drawn by the seed: (typos | case | wording, the question)."""
    from nightshift.documents import fraction

    ways = {
        "typos": mistyped(question, seed),
        "case": question.upper() if fraction(seed, "upper") < 0.5 else question.lower(),
        "wording": reworded,
    }
    way = list(ways)[int(fraction(seed, "altered-1") * len(ways))]
    return way, ways[way]


def mistyped(text: str, seed: str) -> str:
    """The text with one in six of its longer words mistyped: two letters inside it change places."""
    from nightshift.documents import fraction

    def swap(found: re.Match[str]) -> str:
        word = found[0]
        drawn = fraction(f"{found.start()}", f"{seed}\x1f{word}")
        if drawn >= 1 / 6:
            return word
        place = 1 + int(drawn * 6 * (len(word) - 3))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return re.sub(r"[A-Za-z]{4,}", swap, text)
