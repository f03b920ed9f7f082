"""What can be asked about a section, with the answer in its own words.

Pure text rules, shared by the items that judge a model and the pairs that train one. Of documented code: what a thing
is for, and what each parameter means (numpy's, Google's and reStructuredText's ways of writing them down). Of any other
text: what stands under a heading. Each question has a second wording, which is asked and never trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHORTEST, LONGEST = 20, 300  # characters of a sentence that can stand alone as an answer
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[A-Z`\"'(]|\s*$)", re.S)
_NUMPY = re.compile(r"(?m)^(\*{0,2}[A-Za-z_][\w, *]*?)(?: ?:[^\n]*)?\n((?:[ \t]+\S[^\n]*(?:\n|\Z))+)")
_GOOGLE = re.compile(r"(?m)^[ \t]+(\w+)(?: ?\([^)\n]*\))?: (\S[^\n]*(?:\n[ \t]{6,}\S[^\n]*)*)")
_FIELD = re.compile(r"(?m)^:param (?:[\w\[\], ]+ )?(\w+): *(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)")
_PARAMETERS = ("Parameters", "Other Parameters", "Attributes", "Args", "Arguments")
_PARTS = {*_PARAMETERS, "Returns", "Raises", "Yields", "Examples", "Example", "See Also", "Notes", "References"}


def first_sentence(body: str) -> str:
    """The first sentence of prose, on one line; "" where there is none of a usable length."""
    for paragraph in re.split(r"\n\s*\n", body):
        if _is_prose(paragraph):
            text = " ".join(paragraph.split())
            found = _SENTENCE.match(text)
            sentence = found[1] if found else text
            if sentence.endswith(":"):  # announces what follows, and says nothing by itself
                continue
            return sentence if SHORTEST <= len(sentence) <= LONGEST else ""
    return ""


@dataclass(frozen=True)
class Asked:
    """A question that one section answers, and the rule that made it."""

    kind: str  # purpose | parameter | heading
    question: str
    answer: str
    reworded: str  # the same question in other words


def asked(row: Mapping[str, Any]) -> Iterator[Asked]:
    """Every question that a section answers by these rules."""
    title, body = row["title"], row["body"]
    if not row["path"].endswith(".py"):
        if said := first_sentence(body):
            reworded = f"What does the section “{title}” tell its reader?"
            yield Asked("heading", f"What is said under “{title}”?", said, reworded)
        return
    if said := purpose(title, body):
        yield Asked("purpose", f"What is “{title}” for?", said, f"Why would one use “{title}”?")
    for name, meaning in parameters(title, body):
        question = f"What does the parameter “{name}” of “{row['within']}” mean?"
        yield Asked("parameter", question, meaning, f"In “{row['within']}”, what is “{name}” used for?")


def purpose(title: str, body: str) -> str:
    """What the thing that is titled so is for; "" for a section about a part of it, like 'Notes' or 'Examples'."""
    return "" if " > " in title and title.rpartition(" > ")[2] in _PARTS else first_sentence(body)


def parameters(title: str, body: str) -> Iterator[tuple[str, str]]:
    """(name, meaning) of every parameter that the body describes, the meaning on one line."""
    patterns = [_FIELD]
    if title.rpartition(" > ")[2] in _PARAMETERS:
        patterns.append(_NUMPY)
    if re.search(r"(?m)^\s*(?:Args|Arguments|Parameters):\s*$", body):
        patterns.append(_GOOGLE)
    for pattern in patterns:
        for name, described in pattern.findall(body):
            meaning = first_sentence(re.sub(r"(?m)^[ \t]+", "", described))
            if meaning:
                yield " ".join(name.split()), meaning


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences rather than code, a table, a list or a directive."""
    text = paragraph.strip()
    if text.startswith((">>>", "..", "|", "+-", "- ", "* ", "```", "    ", "::", "#", "=", ":")):
        return False
    letters = sum(letter.isalpha() or letter.isspace() for letter in text)
    return bool(text) and letters >= 0.7 * len(text)
