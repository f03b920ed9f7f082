"""DVC projects of one shape at any size, and the same shape as a hand-written DAG and as a dbt project.

A block is ten stages: one prepares, a `foreach` of seven fits, one joins, one reports. Blocks hang on each other as
a binary tree, so that a project of 2,000 stages is 32 deep and no chain. One value of params.yaml is a block's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ITEMS = "abcdefg"
BLOCK = 3 + len(ITEMS)
HERE = Path(__file__).resolve().parents[2]
COMMON = {"seed": 1, "name": "night", "rate": 0.1, "steps": 100}


def tree(blocks: int) -> dict[str, Any]:
    """dvc.yaml of so many blocks."""
    stages: dict[str, Any] = {}
    for n in range(blocks):
        stages[f"prepare-{n}"] = {
            "cmd": f"mkdir -p prepare && cp seed.txt prepare/{n}",
            "deps": ["seed.txt", *([f"join/{(n - 1) // 2}"] if n else [])],
            "params": [f"block.b{n}"],
            "outs": [f"prepare/{n}"],
        }
        stages[f"fit-{n}"] = {
            "foreach": list(ITEMS),
            "do": {
                "cmd": f"mkdir -p fit && cp prepare/{n} fit/{n}-${{item}}",
                "deps": [f"prepare/{n}"],
                "params": ["common.seed"],
                "outs": [f"fit/{n}-${{item}}"],
            },
        }
        stages[f"join-{n}"] = {
            "cmd": f"mkdir -p join && cat fit/{n}-* > join/{n}",
            "deps": [f"fit/{n}-{item}" for item in ITEMS],
            "outs": [f"join/{n}"],
        }
        stages[f"report-{n}"] = {
            "cmd": f"mkdir -p report && echo {{}} > report/{n}.json",
            "deps": [f"join/{n}"],
            "metrics": [{f"report/{n}.json": {"cache": False}}],
        }
    return stages


def made(root: Path, stages: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> Path:
    """A committed DVC project of these stages, with a seed.txt. Raises CalledProcessError."""
    root.mkdir(parents=True)
    # JSON is YAML, and quotes what must be quoted
    lines = [f"  {name}: {json.dumps(body)}" for name, body in stages.items()]
    (root / "dvc.yaml").write_text("\n".join(["stages:", *lines, ""]))
    (root / "params.yaml").write_text("".join(f"{name}: {json.dumps(body)}\n" for name, body in (params or {}).items()))
    (root / "seed.txt").write_text("7\n")
    dvc = [sys.executable, "-m", "dvc", "init", "-q"]
    who = [["git", "config", "user.name", "bench"], ["git", "config", "user.email", "bench@example.org"]]
    for words in [["git", "init", "-q", "-b", "main"], *who, dvc, ["git", "add", "-A"], ["git", "commit", "-qm", "It"]]:
        subprocess.run(words, cwd=root, check=True)
    return root


def tree_params(blocks: int) -> dict[str, Any]:
    """params.yaml of so many blocks."""
    return {"common": COMMON, "block": {f"b{n}": n for n in range(blocks)}}


OURS = """\
from pathlib import Path

from dvc_airflow import DvcDag

