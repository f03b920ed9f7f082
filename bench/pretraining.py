"""The project's own pretraining as a neighbour: params.yaml's model and engine, on every core, until it is stopped.

    python -m bench.pretraining FOLDER

What stands beside an endpoint at night is this, at this priority. It reads the standard library's docstrings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil

from nightshift import commit, documents, params
from nightshift.pretrain import pack, pretrain, tokenizer
from nightshift.sections import Compute, Pack, Pretrain, Tokenizer
from nightshift.stage import NICE, Work

ROOT = Path(__file__).resolve().parent.parent
FILES = 150  # of the standard library
TOKENS = 5_000_000  # more than it gets to
STARTED_S = 15.0  # of a core: by then it trains


def made(folder: Path) -> None:
    """Vocabulary and packed tokens, by the night's own stages."""
    from bench.released import sections

    table = sections(FILES).sort("id")
    with commit.folder(folder / "balanced") as draft:
        documents.store(draft / "rows.parquet", table)
        documents.store(draft / "weights.parquet", pl.DataFrame({"id": table["id"], "weight": [1.0] * len(table)}))
    commit.absent(folder / "start", "none")
    (folder / "verdict").write_text("{}")
    words, stream = params.load(ROOT / params.FILE, Tokenizer), params.load(ROOT / params.FILE, Pack)
    words, stream = words.model_copy(update={"min_characters": 1}), stream.model_copy(update={"min_tokens": 1})
    parts = (folder / "start", folder / "balanced", folder / "verdict", folder / "tokenizer")
    tokenizer.run(*parts, words, Work("tokenizer"))
    pack.run(folder / "tokenizer", folder / "balanced", folder / "packed", stream, Work("pack"))


def train(folder: Path) -> None:
    """Train for longer than anybody waits."""
    os.nice(NICE)
    settings = params.load(ROOT / params.FILE, Pretrain).model_copy(update={"tokens": TOKENS, "max_epochs": 1e6})
    parts = (folder / "packed", folder / "tokenizer", folder / "start", folder / "model", folder / "curve.csv")
    compute = params.load(ROOT / params.FILE, Compute)
    pretrain.run(*parts, settings, compute, Work("pretrain"))


@contextmanager
def beside() -> Iterator[None]:
    """A pretraining in a process of its own, from its first steps until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder))
        around = os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}", "OMP_WAIT_POLICY": "PASSIVE"}
        words = [sys.executable, "-m", "bench.pretraining", folder]
        child = psutil.Popen(words, cwd=ROOT, env=around, stdout=subprocess.DEVNULL)
        try:
            while child.cpu_times().user < STARTED_S:
                assert child.poll() is None, "the pretraining ended before it began"
                time.sleep(0.5)
            yield
            assert child.poll() is None, "the pretraining ended before its neighbour did"
        finally:
            for one in [child, *child.children(recursive=True)]:
                one.kill()
            child.wait()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
