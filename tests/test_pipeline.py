"""dvc.yaml tells the truth: deps, params and libraries of every stage are those of its module."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from ruamel.yaml import YAML

from nightshift import params
from nightshift.params import Section
from nightshift.release import incumbent
from nightshift.versions import LIBRARIES

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
# modules that can change no byte of an out: how files are written, read, kept and reported
PLUMBING = {
    "errors",
    "checkout",
    "commit",
    "objects",
    "memo",
    "deployment",
    "params",
    "sections",
    "sources",
    "serving",
    "watching",
    "stage",
    "storage",
    "checkpoint",
    "port",
    "guard",
    "workers",
}
STAGES: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# import name → distribution, where they differ
DISTRIBUTION = {
    "markdown_it": "markdown-it-py",
    "great_expectations": "great-expectations",
}
# libraries that carry bytes from here to there, or run after the out is made
CARRIERS = {
    "pydantic",
    "ruamel",
    "httpx",
    "huggingface_hub",
    "boto3",
    "botocore",
    "dvc",
    "dvc_data",
    "starlette",
    "uvicorn",
    "model_signing",
}


def module(stage: str) -> str:
    return str(STAGES[stage]["cmd"]).split()[2]


def file(name: str) -> Path | None:
    path = INCLUDE / Path(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


@cache
def imports(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Modules of ours and packages of others that a module imports, anywhere in it."""
    path = file(name)
    assert path is not None
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [
                f"{node.module}.{one.name}" if file(f"{node.module}.{one.name}") else node.module for one in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        for one in names:
            (ours if one.startswith("nightshift") else others).add(
                one if one.startswith("nightshift") else one.split(".")[0]
            )
    return frozenset(one for one in ours if file(one)), frozenset(others)


def closure(name: str) -> set[str]:
    """A module and all of ours that it imports, plumbing left out."""
    seen, todo = {name}, [name]
    while todo:
        for one in imports(todo.pop())[0]:
            if one.removeprefix("nightshift.") not in PLUMBING and one not in seen:
                seen.add(one)
                todo.append(one)
    return seen


def sections(name: str) -> set[str]:
    """Names of the sections that a stage's `run` is given."""
    hints = get_type_hints(importlib.import_module(name).run).values()
    return {one.name for one in hints if inspect.isclass(one) and issubclass(one, Section)}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_modules_that_it_imports(stage: str) -> None:
    wanted = {str(path.relative_to(ROOT)) for one in closure(module(stage)) if (path := file(one))}
    named = {dep for dep in STAGES[stage]["deps"] if dep.startswith("include/nightshift/")}
    assert named == wanted


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_sections_that_it_loads(stage: str) -> None:
    named = {one for one in STAGES[stage]["params"] if isinstance(one, str)}
    assert named == sections(module(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_libraries_that_it_computes_with_are_in_its_versions(stage: str) -> None:
    packages = [key for one in STAGES[stage]["params"] if isinstance(one, dict) for key in one["versions.json"]]
    known = {library for package in packages for library in LIBRARIES[package]}
    used = {one for name in closure(module(stage)) for one in imports(name)[1]} - CARRIERS
    used = {DISTRIBUTION.get(one, one) for one in used if one not in sys.stdlib_module_names}
    assert used <= known


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_a_command_is_named_as_dep_or_out(stage: str) -> None:
    said = STAGES[stage]
    named = {*said["deps"], *said["outs"], *(path for one in said.get("plots", []) for path in one)}
    words = [word for word in str(said["cmd"]).split()[3:] if "/" in word or "." in word]
    assert [word for word in words if word not in named and not word.startswith("${")] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does_where_it_runs_and_how_exact_it_is(stage: str) -> None:
    said = STAGES[stage]
    assert said["desc"]
    assert said["meta"].get("airflow", {}).get("pool") == "cpu" or said.get("always_changed")
    exact = said["meta"]["determinism"] == "exact"
    torch = any("torch" in imports(one)[1] for one in closure(module(stage)))
    assert not exact or not torch or module(stage).endswith((".select", ".gate", ".system"))
    assert [one for one in said["metrics"] for value in one.values() if value != {"cache": False}] == []
    assert inspect.getdoc(importlib.import_module(module(stage)))


def test_every_stage_module_is_a_stage_and_the_other_way_round() -> None:
    marked = {
        ".".join(path.relative_to(INCLUDE).with_suffix("").parts)
        for path in (INCLUDE / "nightshift").rglob("*.py")
        if "\n    stage.main(run)\n" in path.read_text()
    }
    assert marked == {module(stage) for stage in STAGES}


def test_every_section_is_read_by_a_stage_or_by_what_runs_beside_it() -> None:
    read = {name for stage in STAGES for name in sections(module(stage))}
    beside = {one.partition(".")[0] for one in set(params.sections()) - read}
    assert beside == set(incumbent.BESIDE)  # they are no part of the recipe either
    # another limit of the endpoint reruns nothing; another engine is judged anew
    assert {one for one in read if one.partition(".")[0] in beside} == {"serve.engine"}


def test_every_profile_holds_the_same_keys() -> None:
    said = YAML(typ="safe").load((ROOT / "params.yaml").read_text())

    def keys(value: Any, above: str = "") -> set[str]:
        if not isinstance(value, dict) or "kind" in value:
            return {above}
        return {one for key, inner in value.items() for one in keys(inner, f"{above}.{key}")}

    assert len({frozenset(keys(overlay)) for overlay in said["profiles"].values()}) == 1


def test_the_lifecycle_packages_do_not_import_one_another() -> None:
    packages = ("data", "pretrain", "base", "adapt", "evaluate", "release", "serve", "watch", "integrations")
    wrong = []
    for path in (INCLUDE / "nightshift").rglob("*.py"):
        name = ".".join(path.relative_to(INCLUDE).with_suffix("").parts)
        own = name.split(".")[1]
        if own in packages:
            wrong += [
                (name, one) for one in imports(name)[0] if one.split(".")[1] in packages and one.split(".")[1] != own
            ]
    assert wrong == []


def test_heavy_packages_are_imported_only_inside_stages() -> None:
    heavy = ["torch", "transformers", "deepspeed", "great_expectations", "peft", "airflow", "dvc", "polars"]
    code = f"import sys, nightshift.cli; print([one for one in {heavy} if one in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_files_are_short_and_described() -> None:
    for path in [*(INCLUDE / "nightshift").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        assert ast.get_docstring(ast.parse(text)), path


def test_versions_are_the_locks() -> None:
    from nightshift.versions import table

    assert json.loads((ROOT / "versions.json").read_text()) == table((ROOT / "requirements.txt").read_text())


def test_what_is_evaluated_is_judged_by_the_same_metrics() -> None:
    named = [
        [word for word in str(STAGES[stage]["cmd"]).split() if word.startswith("include/evals/")]
        for stage in ("evaluate", "judge")
    ]
    assert named[0] == named[1]
