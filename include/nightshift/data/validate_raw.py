"""Let the raw corpus through, or refuse it: sections and documents as a suite of Great Expectations wants them.

Writes the verdict (the suite's sha256 and that it was accepted, nothing else): an equal verdict stops there, and
without one nothing is cleaned. A page for a person lies under NIGHTSHIFT_STATE/pages.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from nightshift import documents, stage
from nightshift.data import expect
from nightshift.stage import Metrics, Work


def lengths(table: pl.DataFrame) -> pl.DataFrame:
    """The table with what a suite can hold a bound against: characters of title and body, and groups."""
    return table.with_columns(
        body_characters=pl.col("body").str.len_chars(),
        title_characters=pl.col("title").str.len_chars(),
        groups_named=pl.col("groups").list.len(),
    ).drop("groups")


def run(suite: Path, raw: Path, out: Path, work: Work) -> Metrics:
    """Validate the raw table. Raises DataRefused."""
    return expect.judge({"raw": lengths(documents.read(raw))}, [suite], out, work)


if __name__ == "__main__":
    stage.main(run)
