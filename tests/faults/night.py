"""A night of a small project, with one thing that goes wrong in it at a point that a seed chooses.

    python -m tests.faults.night --seed 7      # prints what was to happen, that it did, and what became of the night

What ran must not tell: the same lock file as `dvc repro` writes, one commit, every object sound, nothing left running,
no lease, and a second night in which nothing is done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dvc_engine.git import git
from dvc_engine.pipeline import project
from dvc_engine.store import lease, objects, repository, uncached, workspace
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.conftest import repository as made_repository
from tests.faults.struck import POINTS
from tests.faults.task import AGAIN

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 4
ORPHANS_GONE_S = 10.0
STEP = """\
import json, os, sys
from pathlib import Path

name, *out = sys.argv[1:]
point = f"stage:{name}"
counts = Path(os.environ["FAULTS"])
with (counts / point).open("ab", buffering=0) as held:
    held.write(b".")
    number = held.tell()
fault = json.loads(os.environ["FAULT"])
for path in out:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("half of it")
if fault and fault["point"] == point and fault["time"] == number:
    (counts / "fired").write_text(json.dumps(fault))
    pid = os.getpid()
    for _ in range(fault["above"]):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, fault["signal"])
seed = Path("seed.txt").read_text()
for path in out:
    Path(path).write_text(f"{name} of {seed}")
"""
FILES = {
    "step.py": STEP,
    "dvc.yaml": """\
stages:
  first: {cmd: python step.py first a/x a/y, deps: [seed.txt, step.py], outs: [a]}
  loose: {cmd: python step.py loose b.json, deps: [a], outs: [{b.json: {cache: false}}]}
  each:
    foreach: [one, two]
    do: {cmd: 'python step.py ${item} ${item}.txt', deps: [a/x, b.json], outs: ['${item}.txt']}
  last: {cmd: python step.py last end/deep/z, deps: [one.txt, two.txt], outs: [end]}
""",
    "seed.txt": "7",
}
STAGES = ("first", "loose", "one", "two", "last")


@dataclass(frozen=True)
class Told:
    """What became of a night: whether the fault fired, how often tasks were tried, and what is wrong."""

    fault: Mapping[str, Any] | None
    fired: bool
    tried: Mapping[str, int]
    wrong: list[str]

    def text(self) -> str:
        """Some lines for a person."""
        lines = [f"fault: {json.dumps(self.fault)}", f"fired: {self.fired}", f"tried: {json.dumps(self.tried)}"]
        return "\n".join([*lines, *(f"WRONG: {one}" for one in self.wrong)])


def chosen(seed: int, counted: Mapping[str, int]) -> dict[str, Any]:
    """The fault of a seed, among the points that a night reaches so often each."""
    rng = random.Random(seed)
    point = rng.choice(sorted(counted))
    fault = {"point": point, "time": rng.randint(1, counted[point])}
    if point.startswith("stage:"):
        return fault | {"signal": rng.choice([signal.SIGKILL, signal.SIGTERM]), "above": rng.randint(0, 3)}
    kinds = [signal.SIGKILL] * 2 + ([signal.SIGTERM] if POINTS[point] == "task" else [])
    return fault | {"signal": rng.choice(kinds)}


def prepare(folder: Path, files: Mapping[str, str] = FILES) -> Toy:
    """The project, committed."""
    made = Toy(made_repository(folder / "project", files))
    made.commit({})
    return made


def environment(fault: Mapping[str, Any] | None, faults: Path) -> dict[str, str]:
    """Variables of a night's tasks: what is to go wrong, where points are counted, and where the engine is."""
    return os.environ | {
        "FAULT": json.dumps(fault),
        "FAULTS": str(faults),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(ROOT / "include")]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def run(folder: Path, root: Path, fault: Mapping[str, Any] | None) -> tuple[dict[str, int], dict[str, int]]:
    """One night as a scheduler runs it: what is ended by a signal, or may be mended, is tried again.

    Returns:
        Task → attempts, and point → how often it was reached.
    """
    state, faults = folder / "state", folder / "faults"
    for place in (state, faults):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    env = environment(fault, faults)
    tried: dict[str, int] = {}

    def task(*words: str) -> None:
        for number in range(1, ATTEMPTS + 1):
            tried[words[0]] = number
            more = [str(number)] if words[0] not in ("pin", "publish", "end") else []
            asked = [sys.executable, "-m", "tests.faults.struck", "task", str(root), str(state), *words, *more]
            ended = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)
            if ended.returncode == 0:
                return
            if ended.returncode > 0 and ended.returncode != AGAIN:
                raise RuntimeError(f"{words[0]} ended with {ended.returncode}: {ended.stderr[-2000:]}")
        raise RuntimeError(f"{words[0]} was tried {ATTEMPTS} times: {ended.stderr[-2000:]}")

    task("pin")
    known = project.loads(json.loads((state / "pin.json").read_text())["project"])
    done: set[str] = set()
    with ThreadPoolExecutor(len(known.stages)) as pool:
        while len(done) < len(known.stages):
            ready = [name for name in known.stages if name not in done and done.issuperset(known.upstream(name))]
            list(pool.map(task, ready))
            done |= set(ready)
    task("publish")
    task("end")
    return tried, {path.name: path.stat().st_size for path in faults.iterdir() if path.name != "fired"}


