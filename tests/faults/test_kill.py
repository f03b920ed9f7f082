"""What is killed goes on, and ends at the same bytes: a stage, its clone, or everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.night.project import Project, make

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
# long enough to be met in the middle, short enough to be repeated
LONGER = ["pretrain.tokens=16384", "pretrain.max_epochs=40.0", "adapt.lora.tokens=20000", "adapt.lora.max_epochs=40.0"]
MODULES = {
    "ingest": "nightshift.data.ingest",
    "pretrain": "nightshift.pretrain.pretrain",
    "adapt-lora": "nightshift.adapt.lora",
    "release": "nightshift.release.release",
}
TRAINED = ("pretrain", "adapt-lora")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("faults")
    made = make(folder / "project", folder / "home")
    for words in LONGER:
        key, value = words.rsplit("=", 1)
        section, name = key.rsplit(".", 1)
        assert section
        _set(made.folder / "params.yaml", name, value, section)
    made.git("commit", "-qam", "Train longer")
    yield made
    made.run("down")


def _set(path: Path, name: str, value: str, section: str) -> None:
    """Set a value of the profile `tiny`, or of the section where the profile leaves it alone."""
    from ruamel.yaml import YAML

    yaml = YAML()
    document = yaml.load(path.read_text())
    for place in (document, document["profiles"]["tiny"]):
        for step in section.split("."):
            place = place.get(step, {})
        if name in place:
            place[name] = yaml.load(value)
    with path.open("w") as out:
        yaml.dump(document, out)


def night(project: Project) -> None:
    ended = project.run("nightly", "--profile", "tiny", timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def forget(project: Project) -> None:
    """As if no night had been: no branch, no tags, no cache, no state."""
    project.git("update-ref", "-d", "refs/heads/nightly")
    for tag in project.git("tag").split():
        project.git("tag", "-d", tag)
    shutil.rmtree(project.folder / ".dvc" / "cache")
    shutil.rmtree(project.folder / ".nightshift")


def running(module: str, project: Project) -> list[psutil.Process]:
    """Processes of a stage of this project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if module in words and "python" in Path(words[0]).name and str(project.folder) in (process.info["cwd"] or ""):
            found.append(process)
    return found


def kill_once(stage: str, project: Project, when: Callable[[], bool], killed: dict[str, Path]) -> None:
    """SIGKILL the stage's whole group as soon as it runs and `when` holds, and remove its clone."""
    deadline = time.monotonic() + 800
    while time.monotonic() < deadline and stage not in killed:
        for process in running(MODULES[stage], project):
            try:
                clone = Path(process.cwd())
                group = os.getpgid(process.pid)
                if when():
                    os.killpg(group, signal.SIGKILL)
                    shutil.rmtree(clone, ignore_errors=True)
                    killed[stage] = clone
            except (psutil.Error, ProcessLookupError):
                continue
        time.sleep(0.002)


def test_a_killed_stage_ends_at_the_same_bytes(project: Project) -> None:
    night(project)
    undisturbed = project.lock()
    forget(project)
    killed: dict[str, Path] = {}
    saved = project.folder / ".nightshift" / "checkpoints"

    def has_saved() -> bool:
        return any(saved.glob("*/step-*/manifest.json"))

    threads = [
        threading.Thread(
            target=kill_once,
            args=(stage, project, has_saved if stage in TRAINED else lambda: True, killed),
            daemon=True,
        )
        for stage in MODULES
    ]
    for thread in threads:
        thread.start()
    night(project)
    assert set(killed) == set(MODULES)  # each fault fired
    stages = project.night()["stages"]
    assert {name: stages[name]["attempts"] for name in MODULES} == dict.fromkeys(MODULES, 2)
    assert all(stages[name]["resumed_from"] > 0 for name in TRAINED)
    assert project.lock() == undisturbed


def test_after_everything_was_killed_the_night_goes_on_and_is_published_once(project: Project) -> None:
    if (project.folder / ".nightshift").exists():
        forget(project)
    started = project.start("nightly", "--profile", "tiny")
    deadline = time.monotonic() + 300
    while not running(MODULES["pretrain"], project) and time.monotonic() < deadline:
        time.sleep(0.05)
    ours = [one for one in psutil.process_iter(["cwd"]) if str(project.folder) in (one.info["cwd"] or "")]
    assert ours
    for process in ours:
        if process.pid != os.getpid():
            process.kill()
    started.wait(30)
    assert "nightly" not in project.git("branch", "--format=%(refname:short)").split()
    night(project)
    made = project.git("log", "--format=%s", "nightly", "^main").splitlines()  # what was overridden has a commit too
    assert len([subject for subject in made if subject.startswith("manual-")]) == 1
    assert project.git("for-each-ref", "refs/nightshift") == ""


def test_of_two_who_start_at_once_the_second_follows(project: Project) -> None:
    project.run("down")
    began = time.monotonic()
    callers = [project.start("nightly", "--profile", "tiny") for _ in range(2)]

    def first_line(caller: subprocess.Popen[str]) -> tuple[str, float]:
        assert caller.stdout is not None
        return caller.stdout.readline(), time.monotonic() - began

    with ThreadPoolExecutor() as readers:
        (line, seconds), (other, _) = sorted(readers.map(first_line, callers))
    assert line.startswith("Following")
    assert seconds < 15  # Airflow's start, which takes longer, is not waited for
    assert other.startswith("Night ")
    assert [caller.wait(600) for caller in callers] == [0, 0]
