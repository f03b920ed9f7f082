"""Whole runs in a real Airflow: a night with nothing changed beside empty tasks, stages beside the usual practice, and
a fan-out.

Peer and ours run in the same Airflow, one after the other, in turns; a run's time is Airflow's own, from when its
scheduler saw it to the end. The usual practice is one BashOperator a stage that runs `dvc repro -s STAGE` in one shared
checkout, one at a time, since DVC's lock would fail the others, and a last one that takes what they made to DVC's
remote and commits it, as a night of ours does. Of both a first run does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
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
TREE = 2  # blocks of ten stages
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
        name: BashOperator(task_id=name.replace("@", "-"), bash_command=f"cd {root} && dvc repro -q -s {{name}}")
        for name in stages
    }}
    for name, above in stages.items():
        made[name].set_upstream([made[one] for one in above])
    last = "cd {root} && dvc push -q && git add -A && git commit -qm Night"
    commit = BashOperator(task_id="commit", bash_command=last)
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


def side_by_side() -> dict[str, Any]:
    """Stages that rest on no other."""
    return {
        f"stage-{n}": {"cmd": f"cp seed.txt out-{n}", "deps": ["seed.txt"], "outs": [f"out-{n}"]}
        for n in range(PARALLEL)
    }


def tree() -> dict[str, Any]:
    """A pipeline as projects have it: some stages side by side, some one after another."""
    return projects.tree(TREE)


def chain() -> dict[str, Any]:
    """Stages of which each rests on the one before."""
    read = ["seed.txt", *(f"out-{n}" for n in range(CHAIN))]
    return {
        f"stage-{n}": {"cmd": f"cp {read[n]} out-{n}", "deps": [read[n]], "outs": [f"out-{n}"]} for n in range(CHAIN)
    }


SHAPES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "side by side": side_by_side,
    "in a tree": tree,
    "in a chain": chain,
}


def slowly(stages: Mapping[str, Any]) -> dict[str, Any]:
    """The same stages, each of which waits first."""
    found: dict[str, Any] = {}
    for name, body in stages.items():
        one = body.get("do", body)
        one = {**one, "cmd": f"sleep {SLEEP_S:g} && {one['cmd']}"}
        found[name] = {**body, "do": one} if "do" in body else one
    return found


def ran(airflow: Airflow, scratch: Path, shape: str, rounds: int) -> dict[str, Any]:
    """Stages that run: ours, and the usual practice in a checkout of the same project."""
    kind, made = shape.replace(" ", "-"), slowly(SHAPES[shape]())
    dag, usual = f"ours-{kind}", f"usual-{kind}"
    roots = {name: projects.made(scratch / name, made, projects.tree_params(TREE)) for name in (dag, usual)}
    for name, root in roots.items():
        stored(root, scratch / f"{name}-remote")
    known = reading.read(roots[usual])
    airflow.write(dag, projects.OURS.format(dag=dag, root=str(roots[dag])), len(known.stages) + len(OURS_ALONE))
    place = scratch / f"{usual}.json"
    place.write_text(json.dumps({name: known.upstream(name) for name in known.stages}))
    airflow.write(usual, USUAL.format(dag=usual, root=str(roots[usual]), stages=str(place)), len(known.stages) + 1)
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
        "kind": shape,
        "stages": len(known.stages),
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


def stored(root: Path, remote: Path) -> None:
    """Give a project a remote of DVC's."""
    words = [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", str(remote)]
    subprocess.run(words, cwd=root, check=True)
    subprocess.run(["git", "commit", "-qam", "A remote"], cwd=root, check=True)


def seed(root: Path) -> str:
    return (root / "seed.txt").read_text()


def refuse_others(ours: Path, usual: Path) -> None:
    """Raises Broke where the two have other lock entries, or one has taken other bytes to its remote."""
    shown = git(ours, "show", "dvc-airflow:dvc.lock")
    yaml = YAML(typ="safe")
    if yaml.load(shown)["stages"] != yaml.load(git(usual, "show", "HEAD:dvc.lock"))["stages"]:
        raise Broke(f"{ours} and {usual} have other lock entries")
    remotes = [root.with_name(f"{root.name}-remote") for root in (ours, usual)]
    held = [{one.relative_to(each) for one in each.glob("files/md5/*/*")} for each in remotes]
    if not held[0] or held[0] != held[1]:
        raise Broke(f"{' and '.join(map(str, remotes))} hold other objects")


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
