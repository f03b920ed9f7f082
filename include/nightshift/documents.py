"""The table that everything is made from: sections of documents.

A section is a title (a heading, a qualified name) and a body. One schema holds from the raw table to the index;
stages add no columns and drop rows only into a ledger. A table is a folder: `rows.parquet` sorted by id,
`ledger.parquet` with a row for every section that went or was changed, and a manifest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from nightshift import commit

SECTION = pl.Schema(
    {
        "id": pl.String(),  # 16 hex digits of sha256 over (source, document path, qualified title, ordinal)
        "document": pl.String(),  # id of the document: 16 hex digits of sha256 over (source, document path)
        "parent": pl.String(),  # id of the row this one was made from: the source item for raw rows, else the raw row
        "within": pl.String(),  # qualified title of the enclosing heading, class or module: siblings share it
        "title": pl.String(),  # qualified title: 'numpy.linalg.norm', 'Guide > Install'
        "body": pl.String(),
        "source": pl.String(),  # name of the source in params.yaml
        "rank": pl.Int32(),  # place of the source in params.yaml: smaller is kept when two are near-equal
        "path": pl.String(),  # path of the document inside its source
        "licence": pl.String(),  # SPDX expression where known, else 'unknown'
        "groups": pl.List(pl.String()),  # who may see it; ["public"] for everyone
        "content": pl.String(),  # 16 hex digits of sha256 over (title, body)
    }
)
LEDGER = pl.Schema({"id": pl.String(), "stage": pl.String(), "reason": pl.String(), "detail": pl.String()})


def key(*parts: str | int) -> str:
    """16 hex digits that stand for these parts in this order."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


def content(title: str, body: str) -> str:
    """Content hash of a section; ids do not change when the text does, this does."""
    return key(title, body)


def fraction(identifier: str, salt: str) -> float:
    """A number in [0, 1) that depends on the id and the salt alone: the order of budgets, the sides of a split."""
    return int(hashlib.sha256(f"{salt}\x1f{identifier}".encode()).hexdigest()[:13], 16) / 16**13


def write(out: Path, rows: pl.DataFrame, ledger: pl.DataFrame | None = None) -> None:
    """Write a table of sections, sorted by id, with its ledger."""
    with commit.folder(out) as draft:
        store(draft / "rows.parquet", rows.select(SECTION.names()).cast(SECTION).sort("id"))
        entries = ledger if ledger is not None else pl.DataFrame(schema=LEDGER)
        store(draft / "ledger.parquet", entries.select(LEDGER.names()).sort(LEDGER.names()))


def read(path: Path) -> pl.DataFrame:
    """Read a table of sections, checked against its manifest; sorted by id."""
    return pl.read_parquet(commit.check(path) / "rows.parquet")


def store(path: Path, table: pl.DataFrame) -> None:
    """Parquet with the settings that every out uses, so that the same rows are the same bytes."""
    table.write_parquet(path, compression="zstd", compression_level=3, statistics=True, row_group_size=1 << 16)
