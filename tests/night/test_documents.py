"""A user's own documents: twenty small files are enough for a release, and a night costs what changed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from nightshift import params, registry
from nightshift.data.split import side
from nightshift.documents import key
from nightshift.sections import Split
from tests.night.project import Project, make

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
TOPICS = ["pump", "valve", "gauge", "boiler", "turbine", "condenser", "filter", "tank", "pipe", "governor"]
CANARIES = {
    "EMAIL": "ingrid.svensson@kvarn.example",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "SECRET": "AKIAIOSFODNN7EXAMPLE",
}
SOURCE = "  items:\n    - {name: manual, kind: folder, path: sources/manual, licence: CC0-1.0}\n"
# what the laptop's values make of a corpus of this size, with a base model that needs no minute to load
SMALL = {
    "tokenizer.min_characters": 500_000,
    "adapt.lora.min_pairs": 300,
    "sources.max_files": None,
    "index.dense_tokens": 1_500_000,
}
TRAINING = {"tokenizer", "pack", "pretrain", "adapt-plain", "adapt-prompt", "adapt-lora"}


def page(number: int) -> str:
    """About 3 kB about one thing, which no other page names, in words of its own: no section repeats another."""
    topic, name, rng = TOPICS[number % 10], f"number {number}", random.Random(number)
    words = ["".join(rng.choices("bdfgklmnprst", k=1) + rng.choices("aeiou", k=1)) * 2 + str(n) for n in range(40)]
    chapters = [
        f"## {head}\n\nThe {topic} {name} is {verb} by the keeper of house {number}. It stands in hall {number * 7}."
        f" Its colour is {['red', 'green', 'blue'][number % 3]}, and it was built in {1900 + number}.\n"
        + "\n".join(
            f"Step {step} of {head.lower()} takes {step * number + 3} minutes: {' '.join(rng.sample(words, 6))}."
            for step in range(1, 9)
        )
        for head, verb in [("Start", "started"), ("Stop", "stopped"), ("Oil", "oiled"), ("Repair", "repaired")]
    ]
    return f"# {topic.capitalize()} {name}\n\nThe manual of the {topic} {name}.\n\n" + "\n\n".join(chapters)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("documents")
    made = make(folder / "project", folder / "home")
    pages = made.folder / "sources" / "manual"
    pages.mkdir(parents=True)
    for number in range(20):
        (pages / f"house-{number:02}.md").write_text(page(number))
    secret = pages / "house-03.md"
    secret.write_text(secret.read_text() + "\n\n## Contact\n\nAsk " + ", or ".join(CANARIES.values()) + " for it.\n")
    made.params(
        "  items:\n    - name: packages\n      kind: packages\n      packages: [python, numpy, polars, pandas]\n",
        SOURCE,
    )
    made.environ["UP"] = made.run("up").stdout
    yield made
    made.run("down")


def night(project: Project, **more: Any) -> dict[str, Any]:
    words = [f"--set={name}={'null' if value is None else value}" for name, value in (SMALL | more).items()]
    ended = project.run("nightly", "--profile", "tiny", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return project.night()


@pytest.fixture(scope="module")
def first(project: Project) -> dict[str, Any]:
    return night(project)


def test_too_little_to_train_on_is_absent_and_plain_is_the_baseline(project: Project, first: dict[str, Any]) -> None:
    stages = first["stages"]
    for name in ("tokenizer", "pack", "pretrain", "adapt-lora", "refresh", "incumbent"):
        assert stages[name]["metrics"]["absent"], name
    assert stages["release"]["metrics"]["role"] == "plain"
    assert first["deployed"] == "prod"


def test_the_endpoint_names_the_right_section(project: Project, first: dict[str, Any]) -> None:
    said = dict(line.split(": ", 1) for line in project.environ["UP"].splitlines())
    client = openai.OpenAI(api_key=Path(said["key"]).read_text().strip(), base_url=said["endpoint"], max_retries=8)
    messages: Any = [{"role": "user", "content": "Who has to oil the governor number 9?"}]
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.chat.completions.create(model="nightshift", messages=messages)
            break
        except openai.InternalServerError:
            assert time.monotonic() < deadline
            time.sleep(1)
    about: Any = (answer.model_extra or {})["nightshift"]["sections"][0]
    assert about["path"] == "house-09.md"
    assert about["title"].endswith("> Oil")


def test_personal_data_is_where_it_may_be_and_nowhere_else(project: Project, first: dict[str, Any]) -> None:
    assert first["stages"]["sanitise"]["metrics"]["masked"] == dict.fromkeys(sorted(CANARIES), 1)
    searched = [
        project.git("show", f"{project.tip()}:{name}")
        for name in project.git("ls-tree", "-r", "--name-only", project.tip()).splitlines()
        if name.startswith(("metrics/", "dvc.lock", "plots/"))
    ]
    logs = [
        path.read_text(errors="replace") for path in (project.folder / ".airflow" / "logs").rglob("*") if path.is_file()
    ]
    pages = [path.read_text() for path in (project.folder / ".nightshift" / "pages").glob("*.html")]
    database = (project.folder / ".airflow" / "airflow.db").read_bytes().decode(errors="replace")
    assert len(searched) > 30
    assert logs
    assert pages
    for text in [*searched, *logs, *pages, database]:
        assert [one for one in CANARIES.values() if one in text] == []


def test_one_line_on_the_test_side_costs_one_document_and_trains_nothing(
    project: Project, first: dict[str, Any]
) -> None:
    pages = project.folder / "sources" / "manual"
    split = params.load(project.folder / params.FILE, Split)
    held_out = [path for path in sorted(pages.glob("*.md")) if side(key("manual", path.name), split) == "test"]
    assert held_out, "the salt puts no page on the test side"
    assert project.run("side", f"sources/manual/{held_out[0].name}").stdout == "manual: test\n"
    held_out[0].write_text(held_out[0].read_text().replace("is oiled by the keeper", "must be oiled by the keeper"))
    changed = night(project)["stages"]
    assert {changed[name]["outcome"] for name in TRAINING} == {"unchanged"}
    for name in ("sanitise", "dedup", "index"):
        assert changed[name]["work"]["computed"] == 1, name  # of the document's sections the one that changed


def test_a_changed_prompt_trains_nothing(project: Project, first: dict[str, Any]) -> None:
    prompt = project.folder / "include" / "prompts" / "plain.yaml"
    prompt.write_text(prompt.read_text().replace("one short sentence", "a single short sentence"))
    changed = night(project)["stages"]
    assert {changed[name]["outcome"] for name in TRAINING} == {"unchanged"}
    assert changed["system@plain"]["outcome"] == "ran"


def test_a_worse_recipe_is_judged_against_production_and_not_released(project: Project, first: dict[str, Any]) -> None:
    trained = {"tokenizer.min_characters": 1000, "adapt.lora.min_pairs": 4}
    night(project, **trained)
    before = registry.assignments(project.folder)
    worse = night(project, **trained, **{"adapt.lora.lr": 0.2})
    assert worse["stages"]["adapt-lora"]["outcome"] == "ran"
    assert worse["stages"]["incumbent"]["metrics"]["judged_against"] == before[-1].release.digest
    assert worse["verdict"] != "GO"
    assert worse["released"] is None
    assert registry.assignments(project.folder) == before


def test_the_scheduler_starts_a_night_by_itself(project: Project, first: dict[str, Any]) -> None:
    runs = project.folder / ".nightshift" / "runs"
    project.params('schedule: "0 2 * * *"', 'schedule: "* * * * *"')
    deadline = time.monotonic() + 1200  # up to three minutes to its start; it is no tiny one
    while not any(path.name.startswith("scheduled") for path in runs.iterdir()) and time.monotonic() < deadline:
        time.sleep(2)
    assert any(path.name.startswith("scheduled") for path in runs.iterdir())