def wrong(made: Toy, by_dvc: str, run_id: str) -> list[str]:
    """What a night left that it must not have."""
    found, record, cache = [], repository.of(made.root), workspace.cache_of(made.root)
    if git(made.root, "show", "dvc-airflow:dvc.lock") != by_dvc.rstrip("\n"):
        found.append("dvc.lock is not the one that DVC writes")
    if git(made.root, "rev-list", "--count", "--author=^dvc-airflow ", "dvc-airflow") != "1":
        found.append("the night is not one commit")
    for store in (cache, uncached.store(cache)):
        found += [f"{path} is damaged" for path in store.glob("files/md5/??/*") if not objects.sound(path)]
    if lease.read(record) is not None:
        found.append("the lease is still held")
    if made.git("status", "--porcelain"):
        found.append("the checkout was touched")
    deadline = time.monotonic() + ORPHANS_GONE_S
    while (left := _processes(run_id)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [*found, *(f"still running: {one}" for one in left)]


def _processes(mark: str) -> list[str]:
    """Processes that were started with this in their environment."""
    found = []
    for one in psutil.process_iter(["pid", "cmdline", "status"]):
        try:
            if one.environ().get("FAULTS") == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(one.cmdline()))
        except psutil.Error:
            continue
    return found


def by_dvc(made: Toy, folder: Path) -> str:
    """The lock file that `dvc repro` writes."""
    subprocess.run(["git", "clone", "-q", str(made.root), str(folder)], check=True)
    env = os.environ | {"FAULT": "null", "FAULTS": str(folder / ".dvc" / "tmp"), "DVC_NO_ANALYTICS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    subprocess.run(["dvc", "repro", "-q", "--no-run-cache"], cwd=folder, env=env, check=True, capture_output=True)
    return (folder / "dvc.lock").read_text()


def one(seed: int, folder: Path) -> Told:
    """A whole trial of a seed: what there is to meet, a night with the fault, and one after it."""
    calm = prepare(folder / "calm")
    _, counted = run(folder / "calm", calm.root, None)
    told = by_dvc(calm, folder / "dvc")
    fault = chosen(seed, counted)
    return struck(fault, folder / "struck", told)


def struck(fault: Mapping[str, Any], folder: Path, told: str) -> Told:
    """A night with a fault, what it left, and a night after it."""
    made = prepare(folder)
    try:
        tried, _ = run(folder, made.root, fault)
    except RuntimeError as error:
        return Told(fault, (folder / "faults" / "fired").is_file(), {}, [str(error)])
    fired = (folder / "faults" / "fired").is_file()
    bad = wrong(made, told, str(folder / "faults"))
    _, again = run(folder, made.root, None)
    if ran := [point for point in again if point.startswith("stage:")]:
        bad.append(f"the second night ran {', '.join(ran)}")
    return Told(fault, fired, tried, bad)


def main() -> int:
    """Print what became of one seed; 0 where all is well."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--seed", type=int, required=True)
    said = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = one(said.seed, Path(folder))
    print(told.text())
    return 0 if told.fired and not told.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
