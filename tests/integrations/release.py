"""A checkout with a release in production, small and whole: tags, files, signature, an index with vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from nightshift import commit, documents, registry, signature
from nightshift.adapt.index import PARTS, encoder_folder
from nightshift.adapt.system import assemble
from nightshift.base import candidate
from nightshift.encode import Encoder
from nightshift.lexical import Lexical
from nightshift.registry import Release
from nightshift.sections import Candidate, InitialisedModel, System
from nightshift.stage import Work
from tests.data.conftest import section

FIRST_TOKENS, DTYPE = 32, "float32"
# tokens are bytes here: as long a window as prompts of frameworks need
MODEL = InitialisedModel(kind="initialised", width=32, layers=1, heads=2, context=16_384, seed=1)
SETTINGS = System(context=16_384, sections=2, section_tokens=40, max_new_tokens=16)
ROWS: list[dict[str, object]] = [
    section("pump.md", "Pump > Maintenance", "The pump is oiled every Monday by the keeper of the mill."),
    section("pump.md", "Pump > Colour", "The pump was painted red, as {every} pump of the mill is."),
    section("plant/valve.md", "Valve > Colour", "The valve of the old well was painted green in spring."),
    section("plant/well.md", "Well > Depth", "The old well is forty metres deep.", source="survey", licence="MIT"),
    section("board.md", "Board > Salaries", "The salaries of the board are oiled with champagne.", groups=["board"]),
]
PROMPT = """system: Answer from documents, in { one } sentence.
closed: "{question}"
open: |
  {sections}

  Answer from the texts above: {"as": "JSON"} is no place
  {question}
section: |
  # {title}
  {body}
"""


@dataclass(frozen=True)
class Checkout:
    """Where it lies, and what is in production there."""

    root: Path
    release: Release
    folder: Path


def make(root: Path) -> Checkout:
    """A repository whose first release is in production, and was fetched by an endpoint."""
    root.mkdir()
    _git(root, "init", "--quiet", "--initial-branch", "nightly")
    _git(root, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "--quiet", "--allow-empty", "-m", "night")
    draft = root / ".nightshift" / "releases" / "draft"
    with commit.folder(draft) as made:
        system(made / "system")
        (made / "release.json").write_text("{}")
    release = Release("v0.1.0", _git(root, "rev-parse", "HEAD"), commit.digest(draft))
    folder = draft.rename(draft.with_name(release.digest))
    registry.version(root, release)
    registry.assign(root, release)
    home = root / "var"
    home.mkdir()
    signature.sign(folder, home / "releases" / release.digest / "model.sig", home)
    return Checkout(root, release, folder)


def system(out: Path) -> None:
    """A system with examples, a prompt of its own, and an index that searches by words and by meaning."""
    parts = out.parent / "parts"
    params = Candidate(models={"small": MODEL})
    candidate.run("small", parts / "none", parts / "base", params, Work("candidate"))
    index(parts / "index")
    examples = [{"question": "What is {this}?", "answer": "An {example}."}]
    with commit.folder(parts / "adapted") as draft:
        (draft / "adapted.json").write_text(commit.dumps({"kind": "prompt"}))
        (draft / "examples.json").write_text(commit.dumps(examples))
    (parts / "prompt.yaml").write_text(PROMPT)
    with commit.folder(out) as draft:
        places = (parts / "base", parts / "adapted", parts / "index")
        assemble(draft, "prompt", parts / "prompt.yaml", *places, SETTINGS, DTYPE)
    shutil.rmtree(parts)


def index(out: Path) -> None:
    """The sections by BM25 and by the real encoder; one of them has no vector."""
    table = pl.DataFrame(ROWS, schema=documents.SECTION).sort("id")
    texts = [f"{title}\n{body}" for title, body in table.select("title", "body").iter_rows()]
    said = {"dense_weight": 0.4, "depth": 10, "first_tokens": FIRST_TOKENS, "dtype": DTYPE}
    with commit.folder(out) as draft:
        (draft / "encoder").mkdir()
        for part in PARTS:
            (draft / "encoder" / part).write_bytes((encoder_folder() / part).read_bytes())
        documents.store(draft / "sections.parquet", table)
        Lexical.build(texts).save(draft / "bm25")
        vectors = Encoder.load(draft / "encoder", dtype=DTYPE).encode(texts, FIRST_TOKENS)
        dense = table["title"].to_numpy() != "Valve > Colour"
        np.save(draft / "vectors.npy", np.where(dense[:, None], vectors, 0).astype(np.float16))
        np.save(draft / "dense.npy", dense)
        (draft / "retrieval.json").write_text(json.dumps(said))


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
