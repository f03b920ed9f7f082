"""Questions about the held-out documents, each with the section that answers it.

Reads the deduplicated table and the sides; writes the items of the validation side and of the test side. Three kinds:

choice      which of these texts belongs to this title? The wrong ones come from sections beside the right one.
retrieval   which section does another section speak of? The question is what a 'See Also' says about it (of prose: what
            stands above it), without a word of its title and without three words in a row of its body.
answer      a question with a short answer in the section's own words: what a thing is for, what a parameter means.

Every item comes from one document; a document's change touches its own items alone. The order is that of hash(id).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, stage
from nightshift.data.questions import asked, first_sentence
from nightshift.sections import Items
from nightshift.stage import Metrics, Work

ITEM = pl.Schema(
    {
        "id": pl.String(),
        "kind": pl.String(),  # choice | retrieval | answer
        "section": pl.String(),  # id of the section that answers it
        "document": pl.String(),
        "question": pl.String(),
        "reworded": pl.String(),  # the question in other words
        "answer": pl.String(),  # in the section's own words; of a retrieval item the section's title
        "choices": pl.List(pl.String()),  # empty unless choice
        "label": pl.Int32(),  # place of the right choice; -1 unless choice
        "groups": pl.List(pl.String()),
        "origin": pl.String(),
        "generator": pl.String(),
    }
)
SALT = "items-1"  # of the order in which items are drawn
_SEE_ALSO = re.compile(r"(?m)^([\w., ]+?) ?: (\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)")
RUN = 3  # words in a row that count as the section's own wording
FEWEST_WORDS = 3  # of a description that says enough to be looked for
Row = dict[str, Any]


class Corpus:
    """The sections of one side, with their neighbours."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.siblings: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self.titled: dict[tuple[str, str], Row] = {}
        self.last: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            self.siblings[row["document"], row["within"]].append(row)
            self.titled.setdefault((row["document"], row["title"]), row)
            self.last[row["document"], row["title"].rpartition(".")[2]].append(row)

    def named(self, document: str, name: str) -> Row | None:
        """The one section whose dotted title ends with this name."""
        found = self.last[document, name.rpartition(".")[2]]
        return found[0] if len(found) == 1 else None

    def enclosing(self, row: Row) -> Row | None:
        """The section whose title this one's stands under."""
        return self.titled.get((row["document"], row["within"]))


def choices(corpus: Corpus, row: Row, params: Items) -> Iterator[Row]:
    """At most one choice item of a section: its first sentence among those of its siblings."""
    right = first_sentence(row["body"])
    if not right:
        return
    beside = [one for one in corpus.siblings[row["document"], row["within"]] if one["id"] != row["id"]]
    beside.sort(key=lambda one: documents.fraction(one["id"], row["id"]))
    wrong = list(dict.fromkeys(text for one in beside if (text := first_sentence(one["body"])) and text != right))
    if len(wrong) < params.distractors:
        return
    offered = sorted([right, *wrong[: params.distractors]], key=lambda text: documents.fraction(text, row["id"]))
    question = f"Which of these texts belongs to “{row['title']}”?"
    reworded = f"One of these texts is about “{row['title']}”. Which?"
    yield _item(row, "choice", (question, reworded), right, "sibling-texts", offered, offered.index(right))


def retrievals(corpus: Corpus, row: Row, params: Items) -> Iterator[Row]:
    """Retrieval items: what a 'See Also' says about another section; of prose, what stands above a section."""
    if row["title"].endswith(" > See Also"):
        for names, said in _SEE_ALSO.findall(row["body"]):
            for name in re.findall(r"[\w.]+", names):
                if (target := corpus.named(row["document"], name)) is not None:
                    yield from _looked_for(target, said, "see-also")
    elif not row["path"].endswith(".py") and (above := corpus.enclosing(row)):
        yield from _looked_for(row, first_sentence(above["body"]), "enclosing")


def _looked_for(row: Row, said: str, rule: str) -> Iterator[Row]:
    """The item that asks for a section by what another says of it; none where that is the section's own wording."""
    named = set(_words(row["title"]))
    left = [word for word in re.findall(r"\w+", said) if not {*_words(word)} & named]
    runs = {" ".join(left[place : place + RUN]).lower() for place in range(len(left) - RUN + 1)}
    own = " ".join(re.findall(r"\w+", row["body"])).lower()
    if len([word for word in left if len(word) > 3]) >= FEWEST_WORDS and not any(run in own for run in runs):
        said = " ".join(left)
        wordings = f"Where is this described: {said}?", f"Which section speaks of this: {said}?"
        yield _item(row, "retrieval", wordings, row["title"], rule)


def answers(corpus: Corpus, row: Row, params: Items) -> Iterator[Row]:
    """Items with a free answer: a purpose, the meaning of a parameter, what stands under a heading."""
    for one in asked(row):
        yield _item(row, "answer", (one.question, one.reworded), one.answer, one.kind)


def drawn(made: list[Row], limit: int, per_document: int) -> list[Row]:
    """At most `limit` items in order of hash(id), at most `per_document` from one document."""
    seen: Counter[str] = Counter()
    kept: list[Row] = []
    for item in sorted(made, key=lambda one: documents.fraction(one["id"], SALT)):
        if len(kept) < limit and seen[item["document"]] < per_document:
            seen[item["document"]] += 1
            kept.append(item)
    return kept


def side(table: pl.DataFrame, params: Items) -> pl.DataFrame:
    """The items of one side."""
    corpus = Corpus(list(table.iter_rows(named=True)))
    kinds: list[tuple[Callable[[Corpus, Row, Items], Iterator[Row]], int]] = [
        (choices, params.choices),
        (retrievals, params.retrievals),
        (answers, params.answers),
    ]
    kept: list[Row] = []
    for ask, limit in kinds:
        kept += drawn([item for row in corpus.rows for item in ask(corpus, row, params)], limit, params.per_document)
    return pl.DataFrame(kept, schema=ITEM).unique("id", keep="first", maintain_order=True).sort("id")


def run(unique: Path, sides: Path, validation: Path, test: Path, params: Items, work: Work) -> Metrics:
    """Make the items of both held-out sides; a side without any is an empty table."""
    table = documents.read(unique)
    placed = table.join(pl.read_parquet(commit.check(sides) / "sides.parquet"), on="document")
    metrics: dict[str, Any] = {}
    for name, out in (("validation", validation), ("test", test)):
        made = side(placed.filter(pl.col("side") == name), params)
        with commit.folder(out) as draft:
            documents.store(draft / "items.parquet", made)
        metrics[name] = {kind: int((made["kind"] == kind).sum()) for kind in ("choice", "retrieval", "answer")}
    return metrics


def _item(
    row: Row, kind: str, wordings: tuple[str, str], answer: str, rule: str, offered: list[str] | None = None,
    label: int = -1,
) -> Row:  # fmt: skip
    question, reworded = wordings
    return {
        "id": documents.key(row["id"], kind, question),
        "kind": kind,
        "section": row["id"],
        "document": row["document"],
        "question": question,
        "reworded": reworded,
        "answer": answer,
        "choices": offered or [],
        "label": label,
        "groups": row["groups"],
        "origin": "section",
        "generator": rule,
    }


def _words(text: str) -> list[str]:
    """Lower-case words without a plural's or a verb's s, parts of names apart."""
    return [
        word.lower().rstrip("s") for word in re.findall(r"[A-Za-z]+|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text))
    ]


if __name__ == "__main__":
    stage.main(run)
