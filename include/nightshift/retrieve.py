"""A question and the asker's groups become sections of an index.

The index is a folder: the section table, BM25, one vector a section where the budget reached, the encoder, and how
the two sides are fused. Sections that none of the asker's groups may see, or that a filter leaves out, are masked
before either side ranks, so that they neither appear nor push others out. Fusion is by weighted reciprocal ranks
(Cormack et al. 2009, k = 60); a section without a vector counts as if its dense rank were its lexical one, so that
lacking a vector costs it nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from nightshift.encode import Encoder, Vectors
from nightshift.lexical import Lexical

RANK_OFFSET = 60  # of reciprocal rank fusion, as in its paper
PUBLIC = ("public",)


@dataclass(frozen=True)
class Hit:
    """A section that was found, with the score that it was ranked by."""

    id: str
    title: str
    body: str
    score: float
    source: str = ""
    path: str = ""


class Encodes(Protocol):
    """What gives the vectors of questions: `encode.Encoder`, or what asks another process for them."""

    width: int

    def encode(self, texts: Sequence[str], first_tokens: int) -> Vectors:
        """Vectors of the first tokens of each text, (texts, width)."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whole."""


@dataclass(frozen=True)
class Filter:
    """Which sections may be found, of those that may be seen; a field that is None leaves nothing out."""

    sources: Collection[str] | None = None  # names of sources in params.yaml
    path: str | None = None  # what the path of the document in its source begins with
    title: str | None = None  # what the qualified title begins with: 'numpy.linalg', 'Guide > Install'
    licences: Collection[str] | None = None  # SPDX expressions

    def rows(self, sections: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows of a section table pass."""
        among = {"source": self.sources, "licence": self.licences}
        begins = {"path": self.path, "title": self.title}
        tests = [pl.col(name).is_in(list(values)) for name, values in among.items() if values is not None]
        tests += [pl.col(name).str.starts_with(text) for name, text in begins.items() if text is not None]
        if not tests:
            return np.ones(len(sections), dtype=np.bool_)
        return sections.select(pl.all_horizontal(tests)).to_series().to_numpy()


EVERY = Filter()


@dataclass
class Index:
    """An opened index; row i of every part is section i in the order of ids."""

    sections: pl.DataFrame
    lexical: Lexical
    vectors: Vectors
    dense: npt.NDArray[np.bool_]
    folder: Path
    dense_weight: float
    depth: int
    first_tokens: int
    dtype: str

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Open an index folder; the encoder is loaded only when the dense side has a weight."""
        said = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
        return cls(
            pl.read_parquet(folder / "sections.parquet"),
            Lexical.load(folder / "bm25"),
            np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False),
            np.load(folder / "dense.npy", allow_pickle=False),
            folder,
            said["dense_weight"],
            said["depth"],
            said["first_tokens"],
            said["dtype"],
        )

    @cached_property
    def encoder(self) -> Encodes:
        """The sentence encoder that made the vectors; another that gives the same may be put in its place."""
        return Encoder.load(self.folder / "encoder", dtype=self.dtype)

    def search(self, question: str, k: int, groups: Collection[str] = PUBLIC, only: Filter = EVERY) -> list[Hit]:
        """The best `k` sections that these groups may see and that pass the filter, best first."""
        return self.search_all([question], k, groups, only)[0]

    def search_all(
        self, questions: Sequence[str], k: int, groups: Collection[str] = PUBLIC, only: Filter = EVERY
    ) -> list[list[Hit]]:
        """`search` for several questions at once."""
        ranked = self.rank(questions, [self.dense_weight], groups, only)[0]
        return [[self.hit(place, score) for place, score in one[:k]] for one in ranked]

    def nearest(
        self, vector: npt.NDArray[np.float32], k: int, groups: Collection[str] = PUBLIC, only: Filter = EVERY
    ) -> list[Hit]:
        """The `k` sections whose vectors have the largest inner product with this one, which is their score."""
        asked = vector.reshape(1, -1)
        places = self._nearest(asked, self.seen_by(groups) & only.rows(self.sections))[0][:k]
        return [self.hit(place, float(self._matrix[place] @ asked[0])) for place in places]

    def rank(
        self,
        questions: Sequence[str],
        dense_weights: Sequence[float],
        groups: Collection[str] = PUBLIC,
        only: Filter = EVERY,
    ) -> list[list[list[tuple[int, float]]]]:
        """For every weight of the dense side and every question: (row, fused score), best first; 0 is BM25 alone."""
        allowed = self.seen_by(groups) & only.rows(self.sections)
        lexical = self.lexical.rank(questions, self.depth, allowed)
        if not any(dense_weights):
            return [lexical for _ in dense_weights]
        dense = self._nearest(self.encoder.encode(questions, self.first_tokens), allowed)
        return [
            [
                fuse([row for row, _ in words], meaning, self.dense, weight, self.depth) if weight else words
                for words, meaning in zip(lexical, dense, strict=True)
            ]
            for weight in dense_weights
        ]

    def coverage(self, question: str, hits: Sequence[Hit]) -> float:
        """How well the best of these sections covers a question, 0 to 1: below a bound it is not answered from them.

        On the default corpus (17,064 sections, three shown) a bound of 0.4 would leave unanswered 2 of 141 questions
        whose section was found (104 items, as written, in other words, and with a slip of the keys in a sixth of the
        words), 33 of 40 questions about the world, and 28 of 30 about software that the corpus does not hold.
        """
        return self.lexical.coverage(question, [f"{hit.title}\n{hit.body}" for hit in hits])

    def seen_by(self, groups: Collection[str]) -> npt.NDArray[np.bool_]:
        """Which rows at least one of these groups may see; what is public, everyone may."""
        wanted = sorted({*groups, *PUBLIC})
        return self.sections["groups"].list.eval(pl.element().is_in(wanted)).list.any().to_numpy()

    def _nearest(self, asked: npt.NDArray[np.floating[Any]], allowed: npt.NDArray[np.bool_]) -> list[list[int]]:
        """For every vector the rows with the largest inner product, among those that have one and may be seen."""
        mask = self.dense & allowed
        scores = asked.astype(np.float32) @ self._matrix.T  # (questions, sections)
        best = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")[:, : self.depth]
        return [[int(row) for row in rows if mask[row]] for rows in best]

    @cached_property
    def _matrix(self) -> npt.NDArray[np.float32]:
        """All vectors in single precision, which NumPy multiplies a hundred times as fast as half."""
        return self.vectors.astype(np.float32)

    def hit(self, place: int, score: float) -> Hit:
        """The section in a row, with a score."""
        row = self.sections.row(place, named=True)
        return Hit(row["id"], row["title"], row["body"], score, row["source"], row["path"])


def fuse(
    lexical: list[int], dense: list[int], has_vector: npt.NDArray[np.bool_], weight: float, depth: int
) -> list[tuple[int, float]]:
    """(row, score) of both rankings together, best first, ties by row.

    score = (1 - weight) / (60 + lexical rank) + weight / (60 + dense rank); a side that did not rank a row within its
    depth counts as depth + 1; a row without a vector takes its lexical rank for both.
    """
    words = {row: rank for rank, row in enumerate(lexical, 1)}
    meaning = {row: rank for rank, row in enumerate(dense, 1)}

    def score(row: int) -> float:
        first = words.get(row, depth + 1)
        second = meaning.get(row, depth + 1) if has_vector[row] else first
        return (1 - weight) / (RANK_OFFSET + first) + weight / (RANK_OFFSET + second)

    fused = {row: score(row) for row in {*words, *meaning}}
    return sorted(fused.items(), key=lambda one: (-one[1], one[0]))
