"""Small models and systems for tests: random weights, a tokenizer of single bytes, an index of a few sections."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from nightshift import commit, documents
from nightshift.adapt.system import assemble
from nightshift.base import candidate
from nightshift.lexical import Lexical
from nightshift.sections import Candidate, Compute, InitialisedModel, System
from nightshift.stage import Work

COMPUTE = Compute(device="cpu", threads=1, workers=1, dtype="float32")
SETTINGS = System(context=1024, sections=2, section_tokens=40, max_new_tokens=8)
SMALL = InitialisedModel(kind="initialised", width=32, layers=1, heads=2, context=2048, seed=1)


def base(out: Path, seed: int = 1) -> Path:
    """A candidate of random weights."""
    models = {"small": SMALL.model_copy(update={"seed": seed})}
    candidate.run("small", out.parent / "none", out, Candidate(models=models), Work("candidate"))
    return out


def index(out: Path, rows: list[dict[str, object]]) -> Path:
    """An index that searches by words alone."""
    table = pl.DataFrame(rows, schema=documents.SECTION).sort("id")
    said = {"dense_weight": 0.0, "depth": 10, "first_tokens": 16, "dtype": "float32"}
    with commit.folder(out) as draft:
        documents.store(draft / "sections.parquet", table)
        Lexical.build([f"{t}\n{b}" for t, b in table.select("title", "body").iter_rows()]).save(draft / "bm25")
        np.save(draft / "vectors.npy", np.zeros((len(table), 4), dtype=np.float16))
        np.save(draft / "dense.npy", np.zeros(len(table), dtype=np.bool_))
        (draft / "retrieval.json").write_text(json.dumps(said))
    return out


def system(out: Path, root: Path, rows: list[dict[str, object]], name: str = "plain") -> Path:
    """A plain system on a small base; `root` is the checkout whose prompt it takes."""
    parts = out.parent / f"{out.name}-parts"
    base(parts / "base")
    index(parts / "index", rows)
    with commit.folder(parts / "adapted") as draft:
        (draft / "adapted.json").write_text(commit.dumps({"kind": "plain"}))
    prompt = root / "include" / "prompts" / "plain.yaml"
    with commit.folder(out) as draft:
        assemble(draft, name, prompt, parts / "base", parts / "adapted", parts / "index", SETTINGS, "float32")
    shutil.rmtree(parts)
    return out
