"""Ask one of tonight's systems the items of the validation side.

Reads a system and the items; writes a row for each item and metric (`items.parquet`) and the mean of each metric
(`summary.json`). What each metric is stands in ask.py. Absent where the system is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, stage
from nightshift.evaluate.ask import ask, load_probes
from nightshift.evaluate.metrics import loaded
from nightshift.sections import Compute, Evaluate
from nightshift.stage import Metrics, Work


def means(rows: pl.DataFrame) -> dict[str, Any]:
    """'metric.book' → its mean and on how many items it stands."""
    grouped = rows.group_by("metric", "book").agg(pl.col("value").mean(), pl.len().alias("items"))
    return {
        f"{metric}.{book}": {"mean": round(mean, 6), "items": items}
        for metric, book, mean, items in grouped.sort("metric", "book").iter_rows()
    }


def run(
    system: Path, items: Path, probes: Path, out: Path, metrics: list[Path],
    params: Evaluate, compute: Compute, work: Work,
) -> Metrics:  # fmt: skip
    """Evaluate one system; `metrics` are files that hold one each."""
    if reason := commit.why_absent(commit.check(system)):
        commit.absent(out, reason)
        return {"absent": reason}
    table = pl.read_parquet(commit.check(items) / "items.parquet")
    with loaded(metrics) as known:
        rows, counted = ask(system, table, load_probes(probes), known, params, compute, work)
    with commit.folder(out) as draft:
        documents.store(draft / "items.parquet", rows)
        (draft / "summary.json").write_text(commit.dumps(means(rows)), encoding="utf-8")
    measured = {name: one["mean"] for name, one in means(rows).items()}
    return {"items": counted["items"], "left_out": counted["left_out"], **measured}


if __name__ == "__main__":
    stage.main(run)
