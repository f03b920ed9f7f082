"""Whole runs in a real Airflow: a night with nothing changed beside empty tasks, stages beside the usual practice, and
a fan-out.

Peer and ours run in the same Airflow, one after the other, in turns; a run's time is Airflow's own, from the trigger to
the end. The usual practice is one BashOperator a stage that runs `dvc repro -s STAGE` in one shared checkout, one at a
time, since DVC's lock would fail the others, and a last one that commits what they made, as a night of ours does. Of
both a first run does not count.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts import projects
from bench.engine_parts.server import Airflow, Broke, Run, Watch
from ruamel.yaml import YAML

from dvc_engine.git import git
from dvc_engine.pipeline import reading

SLEEP_S = 1.0  # of a stage that is run: it waits, as one does for a GPU or for a server, and takes no core
PARALLEL, CHAIN, MATRIX = 12, 6, 100
OURS_ALONE = ("pin", "publish", "end")
NO_STAGES = (*OURS_ALONE, "commit")

EMPTY = """\
import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, BaseOperator, TaskGroup


class Nothing(BaseOperator):
    def execute(self, context):
        return "unchanged"


shape = json.loads(Path({shape!r}).read_text())
with DAG({dag!r}, schedule=None, catchup=False, max_active_runs=1):
    groups, made = {{}}, {{}}
    for name, (above, rule) in shape.items():
        group, _, item = name.rpartition(".")
        if group and group not in groups:
            groups[group] = TaskGroup(group)
        more = {{"task_group": groups[group]}} if group else {{}}
        made[name] = Nothing(task_id=item, trigger_rule=rule, retries=2, retry_delay=timedelta(seconds=5), **more)
    for name, (above, rule) in shape.items():
        made[name].set_upstream([made[one] for one in above])
"""

USUAL = """\
import json
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

stages = json.loads(Path({stages!r}).read_text())
with DAG({dag!r}, schedule=None, catchup=False, max_active_runs=1, max_active_tasks=1):
    made = {{
        name: BashOperator(task_id=name, bash_command=f"cd {root} && dvc repro -q -s {{name}}") for name in stages
    }}
    for name, above in stages.items():
        made[name].set_upstream([made[one] for one in above])
    commit = BashOperator(task_id="commit", bash_command="cd {root} && git add -A && git commit -qm Night")
    commit.set_upstream(list(made.values()))
"""


def unchanged(airflow: Airflow, scratch: Path, stages: int, rounds: int) -> dict[str, Any]:
    """A night with nothing changed, and the same tasks with nothing to do."""
    blocks, dag = stages // projects.BLOCK, f"ours{stages}"
    root = projects.made(scratch / dag, projects.tree(blocks), projects.tree_params(blocks))
    airflow.write(dag, projects.OURS.format(dag=dag, root=str(root)), stages + len(OURS_ALONE))
    listed = airflow.request("GET", f"dags/{dag}/tasks")["tasks"]
    above: dict[str, list[str]] = {one["task_id"]: [] for one in listed}
    for one in listed:
        for below in one["downstream_task_ids"]:
            above[below].append(one["task_id"])
    shape = {one["task_id"]: (above[one["task_id"]], one["trigger_rule"]) for one in listed}
    empty = f"empty{stages}"
    place = scratch / f"{empty}.json"
    place.write_text(json.dumps(shape))
    airflow.write(empty, EMPTY.format(dag=empty, shape=str(place)), len(shape))
    again = airflow.request("GET", f"dags/{empty}/tasks")["tasks"]
    if {one["task_id"]: set(one["downstream_task_ids"]) for one in again} != {
        one["task_id"]: set(one["downstream_task_ids"]) for one in listed
    }:
        raise Broke(f"{empty} has other edges than {dag}")
    first = airflow.run(dag)
    airflow.run(empty)
    took: dict[str, list[Run]] = {dag: [], empty: []}
    for _ in range(rounds):
        for name in took:
            took[name].append(airflow.run(name))
        others = {one["outcome"] for one in told(root)["stages"].values()} - {"unchanged"}
        if others:
            raise Broke(f"a night with nothing changed had stages that were {', '.join(others)}")
    seconds = {name: [one.seconds for one in runs] for name, runs in took.items()}
    ratios = [a / b for a, b in zip(seconds[dag], seconds[empty], strict=True)]
    return {
        "stages": stages,
        "first_s": round(first.seconds, 2),
        "ours_s": [round(one, 2) for one in seconds[dag]],
        "empty_s": [round(one, 2) for one in seconds[empty]],
        "ours_median_s": round(median(seconds[dag]), 2),
        "empty_median_s": round(median(seconds[empty]), 2),
        "times": round(median(ratios), 3),
        "cpu_s": {
            "ours": round(median(one.cpu_seconds for one in took[dag]), 2),
            "empty": round(median(one.cpu_seconds for one in took[empty]), 2),
        },
        "task_s": {
            "ours": round(median(task_seconds(took[dag])), 3),
            "empty": round(median(task_seconds(took[empty])), 3),
        },
        "ends_s": {one: round(median(run.task_seconds(one) for run in took[dag]), 3) for one in OURS_ALONE},
        "empty_end_s": round(median(run.task_seconds("end") for run in took[empty]), 3),
    }


def task_seconds(runs: list[Run]) -> list[float]:
    """Of every stage's task of these runs."""
    return [run.task_seconds(one) for run in runs for one in run.tasks if one not in NO_STAGES]