made = DvcDag({dag!r}, Path({root!r}), schedule=None)
"""

BY_HAND = '''\
"""The same tasks, edges, groups, outlets, params and texts as the engine makes of the project, by loops."""

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, Param, TaskGroup

ITEMS = "abcdefg"
AGAIN = {{"retries": 2, "retry_delay": timedelta(seconds=5)}}
PARAMS = {{"common.seed": 1, "common.name": "night", "common.rate": 0.1, "common.steps": 100}}
PARAMS |= {{f"block.b{{n}}": n for n in range({blocks})}}
TYPES = {{int: "integer", str: "string", float: "number"}}


def stage(task, name, cmd, deps, out):
    reads, uri = "\\n".join(f"- reads `{{dep}}`" for dep in deps), f"dvc://{dag}/{{out}}"
    return BashOperator(
        task_id=task,
        task_display_name=name,
        bash_command=f"cd {root} && dvc repro -s {{name}}",
        doc_md=f"\\n\\n```\\n{{cmd}}\\n```\\n\\n{{reads}}\\n- makes `{{out}}`",
        outlets=[Asset(name=uri, uri=uri, extra={{"path": out}})],
        **AGAIN,
    )


with DAG({dag!r}, schedule=None, catchup=False, max_active_runs=1, tags=["by hand"]) as made:
    pin = BashOperator(task_id="pin", bash_command="git rev-parse HEAD", **AGAIN)
    joins, lasts = [], []
    for n in range({blocks}):
        above = [joins[(n - 1) // 2]] if n else [pin]
        read = ["seed.txt"] + ([f"join/{{(n - 1) // 2}}"] if n else [])
        cmd = f"mkdir -p prepare && cp seed.txt prepare/{{n}}"
        prepare = stage(f"prepare-{{n}}", f"prepare-{{n}}", cmd, read, f"prepare/{{n}}")
        prepare.set_upstream(above)
        fits = []
        with TaskGroup(f"fit-{{n}}"):
            for item in ITEMS:
                cmd = f"mkdir -p fit && cp prepare/{{n}} fit/{{n}}-{{item}}"
                fits.append(stage(item, f"fit-{{n}}@{{item}}", cmd, [f"prepare/{{n}}"], f"fit/{{n}}-{{item}}"))
        prepare >> fits
        read = [f"fit/{{n}}-{{item}}" for item in ITEMS]
        cmd = f"mkdir -p join && cat fit/{{n}}-* > join/{{n}}"
        join = stage(f"join-{{n}}", f"join-{{n}}", cmd, read, f"join/{{n}}")
        join.set_upstream(fits)
        cmd = f"mkdir -p report && echo {{{{}}}} > report/{{n}}.json"
        report = stage(f"report-{{n}}", f"report-{{n}}", cmd, [f"join/{{n}}"], f"report/{{n}}.json")
        report.set_upstream(join)
        joins.append(join)
        lasts.append(report)
    tasks = list(made.tasks)[1:]
    publish = BashOperator(task_id="publish", bash_command="git commit -am night", **AGAIN)
    publish.set_upstream(lasts)
    end = BashOperator(task_id="end", bash_command="true", trigger_rule="all_done")
    end.set_upstream([publish, *tasks])
made.params = {{key: Param(value, type=TYPES[type(value)]) for key, value in PARAMS.items()}}
'''

COSMOS = """\
# a DAG for Airflow, which passes over a file without these two words
from cosmos import DbtDag, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, LoadMode, TestBehavior

made = DbtDag(
    dag_id={dag!r},
    project_config=ProjectConfig(
        dbt_project_path={root!r}, manifest_path={root!r} + "/manifest.json", project_name="bench"
    ),
    profile_config=ProfileConfig("bench", "dev", profiles_yml_filepath={root!r} + "/profiles.yml"),
    execution_config=ExecutionConfig(execution_mode=ExecutionMode.LOCAL, dbt_executable_path="/bin/true"),
    render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.NONE),
    schedule=None,
)
"""


def dbt(root: Path, blocks: int) -> Path:
    """A dbt project whose models are the tree's stages, and its manifest, as far as Cosmos reads one."""
    (root / "models").mkdir(parents=True)
    (root / "dbt_project.yml").write_text("name: bench\nversion: '1'\nprofile: bench\nmodel-paths: [models]\n")
    (root / "profiles.yml").write_text("bench: {target: dev, outputs: {dev: {type: duckdb, path: 'x.duckdb'}}}\n")
    nodes: dict[str, Any] = {}
    for name, above in edges(blocks).items():
        path = root / "models" / f"{name}.sql"
        path.write_text("select 1\n")
        nodes[f"model.bench.{name}"] = {
            "unique_id": f"model.bench.{name}",
            "name": name,
            "resource_type": "model",
            "package_name": "bench",
            "path": path.name,
            "original_file_path": f"models/{path.name}",
            "depends_on": {"nodes": [f"model.bench.{one}" for one in above], "macros": []},
            "tags": [],
            "config": {"materialized": "table", "tags": [], "meta": {}},
            "meta": {},
            "fqn": ["bench", name],
        }
    about = {"metadata": {"project_name": "bench"}, "nodes": nodes, "sources": {}, "exposures": {}}
    (root / "manifest.json").write_text(json.dumps(about))
    return root


def edges(blocks: int) -> dict[str, list[str]]:
    """Model → the models that it rests on."""
    found: dict[str, list[str]] = {}
    for n in range(blocks):
        found[f"prepare_{n}"] = [f"join_{(n - 1) // 2}"] if n else []
        found |= {f"fit_{n}_{item}": [f"prepare_{n}"] for item in ITEMS}
        found[f"join_{n}"] = [f"fit_{n}_{item}" for item in ITEMS]
        found[f"report_{n}"] = [f"join_{n}"]
    return found
