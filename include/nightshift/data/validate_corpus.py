"""Let the finished corpus through, or refuse it: what is trained on, indexed, asked and catalogued.

Reads every table that leaves the data side; writes the verdict that all later stages read. Beside the suite it holds
what no suite of single tables can say: every item and every pair belongs to a section that is there, and no section is
both trained on and asked about.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from nightshift import canary, commit, documents, stage
from nightshift.data import expect
from nightshift.data.augment import PAIR
from nightshift.data.validate_raw import lengths
from nightshift.errors import DataRefused
from nightshift.stage import Metrics, Work


def belong(unique: pl.DataFrame, balanced: pl.DataFrame, items: pl.DataFrame, pairs: pl.DataFrame) -> None:
    """Raises DataRefused for a reference to nothing, and for a section on two sides."""
    known, trained = set(unique["id"]), set(balanced["id"])
    for name, found, allowed in (
        ("items", set(items["section"]), known),
        ("balanced", trained, known),
        ("pairs", set(pairs.filter(pl.col("origin") != canary.KIND)["section"]), trained),
    ):
        if lost := found - allowed:
            what = f"{len(lost)} rows of {name} belong to sections that are not there"
            raise DataRefused(what, "validate-corpus", "run the stages before it again")
    if both := set(items["document"]) & set(balanced["document"]):
        what = f"{len(both)} documents are both trained on and asked about"
        raise DataRefused(what, "validate-corpus", "look at split and decontaminate")


def run(
    suite: Path, unique: Path, validation: Path, test: Path, balanced: Path, pairs: Path, out: Path, work: Work
) -> Metrics:
    """Validate the corpus. Raises DataRefused."""
    sections, trained = documents.read(unique), documents.read(balanced)
    weights = pl.read_parquet(balanced / "weights.parquet")
    items = {
        name: pl.read_parquet(commit.check(one) / "items.parquet")
        for name, one in (("items_validation", validation), ("items_test", test))
    }
    commit.check(pairs)
    questions = pl.DataFrame(schema=PAIR) if commit.why_absent(pairs) else pl.read_parquet(pairs / "pairs.parquet")
    belong(sections, trained, pl.concat(items.values()), questions)
    tables = {"unique": lengths(sections), "balanced": lengths(trained.join(weights, on="id")), "pairs": questions}
    tables |= {
        name: one.with_columns(choices_offered=pl.col("choices").list.len()).drop("choices", "groups")
        for name, one in items.items()
    }
    return expect.judge(tables, [suite], out, work)


if __name__ == "__main__":
    stage.main(run)
