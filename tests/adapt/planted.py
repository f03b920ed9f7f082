"""Facts that no model can know, and what an adaptation makes of them.

Names and values are invented by rule from a seed. Each fact is a section of its own, is asked in the section's wording
and in one that nobody trains, and is to be answered in a form that no model uses by itself: `[value]`. The facts are
planted through the project's own stages, and the systems that come out are asked as `evaluate` asks them, greedily and
one by one, so that what is proved here is what a night does. Two systems are compared question by question with the
exact sign test: where every pair agrees an interval has no width.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl

from nightshift import commit, documents, score, stats
from nightshift.adapt import lora, plain, prompt, system
from nightshift.answer import System
from nightshift.data.augment import PAIR
from nightshift.likelihood import Model
from nightshift.sections import Compute, Lora, Prompt
from nightshift.sections import System as Around
from nightshift.stage import Metrics, Work
from tests import models
from tests.data.conftest import section

SHOTS = Prompt(shots=3, max_characters=200, min_pairs=20)
COUNT = 40 + SHOTS.shots  # so that 40 are left to ask when the examples have given theirs away
SIGNIFICANT = 0.05
_PROMPT_OF = {"plain": "plain", "prompt": "prompt", "lora": "lora", "zeroed": "lora"}
ATTRIBUTES = ("capital", "founder", "harbour", "emblem", "currency", "anthem", "keeper", "festival")
_ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "k", "kl", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("k", "l", "lm", "n", "nd", "r", "rn", "s", "st", "x")

Wording = Literal["question", "reworded"]
Book = Literal["closed", "open"]
Adaptation = Literal["plain", "prompt", "lora", "zeroed"]


@dataclass(frozen=True)
class Fact:
    """One invented fact."""

    name: str
    attribute: str
    value: str

    @property
    def body(self) -> str:
        """The sentence that its section says."""
        return f"The {self.attribute} of {self.name} is {self.value}."

    @property
    def question(self) -> str:
        """The question in the section's wording."""
        return f"What is the {self.attribute} of {self.name}?"

    @property
    def reworded(self) -> str:
        """The same in a wording that is not trained."""
        return f"Which {self.attribute} belongs to {self.name}?"

    @property
    def answer(self) -> str:
        """The answer in its form."""
        return f"[{self.value}]"


def facts(seed: int, count: int = COUNT) -> list[Fact]:
    """Invented facts: every name and every value is another word."""
    drawn = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < 2 * count:
        words[_word(drawn)] = None
    pairs = zip(list(words)[:count], list(words)[count:], strict=True)
    return [Fact(name, drawn.choice(ATTRIBUTES), value) for name, value in pairs]


def holds(answer: str, fact: Fact) -> bool:
    """Whether the answer contains the fact, whatever stands around it."""
    return f" {' '.join(score.words(fact.value))} " in f" {' '.join(score.words(answer))} "


def formed(answer: str) -> bool:
    """Whether the answer has the form, whatever it says."""
    return re.fullmatch(r"\[[^\[\]]+\]", answer.strip()) is not None


@dataclass(frozen=True)
class Comparison:
    """How often a candidate is right where its reference is wrong, and the other way round."""

    name: str
    wins: int
    losses: int
    pairs: int

    @classmethod
    def of(cls, name: str, candidate: Sequence[bool], reference: Sequence[bool]) -> Comparison:
        """Compare outcomes, question by question."""
        outcomes = list(zip(candidate, reference, strict=True))
        return cls(name, outcomes.count((True, False)), outcomes.count((False, True)), len(outcomes))

    @property
    def p(self) -> float:
        """One-sided p of the exact sign test."""
        return stats.sign_test(self.wins, self.losses)

    def prove(self) -> None:
        """Print the comparison. Raises AssertionError when the candidate is not significantly better."""
        said = f"{self.name}: {self.wins} wins, {self.losses} losses of {self.pairs} pairs, p = {self.p:.2g}"
        print(said)
        assert self.p < SIGNIFICANT, said


