"""Choose examples for the prompt: short, varied pairs that show how an answer looks.

No model is asked: three examples already bring every answer into form, and which ones hardly matters, while a search
would cost more than it gives. Kinds take turns, each example comes from a document of its own, and the order is that of
hash(id), so that the same pairs give the same examples.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import polars as pl

from nightshift import canary, commit, documents, stage
from nightshift.sections import Prompt
from nightshift.stage import Metrics, Work

SALT = "shots-1"


def chosen(pairs: pl.DataFrame, params: Prompt) -> list[dict[str, str]]:
    """The examples, at most params.shots."""
    characters = pl.col("question").str.len_chars() + pl.col("answer").str.len_chars()
    short = pairs.filter(characters <= params.max_characters, pl.col("kind") != canary.KIND)
    by_kind = [sorted(part.iter_rows(named=True), key=_order) for _, part in sorted(short.group_by("kind"), key=str)]
    seen: set[str] = set()
    examples: list[dict[str, str]] = []
    for pair in (one for row in zip_longest(*by_kind) for one in row if one):
        if len(examples) < params.shots and pair["document"] not in seen:
            seen.add(pair["document"])
            examples.append({"question": pair["question"], "answer": pair["answer"]})
    return examples


def run(base: Path, pairs: Path, verdict: Path, out: Path, params: Prompt, work: Work) -> Metrics:
    """Choose the examples. Absent where the base or the pairs are, or too few pairs are there."""
    commit.check(verdict)
    reason = commit.why_absent(base) or commit.why_absent(commit.check(pairs))
    table = None if reason else pl.read_parquet(pairs / "pairs.parquet")
    if table is not None and (size := canary.others(table)) < params.min_pairs:
        reason = f"{size} pairs are too few, at least {params.min_pairs} are needed"
    if reason or table is None:
        commit.absent(out, reason or "")
        return {"absent": reason}
    examples = chosen(table, params)
    with commit.folder(out) as draft:
        (draft / "adapted.json").write_text(commit.dumps({"kind": "prompt"}), encoding="utf-8")
        (draft / "examples.json").write_text(commit.dumps(examples), encoding="utf-8")
    return {"examples": len(examples), "characters": sum(len(text) for one in examples for text in one.values())}


def _order(pair: dict[str, str]) -> float:
    return documents.fraction(pair["id"], SALT)


if __name__ == "__main__":
    stage.main(run)
