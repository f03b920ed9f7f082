"""Give every document a side: train, validation or test.

Reads the deduplicated table; writes (document, side). A side is a hash of the document's id and a salt: no other
document and no earlier night has a say, and a document stays on its side when its text changes. `nightshift side
PATH` tells a document's.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from nightshift import commit, documents, stage
from nightshift.sections import Split
from nightshift.stage import Metrics, Work

SIDES = ("train", "validation", "test")


def side(document: str, params: Split) -> str:
    """The side of one document, by its id."""
    place = documents.fraction(document, params.salt)
    if place < params.validation:
        return "validation"
    return "test" if place < params.validation + params.test else "train"


def run(unique: Path, out: Path, params: Split, work: Work) -> Metrics:
    """Split one corpus by document."""
    table = documents.read(unique)
    names = table["document"].unique().sort()
    sides = pl.DataFrame({"document": names, "side": [side(name, params) for name in names]})
    with commit.folder(out) as draft:
        documents.store(draft / "sides.parquet", sides)
    joined = table.select("document").join(sides, on="document")
    return {
        "documents": {one: int((sides["side"] == one).sum()) for one in SIDES},
        "sections": {one: int((joined["side"] == one).sum()) for one in SIDES},
    }


if __name__ == "__main__":
    stage.main(run)