@dataclass
class Lane:
    """A base model and the facts that were planted in it; systems are made, and asked, when they are wanted."""

    folder: Path
    base: Path
    facts: list[Fact]
    prompts: Path
    params: Lora
    around: Around
    compute: Compute
    _said: dict[tuple[Adaptation, Book, Wording], list[str]] = field(default_factory=dict, init=False)

    @cached_property
    def pairs(self) -> Path:
        """The facts as pairs for training, in the section's wording alone."""
        rows = [_pair(fact) for fact in self.facts]
        with commit.folder(self.folder / "pairs") as draft:
            documents.store(draft / "pairs.parquet", pl.DataFrame(rows, schema=PAIR))
        return self.folder / "pairs"

    @cached_property
    def training(self) -> Metrics:
        """Train the adapter; what the stage says of it."""
        out, curve = self.folder / "lora", self.folder / "lora.csv"
        return lora.run(self.base, self.pairs, self._verdict, out, curve, self.params, self.compute, Work("lora"))

    @cached_property
    def unshown(self) -> list[int]:
        """Places of the facts that no example of the prompt gives away."""
        shown = {one["question"] for one in System.open(self.system("prompt")).examples}
        return [place for place, fact in enumerate(self.facts) if fact.question not in shown]

    def said(self, adaptation: Adaptation, book: Book, wording: Wording = "question") -> list[str]:
        """What a system answers to the question about each fact."""
        asked = (adaptation, book, wording)
        if asked not in self._said:
            self._said[asked] = self._ask(self.system(adaptation), book, [getattr(one, wording) for one in self.facts])
        return self._said[asked]

    def known(self, adaptation: Adaptation, book: Book, wording: Wording = "question") -> list[bool]:
        """Whether the answer to each question contains the fact."""
        answers = self.said(adaptation, book, wording)
        return [holds(answer, fact) for answer, fact in zip(answers, self.facts, strict=True)]

    def system(self, adaptation: Adaptation) -> Path:
        """The folder of a system, made once."""
        out = self.folder / "systems" / adaptation
        if not out.exists():
            parts = (self.base, self._adapted(adaptation), self._index, out)
            template = self.prompts / f"{_PROMPT_OF[adaptation]}.yaml"
            system.run(adaptation, template, *parts, self.around, self.compute, Work("system"))
        return out

    def _adapted(self, adaptation: Adaptation) -> Path:
        out = self.folder / adaptation
        if adaptation == "plain":
            plain.run(self.base, self._verdict, out, Work("plain"))
        elif adaptation == "prompt":
            prompt.run(self.base, self.pairs, self._verdict, out, SHOTS, Work("prompt"))
        elif adaptation == "lora":
            assert self.training["steps"]
        else:
            zero(self._adapted("lora"), out)
        return out

    def _ask(self, folder: Path, book: Book, questions: Sequence[str]) -> list[str]:
        opened = System.open(folder)
        model = Model.load(opened.base, opened.adapter, self.compute)
        return [
            model.generate(
                opened.messages(question, opened.sections(question) if book == "open" else []),
                opened.settings["max_new_tokens"],
            )
            for question in questions
        ]

    @cached_property
    def _index(self) -> Path:
        rows = [section(f"{one.name}.md", one.name, one.body) for one in self.facts]
        return models.index(self.folder / "index", rows)

    @cached_property
    def _verdict(self) -> Path:
        commit.file(self.folder / "verdict", "{}")
        return self.folder / "verdict"


def zero(adapted: Path, out: Path) -> None:
    """The same adapter with every weight 0: what a training that does nothing would leave."""
    from safetensors.torch import load_file, save_file

    with commit.folder(out) as draft:
        shutil.copytree(adapted, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns(commit.MANIFEST))
        weights = draft / "adapter" / "adapter_model.safetensors"
        save_file({name: one * 0 for name, one in load_file(weights).items()}, weights)


def _pair(fact: Fact) -> dict[str, Any]:
    return {
        "id": documents.key("planted", fact.name),
        "section": documents.key("section", fact.name),
        "document": documents.key("document", fact.name),
        "kind": "heading",
        "question": fact.question,
        "answer": fact.answer,
        "weight": 1.0,
        "origin": "section",
        "generator": "planted",
    }


def _word(drawn: random.Random) -> str:
    """A word of two syllables that no language has on purpose."""
    first, second = drawn.sample(_ONSETS, 2)
    return f"{first}{drawn.choice(_VOWELS)}{second}{drawn.choice(_VOWELS)}{drawn.choice(_CODAS)}".capitalize()
