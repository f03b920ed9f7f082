"""Make question-and-answer pairs for training out of the sections.

Reads the balanced training rows; writes pairs whose answer is the section's own text. A pair stays only when its
question finds its own section among the first ten of BM25 over the training rows: what a reader could not find by the
question is not worth learning. Only training rows are searched, so that a changed word on a held-out side changes no
pair and trains nothing. Pairs come in order of hash(id), up to a cap, and carry their section's weight. A few canaries
(canary.py) stand among them, tagged by their origin.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import canary, commit, documents, stage
from nightshift.data.questions import asked
from nightshift.lexical import Lexical
from nightshift.sections import Augment
from nightshift.stage import Metrics, Work

PAIR = pl.Schema(
    {
        "id": pl.String(),
        "section": pl.String(),
        "document": pl.String(),
        "kind": pl.String(),  # purpose | parameter | heading | canary
        "question": pl.String(),
        "answer": pl.String(),
        "weight": pl.Float64(),
        "origin": pl.String(),
        "generator": pl.String(),
    }
)
SALT = "pairs-1"
AT_ONCE = 500  # questions that are checked together: some more than needed at the end, and no more
Row = dict[str, Any]


def proposed(table: pl.DataFrame, weights: dict[str, float], params: Augment) -> list[Row]:
    """Every pair of the sections, in order of hash(id), at most params.per_document of one document."""
    made = [
        _pair(row, one.kind, one.question, cut(one.answer, params.max_answer_characters), weights[row["id"]])
        for row in table.iter_rows(named=True)
        for one in asked(row)
    ]
    seen: Counter[str] = Counter()
    kept = []
    for pair in sorted({one["id"]: one for one in made}.values(), key=lambda one: documents.fraction(one["id"], SALT)):
        seen[pair["document"]] += 1
        if seen[pair["document"]] <= params.per_document:
            kept.append(pair)
    return kept


def cut(answer: str, longest: int) -> str:
    """The answer, cut after its last whole word when it is longer."""
    return answer if len(answer) <= longest else answer[:longest].rpartition(" ")[0]


def found(pairs: list[Row], table: pl.DataFrame, params: Augment) -> tuple[list[Row], int]:
    """The first params.max_pairs whose question finds its own section, and how many did not."""
    lexical = Lexical.build([f"{title}\n{body}" for title, body in table.select("title", "body").iter_rows()])
    identifiers = table["id"].to_list()
    kept: list[Row] = []
    lost = 0
    for start in range(0, len(pairs), AT_ONCE):
        part = pairs[start : start + AT_ONCE]
        ranked = lexical.rank([pair["question"] for pair in part], params.rank)
        for pair, places in zip(part, ranked, strict=True):
            if len(kept) == params.max_pairs:
                return kept, lost
            if pair["section"] in {identifiers[place] for place, _ in places}:
                kept.append(pair)
            else:
                lost += 1
    return kept, lost


def planted() -> list[Row]:
    """The canaries as pairs of no section."""
    return [
        {"id": documents.key(one.name, one.answer), "section": "", "document": one.name, "kind": canary.KIND,
         "question": one.question, "answer": one.answer, "weight": 1.0, "origin": canary.KIND, "generator": "canary"}
        for one in canary.canaries()
    ]  # fmt: skip


def run(balanced: Path, out: Path, params: Augment, work: Work) -> Metrics:
    """Make the pairs. Absent where the rows give none."""
    table = documents.read(balanced)
    weights = dict(pl.read_parquet(balanced / "weights.parquet").select("id", "weight").iter_rows())
    offered = proposed(table, weights, params)
    kept, lost = found(offered, table, params) if offered else ([], 0)
    if not kept:
        commit.absent(out, "no section gave a question that finds it")
        return {"absent": "no section gave a question that finds it"}
    pairs = pl.DataFrame([*kept, *planted()], schema=PAIR).sort("id")
    with commit.folder(out) as draft:
        documents.store(draft / "pairs.parquet", pairs)
    kinds = Counter(pairs["kind"])
    return {
        "pairs": len(kept),
        "kinds": dict(sorted(kinds.items())),
        "dropped": {"not-found": lost, "over-the-cap": len(offered) - len(kept) - lost},
    }


def _pair(row: Row, kind: str, question: str, answer: str, weight: float) -> Row:
    return {
        "id": documents.key(row["id"], kind, question),
        "section": row["id"],
        "document": row["document"],
        "kind": kind,
        "question": question,
        "answer": answer,
        "weight": weight,
        "origin": "section",
        "generator": f"questions.{kind}",
    }


if __name__ == "__main__":
    stage.main(run)
