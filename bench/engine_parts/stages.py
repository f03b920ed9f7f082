"""One stage, outside Airflow: `Attempt(...).run()` beside `dvc repro -s STAGE` in a warm checkout of the same project.

The command takes next to nothing, so that what is measured is what stands around it; it reads what another stage made,
and other stages stand beside both. In turns, each time of a seed that neither has seen, so that both run it; their lock
entries are compared.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts import projects
from bench.engine_parts.server import Broke

from dvc_engine.git import git
from dvc_engine.pipeline import kept, lock, reading
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import Night, Result

WRITE = """\
import sys
from pathlib import Path

out, seed = Path("out"), Path("seed.txt").read_text()
for n in range(int(sys.argv[1])):
    (out / f"{n % 100:02}").mkdir(parents=True, exist_ok=True)
    (out / f"{n % 100:02}" / str(n)).write_text(f"{seed}{n}")
"""


def overhead(scratch: Path, stages: int, rounds: int) -> dict[str, Any]:
    """Seconds of a stage that runs `cp`, in a project of so many."""
    made: dict[str, Any] = {
        "above": {"cmd": "cp seed.txt held", "deps": ["seed.txt"], "outs": ["held"]},
        "one": {"cmd": "cp held out", "deps": ["held"], "outs": ["out"]},
    }
    made |= {f"other-{n}": {"cmd": f"cp out {n}", "deps": ["out"], "outs": [str(n)]} for n in range(2, stages)}
    ours, plain = (projects.made(scratch / f"{name}-{stages}", made) for name in ("overhead-ours", "overhead-plain"))
    took: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds + 1):
        for root in (ours, plain):
            (root / "seed.txt").write_text(f"{number}\n")
            git(root, "commit", "-qam", f"Seed {number}")
        above, _ = attempt(ours, "above", None, number)
        repro(plain, "above")
        refuse_others(above, "ran", plain)
        result, seconds = attempt(ours, "one", None, number, above)
        again = repro(plain, "one")
        refuse_others(result, "ran", plain)
        if number:  # the first does not count
            took["ours"].append(seconds)
            took["plain"].append(again)
    return {
        "stages": stages,
        "ours_s": round(median(took["ours"]), 3),
        "dvc_repro_s": round(median(took["plain"]), 3),
        "overhead_s": round(median(a - b for a, b in zip(took["ours"], took["plain"], strict=True)), 3),
    }


def folder(scratch: Path, files: int, rounds: int) -> dict[str, Any]:
    """Seconds of a stage whose out is a folder of so many small files, and of finding that it need not run.

    Most of it is the disk's, which takes three times as long when it has much to write: of each round a ratio, and what
    was written before is on the disk when the clock starts.
    """
    cmd = f"{sys.executable} write.py {files}"
    stages = {"one": {"cmd": cmd, "deps": ["seed.txt", "write.py"], "outs": ["out"]}}
    ours, plain = (projects.made(scratch / f"{name}-{files}", stages) for name in ("folder-ours", "folder-plain"))
    for root in (ours, plain):
        (root / "write.py").write_text(WRITE)
        git(root, "add", "-A")
        git(root, "commit", "-qm", "What writes")
    took: dict[str, list[float]] = {"ours": [], "dvc_repro": [], "unchanged_ours": [], "unchanged_dvc_repro": []}
    for number in range(rounds):
        for root in (ours, plain):
            (root / "seed.txt").write_text(f"{number}\n")
            git(root, "commit", "-qam", f"Seed {number}", "--allow-empty")
        os.sync()
        result, seconds = attempt(ours, "one", None, 2 * number)
        took["ours"].append(seconds)
        os.sync()
        took["dvc_repro"].append(repro(plain, "one"))
        refuse_others(result, "ran", plain)
        again, seconds = attempt(ours, "one", result.entry, 2 * number + 1)
        if again.outcome != "unchanged":
            raise Broke(f"a stage with nothing changed was {again.outcome}: {again.sentence}")
        took["unchanged_ours"].append(seconds)
        took["unchanged_dvc_repro"].append(repro(plain, "one"))
    found: dict[str, Any] = {f"{name}_s": round(median(said), 3) for name, said in took.items()}
    for key in ("", "unchanged_"):
        ratios = [a / b for a, b in zip(took[f"{key}ours"], took[f"{key}dvc_repro"], strict=True)]
        found[f"{key}times"] = round(median(ratios), 3)
    return {"files": files} | found


def large_dep(scratch: Path, megabytes: int, kind: str, rounds: int) -> dict[str, Any]:
    """Seconds of a stage that reads a file of that size, which `dvc add` tracks; `kind` is the project's `cache.type`.

    A clone is brought what the checkout has already: a copy takes the disk's time, a link none.
    """
    stages = {"one": {"cmd": "cp seed.txt out", "deps": ["seed.txt", "held"], "outs": ["out"]}}
    ours, plain = (projects.made(scratch / f"{name}-{kind}", stages) for name in ("large-ours", "large-plain"))
    for root in (ours, plain):
        with (root / "held").open("wb") as held:
            for number in range(megabytes):
                held.write(random.Random(number).randbytes(1_000_000))
        for words in (["config", "cache.type", kind], ["add", "-q", "held"]):
            subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, check=True)
        git(root, "add", "-A")
        git(root, "commit", "-qm", "Data")
    took: dict[str, list[float]] = {"ours": [], "dvc_repro": []}
    for number in range(rounds + 1):
        for root in (ours, plain):
            (root / "seed.txt").write_text(f"{number}\n")
            git(root, "commit", "-qam", f"Seed {number}", "--allow-empty")
        os.sync()
        result, seconds = attempt(ours, "one", None, number)
        again = repro(plain, "one")
        refuse_others(result, "ran", plain)
        if number:  # the first does not count
            took["ours"].append(seconds)
            took["dvc_repro"].append(again)
    found = {f"{name}_s": round(median(said), 3) for name, said in took.items()}
    return {"megabytes": megabytes, "cache_type": kind} | found


def attempt(root: Path, stage: str, entry: lock.Entry | None, number: int, *above: Result) -> tuple[Result, float]:
    """One attempt at HEAD, above which stand these results, and its seconds."""
    known, commit = reading.read(root, kept.folder(root)), git(root, "rev-parse", "HEAD")
    night = Night(str(root), commit, {}, {stage: [(entry, commit)]} if entry else {}, f"bench-{number}")
    began = time.perf_counter()
    clones = root / ".dvc" / "tmp" / "clones"
    result = Attempt(night, known, stage, lambda _: {one.stage: one for one in above}, clones, {}).run()
    return result, time.perf_counter() - began


def repro(root: Path, stage: str) -> float:
    """Seconds of `dvc repro -s`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "-s", stage], cwd=root, check=True)
    return time.perf_counter() - began


def refuse_others(result: Result, outcome: str, plain: Path) -> None:
    """Raises Broke where the attempt ended otherwise, or has another entry than the checkout's dvc.lock."""
    if result.outcome != outcome:
        raise Broke(f"{result.stage} was {result.outcome}, and should be {outcome}: {result.sentence}")
    if result.entry != lock.parse((plain / "dvc.lock").read_text())[result.stage]:
        raise Broke(f"{result.stage} has another lock entry than `dvc repro` wrote in {plain}")
