"""How long Airflow takes over one DAG file: ours, one of the same shape by hand, and Cosmos's of the same models.

What is equal between ours and the one by hand is compared first: ids, edges, groups, outlets, texts, params. That one
is loops and BashOperators, with Airflow's BashOperator imported before, as the DAG processor does. Ours is a plugin of
Airflow's, and so is Cosmos: both are imported before; "no plugin" is ours where it is imported at each parse. Cosmos
renders the same stages as models from a manifest (LoadMode.DBT_MANIFEST, no tests); it has no pin, publish and end, no
groups and no outlets at this point, and so less to make.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts import projects

COSMOS = "1.15.1"  # the newest of 2026-11, and it takes Airflow 3.3.2
# what it needs and the lock does not have; virtualenv it needs for another way of running dbt
WANTED = ["aenum==3.1.17", "deprecation==2.1.0", "openlineage-integration-common", "openlineage-sql"]
SAME = ("tasks", "edges", "groups", "outlets", "texts", "params")
HERE = Path(__file__).resolve().parent


class Parser:
    """A process that parses one file whenever it is asked."""

    def __init__(self, python: Path, file: Path, scratch: Path, plugins: Path = projects.HERE / "plugins") -> None:
        around = {**os.environ, "AIRFLOW_HOME": str(scratch / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        around |= {"PYTHONPATH": str(projects.HERE / "plugins"), "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins)}
        words = [str(python), str(HERE / "processor.py"), str(file)]
        with (scratch / "parsers.log").open("ab") as log:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self.process = subprocess.Popen(words, text=True, env=around, cwd=scratch, **pipes)

    def ask(self, what: str) -> dict[str, Any]:
        """One parse; ends the script where the file cannot be parsed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).startswith("{"):
            if not line:
                sys.exit(f"{self.process.args} ended; read parsers.log")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            sys.exit(f"{self.process.args}: {said['error']}")
        return said

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def environment(scratch: Path) -> Path:
    """The Python of an environment that has Cosmos and, below it, this environment's packages."""
    python, uv = scratch / "cosmos" / "bin" / "python", str(Path(sys.executable).with_name("uv"))
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, scratch / "cosmos"], check=True)
        site = next(scratch.glob("cosmos/lib/*/site-packages"))
        site.joinpath("below.pth").write_text(next(one for one in sys.path if one.endswith("site-packages")) + "\n")
        wanted = [f"astronomer-cosmos=={COSMOS}", *WANTED]
        subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *wanted], check=True)
    return python


def written(folder: Path, name: str, text: str) -> Path:
    """A DAG file in a folder of its own."""
    folder.mkdir(parents=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    return file


def measure(scratch: Path, stages: int, rounds: int) -> dict[str, Any]:
    """One size: medians of the seconds of first and of later parses, and what they are of each other."""
    blocks, here = stages // projects.BLOCK, scratch / f"parse-{stages}"
    root = projects.made(here / "project", projects.tree(blocks), projects.tree_params(blocks))
    models = projects.dbt(here / "dbt", blocks)
    about = {"dag": "night", "blocks": blocks}
    ours = written(here / "ours", "ours", projects.OURS.format(root=str(root), **about))
    by_hand = written(here / "hand", "hand", projects.BY_HAND.format(root=str(root), **about))
    cosmos = written(here / "cosmos", "cosmos_dag", projects.COSMOS.format(root=str(models), **about))
    python = Path(sys.executable)
    parsers = {
        "ours": Parser(python, ours, scratch),
        "by hand": Parser(python, by_hand, scratch),
        "cosmos": Parser(environment(scratch.parent), cosmos, scratch),
        "no plugin": Parser(python, ours, scratch, scratch / "no_plugins"),
    }
    shapes = {name: one.ask("describe") for name, one in parsers.items()}
    refuse_others(shapes, blocks)

    def forget(name: str) -> None:
        """What was kept of an earlier parse."""
        shutil.rmtree(root / ".dvc" / "tmp" / "projects", ignore_errors=True)
        for folder in (ours, by_hand, cosmos):
            shutil.rmtree(folder.parent / "__pycache__", ignore_errors=True)

    first = rounds_of(parsers, max(3, rounds // 3), "time", forget)
    cached = rounds_of(parsers, rounds, "time")
    for one in parsers.values():
        one.stop()
    found = {
        "tasks": len(shapes["ours"]["tasks"]),
        "edges": len(shapes["ours"]["edges"]),
        "first_s": medians(first, "seconds"),
        "cached_s": medians(cached, "seconds"),
        "cached_cpu_s": medians(cached, "cpu_seconds"),
        "serialised_bytes": {name: one["serialised_bytes"] for name, one in shapes.items()},
    }
    for kind, took in (("first", first), ("cached", cached)):
        for peer in ("by hand", "cosmos"):
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(took["ours"], took[peer], strict=True)]
            found[f"{kind}_times_{peer.replace(' ', '_')}"] = round(median(ratios), 3)
    return found


def rounds_of(
    parsers: dict[str, Parser], rounds: int, how: str, before: Callable[[str], None] = lambda _: None
) -> dict[str, list[dict[str, float]]]:
    """What each says, in turns, after one that does not count."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in parsers}
    for number in range(rounds + 1):
        for name, one in parsers.items():
            before(name)
            said = one.ask(how)
            took[name] += [said] if number else []
    return took


def medians(took: dict[str, list[dict[str, float]]], part: str) -> dict[str, float]:
    """Of each parser."""
    return {name: round(median(one[part] for one in said), 4) for name, said in took.items()}


def refuse_others(shapes: dict[str, dict[str, Any]], blocks: int) -> None:
    """End the script where the peers do not make the same."""
    ours, by_hand, cosmos = (shapes[name] for name in ("ours", "by hand", "cosmos"))
    for part in SAME:
        if ours[part] != by_hand[part]:
            sys.exit(f"the DAG by hand has other {part} than ours at {blocks} blocks; mend BY_HAND in projects.py")
    wanted = sorted([f"{one}_run", f"{name}_run"] for name, above in projects.edges(blocks).items() for one in above)
    if [[a.rpartition(".")[2], b.rpartition(".")[2]] for a, b in cosmos["edges"]] != wanted:
        sys.exit(f"Cosmos's DAG has other edges than the models at {blocks} blocks; look at its manifest")
    inner = [pair for pair in ours["edges"] if not {"pin", "publish", "end"} & set(pair)]
    if len(inner) != len(wanted):
        sys.exit(f"ours has {len(inner)} edges between stages, and Cosmos {len(wanted)} between models")