def told(root: Path) -> dict[str, Any]:
    """night.json of the newest night of a project."""
    places = (root / ".dvc" / "tmp" / "runs").rglob("night.json")
    said: dict[str, Any] = json.loads(max(places, key=lambda one: one.stat().st_mtime).read_text())
    return said


def sleepers(chain: bool) -> dict[str, Any]:
    """Stages that wait a second each, side by side or one after another."""
    made: dict[str, Any] = {}
    for n in range(CHAIN if chain else PARALLEL):
        read = f"out-{n - 1}" if chain and n else "seed.txt"
        cmd = f"sleep {SLEEP_S:g} && cp {read} out-{n}"
        made[f"stage-{n}"] = {"cmd": cmd, "deps": [read], "outs": [f"out-{n}"]}
    return made


def ran(airflow: Airflow, scratch: Path, chain: bool, rounds: int) -> dict[str, Any]:
    """Stages that run: ours, and the usual practice in a checkout of the same project."""
    kind, stages = ("chain" if chain else "side-by-side"), sleepers(chain)
    dag, usual = f"ours-{kind}", f"usual-{kind}"
    roots = {name: projects.made(scratch / name, stages) for name in (dag, usual)}
    airflow.write(dag, projects.OURS.format(dag=dag, root=str(roots[dag])), len(stages) + len(OURS_ALONE))
    known = reading.read(roots[usual])
    place = scratch / f"{usual}.json"
    place.write_text(json.dumps({name: known.upstream(name) for name in known.stages}))
    airflow.write(usual, USUAL.format(dag=usual, root=str(roots[usual]), stages=str(place)), len(stages) + 1)
    took: dict[str, list[Run]] = {dag: [], usual: []}
    for number in range(rounds + 1):
        for name, root in roots.items():
            (root / "seed.txt").write_text(f"{time.time_ns()} {number}\n" if name == dag else seed(roots[dag]))
            subprocess.run(["git", "commit", "-qam", "Another seed"], cwd=root, check=True)
            run = airflow.run(name)
            took[name] += [run] if number else []  # in the first of ours DVC reads the project
        refuse_others(roots[dag], roots[usual])
    seconds = {name: [one.seconds for one in runs] for name, runs in took.items()}
    ratios = [b / a for a, b in zip(seconds[dag], seconds[usual], strict=True)]
    over = {name: [one - SLEEP_S for one in task_seconds(runs)] for name, runs in took.items()}
    return {
        "kind": kind.replace("-", " "),
        "stages": len(stages),
        "cpu_s": {
            "ours": round(median(one.cpu_seconds for one in took[dag]), 2),
            "usual": round(median(one.cpu_seconds for one in took[usual]), 2),
        },
        "ours_median_s": round(median(seconds[dag]), 2),
        "usual_median_s": round(median(seconds[usual]), 2),
        "ours_s": [round(one, 2) for one in seconds[dag]],
        "usual_s": [round(one, 2) for one in seconds[usual]],
        "times_faster": round(median(ratios), 3),
        "task_over_its_command_s": {"ours": round(median(over[dag]), 3), "usual": round(median(over[usual]), 3)},
    }


def seed(root: Path) -> str:
    return (root / "seed.txt").read_text()


def refuse_others(ours: Path, usual: Path) -> None:
    """Raises Broke where the two have other lock entries."""
    shown = git(ours, "show", "dvc-airflow:dvc.lock")
    yaml = YAML(typ="safe")
    if yaml.load(shown)["stages"] != yaml.load(git(usual, "show", "HEAD:dvc.lock"))["stages"]:
        raise Broke(f"{ours} and {usual} have other lock entries")


def fan(airflow: Airflow, scratch: Path) -> dict[str, Any]:
    """A matrix of a hundred items, all of which run, and then none: time and memory."""
    cells: Mapping[str, Any] = {"matrix": {"a": list(range(10)), "b": list(range(MATRIX // 10))}}
    name = "${item.a}-${item.b}"
    body = {"cmd": f"cp seed.txt out-{name}", "deps": ["seed.txt"], "outs": [f"out-{name}"]}
    root = projects.made(scratch / "fan", {"cell": {**cells, **body}})
    airflow.write("fan", projects.OURS.format(dag="fan", root=str(root)), MATRIX + len(OURS_ALONE))
    said: dict[str, Any] = {"stages": MATRIX}
    for kind in ("ran", "unchanged"):
        watch = Watch(airflow.process.pid)
        run = airflow.run("fan", watch)
        outcomes = {one["outcome"] for one in told(root)["stages"].values()}
        if outcomes != {kind}:
            raise Broke(f"the fan-out was {', '.join(outcomes)}, and should be {kind}")
        said[f"{kind}_s"] = round(run.seconds, 2)
        said[f"{kind}_task_s"] = round(median(task_seconds([run])), 3)
        said[f"{kind}_mb"] = {one: round(held / 1e6) for one, held in watch.most.items()}
    return said
