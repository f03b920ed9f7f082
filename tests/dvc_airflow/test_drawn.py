"""Projects that a seed draws (drawn.py), three nights of most, run by the engine, and by `dvc repro` in a copy.

Of every third DVC has a remote, and of half of these each stage finds an empty cache, as on a machine of its own. Of
every fourth the last night is one of some stages alone.

    python -m tests.dvc_airflow.test_drawn 200 400     # these seeds; what differs is kept in /tmp/drawn
"""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from difflib import unified_diff
from pathlib import Path
from tempfile import gettempdir

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML

from dvc_engine.pipeline import lock
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage import process, start
from dvc_engine.stage.outcome import Result
from dvc_engine.stage.settled import settled
from dvc_engine.store import workspace
from tests.dvc_airflow import drawn
from tests.dvc_airflow.conftest import Forked, Toy, repository
from tests.dvc_airflow.drawn import Drawn
from tests.dvc_airflow.test_conformance import _locks, _uncached, by_dvc

NIGHTS = 3
SEED = 12  # in `make test`: with a remote, and an empty cache for each stage
ALL, BLOCK = 300, 30  # in the long lane
REMOTE = "[core]\n    remote = r\n['remote \"r\"']\n    url = {}\n"


def test_a_drawn_project_runs_as_by_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    assert both(SEED, tmp_path) == "alike"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, ALL, BLOCK))
def test_many_drawn_projects_run_as_by_dvc(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    told = [both(seed, tmp_path / str(seed)) for seed in range(first, first + BLOCK)]
    assert told.count("alike") > BLOCK / 3  # of others the first night alone, or nothing, is to be compared


def both(seed: int, folder: Path) -> str:
    """Run a seed's project both ways. Raises AssertionError with what differs.

    Returns:
        'alike', 'alike one night', or why there was nothing to compare: DVC takes no such project, or its stages fail.
    """
    project = drawn.project(seed)
    outside = _outside(folder / "outside", bool(project.imports))
    root = repository(folder / "ours", {**_placed(project, outside), "w/keep": ""})
    for name, target in project.links.items():
        (root / name).symlink_to(target)
    with (root / ".dvc" / "config").open("a") as config:
        config.write(REMOTE.format(folder / "remote") if project.remote else "")
        if project.kind and not (project.alone and project.kind == "symlink"):  # they would lead nowhere
            config.write(f"[cache]\n    type = {project.kind}\n")
    if not _tracked(root, project) or not _imported(root, project, outside):
        return "not to be tracked"
    made = Toy(root)
    made.commit({})
    copy = Path(shutil.copytree(root, folder / "by-dvc", symlinks=True))
    for night in range(NIGHTS):
        if night and project.above:
            # DVC counts its .gitignore to such a dep, and the lines of that stand in the order of what ran when
            return "alike one night"
        if night:
            before = _placed(project, outside)
            drawn.changed(project, night)
            (outside / "far").write_text(str(seed * night % 3))
            for one in (root, copy):
                _write(one, before, _placed(project, outside))
                if not _tracked(one, project):
                    return "not to be tracked"
        if project.remote:
            with Repo(str(root)) as repo:
                repo.push()
        if night == NIGHTS - 1 and seed % 4 == 1:
            made.select = _some(made, seed)
        if why := _night(night, made, copy, project.alone):
            return why
    return "alike"


def _some(made: Toy, seed: int) -> list[str]:
    """A selector of one stage, or of one with all above it, where no other has yet to run for that."""
    known, draw = made.known(), random.Random(seed)
    ran = [
        name
        for name, one in known.stages.items()
        if "/" not in one.file and made.entries.keys() >= set(known.upstream(name))
    ]
    return [draw.choice(["", "+"]) + draw.choice(ran)] if ran else []


def _outside(folder: Path, imports: bool) -> Path:
    """What lies beside the project: a file, and where it imports, a DVC project."""
    folder.mkdir(parents=True)
    (folder / "far").write_text("1")
    if imports:
        other = repository(folder / "other", {"theirs": "5"})
        with Repo(str(other)) as repo:
            repo.add(str(other / "theirs"))
        Toy(other).commit({})
    return folder


def _placed(project: Drawn, outside: Path) -> dict[str, str]:
    """Its files, as they stand beside this folder."""
    return {name: text.replace(drawn.OUTSIDE, str(outside)) for name, text in project.written().items()}


def _imported(root: Path, project: Drawn, outside: Path) -> bool:
    """Whether DVC imports what is to be imported."""
    here = Path.cwd()
    os.chdir(root)
    try:
        with Repo(str(root)) as repo:
            for path, other in project.imports.items():
                Path(path).parent.mkdir(exist_ok=True)
                if other:
                    repo.imp(str(outside / "other"), "theirs", out=path)
                else:
                    repo.imp_url(str(outside / "far"), path)
    except DvcException:
        return False
    finally:
        os.chdir(here)
    return True


def _night(night: int, made: Toy, copy: Path, alone: bool) -> str | None:
    """One night of both; why there was nothing to compare."""
    try:
        targets = [one.removeprefix("+") for one in made.select]
        theirs = set(by_dvc(copy, *targets, single=targets == made.select != []))
    except DvcException as error:
        return _refused(made, error, alone)
    commit = made.commit({})
    pinned, known = made.night(commit), made.known()
    assert start.lacking(known, pinned.pinned) is None
    still = settled(pinned, known, made.root.parent / "clones")
    results = _run(made, commit, alone)
    assert all(one.well for one in results.values()), [one.sentence for one in results.values()]
    ours = {name for name, one in results.items() if one.outcome != "unchanged"}
    assert ours == theirs, f"night {night}: {ours} instead of {theirs}"
    assert {results[name].outcome for name in still} <= {"unchanged"}
    for name, text in _locks(made, results).items():
        there, keys = (copy / name).read_text(), {one.key for one in known.selected if one.lock == name}
        alike = text == there if night == 0 else _plain(text, keys) == _plain(there, keys)
        assert alike, "\n".join([f"night {night}: {name}", *unified_diff(there.split("\n"), text.split("\n"))])
        (made.root / name).write_text(text)  # as the publisher would
    if not alone:  # nobody has them then
        for path, content in _uncached(made, results).items():
            assert content == (copy / path).read_bytes(), f"night {night}: {path}"
    made.came = dict.fromkeys(results, made.commit({}))
    return None


def _refused(made: Toy, error: DvcException, alone: bool) -> str:
    """What DVC does not take, or fails, the engine does not either."""
    try:
        results = _run(made, made.commit({}), alone)
    except ProjectError:
        return "refused"
    assert not all(one.well for one in results.values()), f"DVC alone fails: {error}"
    return "failed"


def _run(made: Toy, commit: str, alone: bool) -> dict[str, Result]:
    if not alone:
        return made.run(commit)
    return made.run(commit, before=lambda: shutil.rmtree(workspace.cache_of(made.root), ignore_errors=True))


def _plain(text: str, keys: set[str]) -> Mapping[str, lock.Entry]:
    """What a lock file says of these stages, in the order in which they came; DVC keeps those that went."""
    said: Mapping[str, lock.Entry] = YAML(typ="safe").load(text)["stages"]
    return {key: entry for key, entry in said.items() if key in keys}


def _write(root: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in before.keys() - now.keys():
        (root / name).unlink()
    for name in (one for one in now if before.get(one) != now[one]):
        (root / name).unlink(missing_ok=True)  # it may be a link into the cache
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(now[name])


def _tracked(root: Path, project: Drawn) -> bool:
    """Whether DVC tracks what is to be tracked; it does not while the project as a whole is wrong."""
    here = Path.cwd()
    os.chdir(root)
    try:
        with Repo(str(root)) as repo:
            for path in project.tracked:
                repo.add(path)
    except DvcException:
        return False
    finally:
        os.chdir(here)
    return True


def main(words: list[str]) -> int:
    """Run these seeds, and say which differ."""
    process.spawn = Forked  # type: ignore[assignment]
    failed, folder = 0, Path(gettempdir()) / "drawn"
    for seed in range(int(words[0]), int(words[1])):
        place = folder / str(seed)
        shutil.rmtree(place, ignore_errors=True)
        os.environ["AIRFLOW_HOME"] = str(place / "airflow")
        try:
            with redirect_stdout(io.StringIO()):  # DVC tells of each stage
                told = both(seed, place)
            shutil.rmtree(place)
        except Exception as error:
            failed, told = failed + 1, f"{type(error).__name__}: {error}"
        print(f"seed {seed}: {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
