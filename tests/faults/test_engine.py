"""The engine's nights, struck at points that a seed chooses; many tasks at once, two containers, a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dvc_engine.store import objects, workspace
from tests.dvc_airflow.conftest import Toy
from tests.faults import night
from tests.faults.struck import POINTS

SEEDS = 200


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, int], str]:
    """Point → how often a night reaches it, and the lock file that DVC writes."""
    folder = tmp_path_factory.mktemp("calm")
    made = night.prepare(folder)
    _, counted = night.run(folder, made.root, None)
    return counted, night.by_dvc(made, folder / "dvc")


def test_a_night_meets_every_point(calm: tuple[Mapping[str, int], str]) -> None:
    assert set(calm[0]) == set(POINTS) | {f"stage:{name}" for name in night.STAGES}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, SEEDS))])
def test_what_is_struck_goes_on_and_nothing_tells(
    seed: int, calm: tuple[Mapping[str, int], str], tmp_path: Path
) -> None:
    counted, by_dvc = calm
    told = night.struck(night.chosen(seed, counted), tmp_path, by_dvc)
    assert told.fired, told.text()
    assert not told.wrong, told.text()


TWELVE = {
    **night.FILES,
    "dvc.yaml": """\
stages:
  first: {cmd: python step.py first a, deps: [seed.txt], outs: [a]}
  each:
    foreach: [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11]
    do: {cmd: 'python step.py ${item} ${item}.txt', deps: [a], outs: ['${item}.txt']}
""",
}


@pytest.mark.long
def test_twelve_stages_at_once_lose_nothing(tmp_path: Path) -> None:
    made = night.prepare(tmp_path, TWELVE)
    tried, counted = night.run(tmp_path, made.root, None)
    assert set(tried.values()) == {1}
    assert all(counted[f"stage:k{number}"] == 1 for number in range(12))
    assert night.wrong(made, night.by_dvc(made, tmp_path / "dvc"), str(tmp_path / "faults")) == []


@pytest.mark.long
def test_two_attempts_in_two_containers_end_in_one_publication(tmp_path: Path) -> None:
    """As when a worker is taken for dead and is not: neither sees the other's processes, and both have its pid."""
    made = night.prepare(tmp_path)
    state, faults = tmp_path / "state", tmp_path / "faults"
    for place in (state, faults):
        place.mkdir()
    env = night.environment(None, faults)
    task = [sys.executable, "-m", "tests.faults.struck", "task", str(made.root), str(state)]
    subprocess.run([*task, "pin"], env=env, check=True, capture_output=True)
    wall = ["unshare", "--pid", "--fork", "--mount-proc"]
    for name in ("first", "loose", "each@one", "each@two", "last"):
        both = [
            subprocess.Popen([*wall, *task, name, str(number)], env=env, stderr=subprocess.PIPE, text=True)
            for number in (1, 2)
        ]
        for one in both:
            _, said = one.communicate(timeout=120)
            assert one.returncode == 0, said
    for name in ("publish", "end"):
        subprocess.run([*task, name], env=env, check=True, capture_output=True)
    assert (faults / "stage:first").stat().st_size in (1, 2)  # the later may find the run cache of the earlier
    assert night.wrong(made, night.by_dvc(made, tmp_path / "dvc"), str(faults)) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Toy]:
    """A project whose cache has room for 400 kB."""
    made = night.prepare(tmp_path, {"dvc.yaml": LARGE, "seed.txt": "7"})
    cache = workspace.cache_of(made.root)
    cache.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(cache)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a disk")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


LARGE = """\
stages:
  large:
    cmd: mkdir -p d && for n in 1 2 3 4 5 6; do head -c 100000 /dev/urandom > d/$n; done
    deps: [seed.txt]
    outs: [d]
  read: {cmd: ls d > x, deps: [d], outs: [x]}
"""


def test_a_disk_that_is_full_keeps_no_half_of_anything(small: Toy) -> None:
    result = small.attempt("large", small.night("HEAD"), {}).run()
    assert result.outcome == "storage", result
    assert "DVC did not save all that it made" in result.sentence
    cache = workspace.cache_of(small.root)
    assert all(objects.sound(path) for path in cache.glob("files/md5/??/*") if len(path.name) in (30, 34))
    subprocess.run(["mount", "-o", "remount,size=4m", str(cache)], check=True)
    results = {"large": small.attempt("large", small.night("HEAD"), {}, number=2).run()}
    assert results["large"].outcome == "ran", results["large"]
    assert small.attempt("read", small.night("HEAD"), results).run().outcome == "ran"


@pytest.mark.long
def test_the_command_says_that_its_fault_fired(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "tests.faults.night", "--seed", "3"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(["include", "plugins", "."])}
    ended = subprocess.run(asked, env=env, cwd=night.ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    fault, fired, tried, *rest = [line for line in ended.stdout.splitlines() if line[:5] in ("fault", "fired", "tried")]
    assert set(json.loads(fault.removeprefix("fault: "))) >= {"point", "time", "signal"}
    assert (fired, rest) == ("fired: True", [])
    assert json.loads(tried.removeprefix("tried: "))["publish"] >= 1
