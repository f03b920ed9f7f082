"""How fast the engine is, beside what others do with the same tasks: DAGs by hand, Cosmos, `dvc repro`, empty tasks.

    python bench/engine.py [--only parse …] [--small] [--large] [--out bench/engine.json]

parse        one DAG file, at 20, 200 and 2,000 stages, first and cached, as Airflow's DAG processor does it
nights       a night with nothing changed in a real Airflow (LocalExecutor, SQLite, deploy/airflow.env), and empty tasks
practice     stages that wait a second, and one BashOperator a stage with `dvc repro -s` in one checkout and `dvc push`
fan          a matrix of 100: time and memory
stage        a stage that ran, of 2 and of 2,000, and `dvc repro -s` in a warm checkout
files        outs of 10,000 files; --large: of 200,000
deps         a dep of 2 GB, as a copy and as a hard link, and `dvc repro -s` in a checkout that has it
publication  the first and the last task of a night of 2,000 stages

Each measures peer and ours in one run, in turns, after it compared what should be equal; ratios are medians over
rounds. --small: the least of each, to see that it works. Beside the JSON, with the machine and the commit, is the
table that this prints (engine.txt). Scratch lies in .nightshift/bench/engine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include"), str(ROOT / "plugins")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "include"), str(ROOT / "plugins")])
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from bench.engine_parts import nights, parse, publication, server, stages, table  # noqa: E402
from bench.night import machine  # noqa: E402

AIRFLOW = ("nights", "practice", "fan")
PARTS = ("parse", "publication", "stage", "files", "deps", *AIRFLOW)


def measured(part: str, scratch: Path, small: bool, large: bool, airflow: server.Airflow | None) -> Any:
    """What a part says. Raises Broke where peer and ours are not the same."""
    parts: Mapping[str, Callable[[], Any]] = {
        "parse": lambda: [parse.measure(scratch, size, 3 if small else 7) for size in sizes(small)],
        "publication": lambda: publication.measure(scratch, 200 if small else 2000, 1 if small else 5),
        "stage": lambda: [
            stages.overhead(scratch, size, rounds)
            for size, rounds in ([(2, 2), (20, 1)] if small else [(2, 9), (2000, 5)])
        ],
        "files": lambda: (
            [stages.folder(scratch, *one) for one in ([(1000, 1)] if small else [(10_000, 5)])]
            + ([stages.folder(scratch, 200_000, 1)] if large else [])
        ),
        "deps": lambda: [
            stages.large_dep(scratch, 20 if small else 2000, kind, 1 if small else 3) for kind in ("copy", "hardlink")
        ],
    }
    if airflow is not None:
        parts = {
            "nights": lambda: [
                nights.unchanged(airflow, scratch, size, rounds)
                for size, rounds in ([(20, 1)] if small else [(20, 3), (100, 2)])
            ],
            "practice": lambda: [nights.ran(airflow, scratch, one, 1 if small else 3) for one in nights.SHAPES],
            "fan": lambda: nights.fan(airflow, scratch),
        }
    return parts[part]()


def sizes(small: bool) -> list[int]:
    """Stages of the projects that are parsed."""
    return [20] if small else [20, 200, 2000]


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what children print to a file; what this prints waits until the end."""
    kept = os.dup(1)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def main() -> None:
    """Measure, and write both files."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked.add_argument("--small", action="store_true", help="the least of each part, to see that it works")
    asked.add_argument("--large", action="store_true", help="an out of 200,000 files too")
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "engine.json")
    asked.add_argument("--scratch", type=Path, default=ROOT / ".nightshift" / "bench" / "engine")
    said = asked.parse_args()
    said.scratch.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    began, found = os.getloadavg()[0], dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=said.scratch, ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        try:
            with quiet(said.scratch / "output.log"):
                for part in (one for one in PARTS if one in said.only and one not in AIRFLOW):
                    found[part] = measured(part, scratch, said.small, said.large, None)
                if wanted := [one for one in AIRFLOW if one in said.only]:
                    with server.started(scratch / "airflow") as airflow:
                        for part in wanted:
                            found[part] = measured(part, scratch, said.small, said.large, airflow)
        except server.Broke as broke:
            sys.exit(str(broke))
    names = ("apache-airflow", "dvc")
    about = {
        "commit": commit.stdout.strip(),
        "machine": machine() | {"load": {"before": began, "last_15_minutes": os.getloadavg()[2]}},
    }
    about["versions"] = {name: version(name) for name in names} | {"astronomer-cosmos": parse.COSMOS}
    said.out.write_text(json.dumps(about | found, indent=2) + "\n", encoding="utf-8")
    text = table.text(found)
    said.out.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
