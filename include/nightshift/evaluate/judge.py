"""Ask the test items of what could be released, and of what it has to beat.

Reads the winner, the refresh, plain and the incumbent; writes a table of rows for each system that was asked and
`judged.json`, which says which system plays which role, by digest. No system is asked twice: roles with equal digests
share their rows. With something in production plain is not asked. What could be released is also answered by the engine
that would serve it, as far as evaluate.engine_items goes, and the share of equal answers is a metric of the gate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, engine, stage
from nightshift.answer import System
from nightshift.evaluate.ask import ROW, answers, ask, generated, load_probes, within, written
from nightshift.evaluate.evaluate import means
from nightshift.evaluate.metrics import loaded
from nightshift.sections import Compute, Evaluate
from nightshift.stage import Metrics, Work, libraries

ENGINE_TOKENS = 16  # of each answer that are compared: greedy answers that part do so early


def roles(winner: Path, refresh: Path, plain: Path, incumbent: Path) -> dict[str, str | None]:
    """Role → digest of the system that plays it; None where there is none, or it is not asked."""
    found = {"winner": winner, "refresh": refresh, "plain": plain, "incumbent": incumbent}
    digests = {role: None if commit.why_absent(path) else commit.digest(path) for role, path in found.items()}
    if digests["incumbent"]:
        digests["plain"] = None
    return digests


def agreement(folder: Path, items: pl.DataFrame, params: Evaluate, compute: Compute, work: Work) -> pl.DataFrame:
    """Rows of `engine_agreement`: 1 where the serving engine says what the judged model said."""
    system = System.open(folder)
    asked = generated(within(items, params)[0], params)[: params.engine_items]
    if not asked:
        return pl.DataFrame(schema=ROW)
    requests = [written(system, row["question"], system.sections(row["question"], row["groups"])) for row in asked]
    ours, _ = answers(system, requests, compute, work)
    read = [place for place, one in enumerate(ours) if one["text"]]
    asked, requests = [asked[place] for place in read], [requests[place] for place in read]
    ours = [ours[place] for place in read]
    known = work.memo(
        "judge.agreement", [commit.digest(folder), compute.model_dump(), libraries("evaluate")], engine.__file__
    )

    def ask_engine(todo: list[int]) -> list[str]:
        with engine.start(folder, compute.threads, compute.device) as served:
            return [
                served.chat([dict(zip(("role", "content"), turn, strict=True)) for turn in one.messages], one.limit)
                for one in work.progress([requests[place] for place in todo], "answers of the engine")
            ]

    theirs = known.map([one.key("") for one in requests], ask_engine)
    rows = [
        (row["id"], "answer", "open", "engine_agreement", float(_begin(system, one["text"]) == _begin(system, other)))
        for row, one, other in zip(asked, ours, theirs, strict=True)
    ]
    return pl.DataFrame(rows, schema=ROW, orient="row")


def _begin(system: System, text: str) -> list[int]:
    """The first tokens of an answer."""
    ids: list[int] = system.tokens.encode(text.strip(), add_special_tokens=False).ids[:ENGINE_TOKENS]
    return ids


def run(
    winner: Path, refresh: Path, plain: Path, incumbent: Path, items: Path, probes: Path, out: Path,
    metrics: list[Path], params: Evaluate, compute: Compute, work: Work,
) -> Metrics:  # fmt: skip
    """Judge tonight's candidates."""
    folders = {"winner": winner, "refresh": refresh, "plain": plain, "incumbent": incumbent}
    played = roles(*(commit.check(path) for path in folders.values()))
    table = pl.read_parquet(commit.check(items) / "items.parquet")
    params = params.model_copy(update={"tokens": params.judge_tokens, "generated": params.judge_generated})
    measured: dict[str, Any] = {}
    tables: dict[str, pl.DataFrame] = {}
    left_out = 0
    with loaded(metrics) as known:
        for role, digest in played.items():
            if digest is None or digest in tables:
                continue
            rows, counted = ask(folders[role], table, load_probes(probes), known, params, compute, work)
            if role != "incumbent":
                rows = pl.concat([rows, agreement(folders[role], table, params, compute, work)])
            tables[digest] = rows.sort("item", "book", "metric")
            left_out = max(left_out, counted["left_out"])
            measured[role] = {name: one["mean"] for name, one in means(rows).items()}
    judged = {"roles": played, "items": commit.digest(items), "left_out": left_out}
    with commit.folder(out) as draft:
        for digest, rows in tables.items():
            documents.store(draft / f"{digest}.parquet", rows)
        (draft / "judged.json").write_text(commit.dumps(judged), encoding="utf-8")
    return {"items": len(table), "left_out": left_out, **measured}


if __name__ == "__main__":
    stage.main(run)
