"""Whatever DVC accepts is read as DVC reads it; what it refuses is a sentence."""

from __future__ import annotations

import json
import os
import posixpath
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from dvc_engine.git import top
from dvc_engine.pipeline import check, kept, lock, project, reading
from dvc_engine.pipeline.meta import Meta
from dvc_engine.stage import start
from dvc_engine.store import objects
from dvc_engine.store.commit import Commit
from tests.dvc_airflow.conftest import Toy, repository

Make = Callable[..., Toy]
Files = Mapping[str, str]
MD5 = "900150983cd24fb0d6963f7d28e17f72"
IMPORTED = f"md5: {MD5}\nfrozen: true\ndeps:\n- {{}}\nouts:\n- md5: {MD5}\n  size: 3\n  hash: md5\n  path: {{}}\n"
LIBRARY = f"path: lib.csv\n  repo:\n    url: https://example.org/other.git\n    rev_lock: {MD5}"

# what can be read and not run here; what can be run is in projects/
PROJECTS: dict[str, Files] = {
    "nothing": {"README.md": "no pipeline here\n"},
    "data of a data base": {
        "got.csv.dvc": f"frozen: true\ndeps:\n- db: {{connection: c, query: q}}\nouts:\n- md5: {MD5}\n  size: 3\n"
        "  hash: md5\n  path: got.csv\n",
        "dvc.yaml": "stages:\n  one: {cmd: a, deps: [got.csv], outs: [x]}\n",
    },
    "a broken file that DVC does not look at": {
        ".dvcignore": "old\n", "old/dvc.yaml": "stages: {one: [\n", "dvc.yaml": "stages:\n  one: {cmd: a}\n",
    },
    "data that is imported": {
        "got.csv.dvc": IMPORTED.format("path: https://example.org/got.csv", "got.csv"),
        "lib.csv.dvc": IMPORTED.format(LIBRARY, "lib.csv"),
        "dvc.yaml": "stages:\n  one: {cmd: a, deps: [got.csv, lib.csv], outs: [x]}\n",
    },
    "a pipeline in an out": {
        "d/dvc.yaml": "stages:\n  one: {cmd: a}\n", "dvc.yaml": "stages:\n  two: {cmd: b, outs: [d]}\n",
    },
}  # fmt: skip


def by_dvc(root: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """Stages and edges as DVC has them, by its own names."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph
        return {one.addressing for one in graph}, {(made.addressing, one.addressing) for one, made in graph.edges}


@pytest.mark.parametrize("name", PROJECTS)
def test_stages_and_edges_are_dvcs_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvc_airflow.__main__ import main

    root = repository(tmp_path, PROJECTS[name])
    monkeypatch.chdir(root)  # DVC names stages from where one stands
    for _ in ("read", "kept"):
        assert main(["graph", str(root)]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (set(said["stages"]), {(above, one) for above, one in said["edges"]}) == by_dvc(root)


@pytest.mark.parametrize("words", [["graph"], ["check"], ["gc", "--nights", "1"]])
@pytest.mark.parametrize("git", [True, False])
def test_a_folder_without_a_project_is_one_sentence(git: bool, words: list[str], tmp_path: Path) -> None:
    if git:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    asked = [sys.executable, "-m", "dvc_airflow", *words, str(tmp_path)]
    ended = subprocess.run(
        asked, capture_output=True, text=True, env={"PYTHONPATH": str(Path(reading.__file__).parents[2])}
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "no DVC project is there" in ended.stderr


def test_a_project_that_git_does_not_know_is_refused(tmp_path: Path) -> None:
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text("stages:\n  one: {cmd: a}\n")
    with pytest.raises(project.ProjectError, match="Git does not know this folder"):
        reading.read(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(project.ProjectError, match=r"core\.no_scm is set"):
        reading.read(tmp_path)


def test_a_project_that_git_refuses_is_told_in_gits_words(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy()
    for name, value in {
        "CONFIG_GLOBAL": "/dev/null",
        "CONFIG_NOSYSTEM": "1",
        "TEST_ASSUME_DIFFERENT_OWNER": "1",
    }.items():
        monkeypatch.setenv(f"GIT_{name}", value)
    with pytest.raises(project.ProjectError) as refused:
        reading.read(made.root)
    what = f"detected dubious ownership in repository at '{made.root}'"
    said = f"{what} To add an exception for this directory, call: git config --global --add safe.directory {made.root}"
    assert str(refused.value) == f"{made.root}: Git refuses this folder: fatal: {said}"


def outs(root: Path) -> list[str]:
    """Outs of all stages, from what is kept where that still holds."""
    return [out.path for one in reading.read(root, kept.folder(root)).stages.values() for out in one.outs]


TEMPLATED = {
    "params.yaml": "sub: deep\n", "deep/own.yaml": "name: first\n",
    "dvc.yaml": "stages:\n  one: {wdir: '${sub}', vars: [own.yaml], cmd: a, outs: ['${name}']}\n"
    "  each:\n    foreach: [deep]\n    do: {wdir: '${item}', vars: [own.yaml], cmd: b, outs: ['${name}-2']}\n",
}  # fmt: skip


def test_a_value_beside_a_folder_that_is_a_value_itself_counts_too(tmp_path: Path) -> None:
    root = repository(tmp_path, TEMPLATED)
    assert outs(root) == ["deep/first", "deep/first-2"]
    (root / "deep" / "own.yaml").write_text("name: second\n")
    assert outs(root) == ["deep/second", "deep/second-2"]


VARS = {
    "more.json": '{"out": "there"}', "own.toml": 'name = "mine"\n',
    "dvc.yaml": "vars: [more.json]\nstages:\n  one: {cmd: a, outs: ['${out}']}\n"
    "  two: {vars: [own.toml], cmd: 'b ${name}', deps: ['${out}']}\n",
}  # fmt: skip


def test_what_was_kept_is_read_anew_when_a_value_that_it_came_from_changes(tmp_path: Path) -> None:
    root = repository(tmp_path, VARS)
    assert outs(root) == ["there"]
    (root / "more.json").write_text('{"out": "elsewhere"}')
    assert outs(root) == ["elsewhere"]
    (root / "own.toml").unlink()
    with pytest.raises(project.ProjectError, match=r"own\.toml"):
        outs(root)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"read": []}', '{"read": [], "hash": "x", "stages": [{"nam": 1}]}'])
def test_what_was_kept_and_is_none_of_ours_is_passed_over(text: str, tmp_path: Path) -> None:
    root = repository(tmp_path, VARS)
    assert outs(root) == ["there"]
    (file,) = kept.folder(root).iterdir()
    was = file.read_text()
    file.write_text(text)
    assert outs(root) == ["there"]
    assert file.read_text() == was


def test_what_changed_while_it_was_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, read = repository(tmp_path, VARS), reading._stages

    def slowly(*args: Any) -> Any:
        made = read(*args)
        (root / "more.json").write_text('{"out": "elsewhere"}')
        return made

    monkeypatch.setattr(reading, "_stages", slowly)
    assert outs(root) == ["there"]
    monkeypatch.undo()
    assert outs(root) == ["elsewhere"]


def test_what_is_ignored_in_a_folder_counts_too(tmp_path: Path) -> None:
    stage = "stages:\n  one: {cmd: a, outs: [o]}\n"
    root = repository(tmp_path, {"sub/dvc.yaml": stage, "other/dvc.yaml": stage})
    assert outs(root) == ["other/o", "sub/o"]
    (root / "sub" / ".dvcignore").write_text("dvc.yaml\n")
    assert outs(root) == ["other/o"]


@pytest.mark.parametrize(
    ("below", "ignores"), [("", ".gitignore"), ("", ".git/info/exclude"), ("below/", "../.gitignore")]
)
def test_what_git_has_and_ignores_counts_too(below: str, ignores: str, tmp_path: Path) -> None:
    raw = f"outs:\n- md5: {MD5}\n  size: 3\n  hash: md5\n  path: raw\n"
    stage = "stages:\n  a: {cmd: wc data/raw, deps: [data/raw]}\n"
    root = repository(tmp_path, {"dvc.yaml": stage, "data/raw.dvc": raw}, below)
    Toy(root).commit({})
    ignored = root / ignores
    for text in ("data/*\n!data/*.dvc\n", "/out\n", "data/*\n"):
        ignored.write_text(text.replace("data", f"{below}data"))
        known = reading.read(root, kept.folder(root))
        with Repo(str(root)) as repo:
            assert len(known.every) == len(repo.index.stages)
        assert [one.name for one in known.every if one.above] == (["a"] if text == "/out\n" else [])


def test_an_import_is_a_task_as_others_are(tmp_path: Path) -> None:
    text = IMPORTED.format("path: https://example.org/got.csv", "got.csv")
    meta = "meta: {airflow: {update: true, pool: net, env: {A: b}}}\n"
    root = repository(tmp_path, {"got.csv.dvc": f"{text}{meta}", "dvc.yaml": "stages:\n  one: {cmd: a}\n"})
    airflow = reading.read(root).stages["got.csv.dvc"].airflow
    assert (airflow.pool, airflow.env) == ("net", {"A": "b"})
    (root / "got.csv.dvc").write_text(f"{text}meta: {{airflow: {{updaet: true}}}}\n")
    with pytest.raises(project.ProjectError, match="unknown key updaet; name one of pool, slots"):
        check.refuse(root, reading.read(root))


def test_of_what_was_kept_the_newest_stay(tmp_path: Path) -> None:
    for number in range(kept.MOST + 3):
        kept.write(tmp_path / "kept", f"{number}", {"it": number})
        os.utime(tmp_path / "kept" / f"{number}.json", (number, number))
    kept.write(tmp_path / "kept", "no JSON", {"it": Path()})
    stay = sorted(int(one.stem) for one in (tmp_path / "kept").iterdir())
    assert stay == list(range(3, kept.MOST + 3))
    assert (kept.read(tmp_path / "kept", "66"), kept.read(tmp_path / "kept", "1")) == ({"it": 66}, None)


def test_a_date_in_a_stages_meta_is_a_text_before_it_was_kept_too(tmp_path: Path) -> None:
    root = repository(tmp_path, {"dvc.yaml": "stages:\n  one: {cmd: a, meta: {since: 2024-01-01}}\n"})
    first, again = (reading.read(root, kept.folder(root)) for _ in range(2))
    assert first == again
    assert first.stages["one"].meta == {"since": "2024-01-01"}


def test_a_stages_meta_may_be_anything(tmp_path: Path) -> None:
    text = "stages:\n  one: {cmd: echo 1 > x, outs: [x], meta: [a]}\n  two: {cmd: echo 1 > y, outs: [y], meta: 5}\n"
    known = reading.read(repository(tmp_path, {"dvc.yaml": text}))
    assert [one.airflow for one in known.selected] == [Meta()] * 2


def test_a_chain_of_two_thousand_stages_has_an_order() -> None:
    def stage(number: int) -> project.Stage:
        above = (f"s{number - 1}",) if number else ()
        return project.Stage(f"s{number}", "a", (), (), {}, False, "", {}, "dvc.yaml", ".", False, above)

    known = project.of([stage(number) for number in range(2000)])
    assert known.order == [f"s{number}" for number in range(2000)]


FOLDERS = {
    "dvc.yaml": """\
stages:
  end:
    cmd: cat sub/table raw.csv data/a > end.txt
    deps: [sub/table, raw.csv, data]
    outs: [end.txt]
""",
    "sub/dvc.yaml": """\
stages:
  table:
    cmd: cp ../seed.txt table && cp ../raw.csv ../copy.csv
    deps: [../seed.txt, ../raw.csv]
    params: [by]
    outs: [table, ../copy.csv]
  deeper:
    wdir: deep
    cmd: wc -c < ../table > size.json
    deps: [../table]
    metrics: [{size.json: {cache: false}}]
""",
    "sub/params.yaml": "by: 2\n",
    "sub/deep/keep": "",
}


def test_pipelines_in_folders_and_tracked_data_run_to_the_lock_files_that_dvc_writes(toy: Make) -> None:
    made = toy("stages: {}\n")
    for name, text in FOLDERS.items():
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text(text)
    (made.root / "raw.csv").write_text("1,2\n")
    (made.root / "data").mkdir()
    for name in ("a", "b"):
        (made.root / "data" / name).write_text(name)
    subprocess.run(["dvc", "add", "-q", "raw.csv", "data"], cwd=made.root, check=True)
    results = made.run(made.commit({}))
    assert {name: one.outcome for name, one in results.items()} == {
        "end": "ran", "sub/dvc.yaml:table": "ran", "sub/dvc.yaml:deeper": "ran",
    }, [one.sentence for one in results.values()]  # fmt: skip
    ours = lock.files(reading.read(made.root), {name: one.entry for name, one in results.items() if one.entry})
    subprocess.run(["dvc", "repro", "-q", "--recursive", "."], cwd=made.root, check=True)
    assert ours == {path: (made.root / path).read_text() for path in ("dvc.lock", "sub/dvc.lock")}
    assert results["sub/dvc.yaml:deeper"].files == {"sub/deep/size.json": "1\n"}
    made.came = dict.fromkeys(results, made.commit({}))
    again = made.run("HEAD")
    assert [one.outcome for one in again.values()] == ["unchanged"] * 3
    (made.root / "raw.csv").write_text("3,4\n")
    subprocess.run(["dvc", "add", "-q", "raw.csv"], cwd=made.root, check=True)
    changed = made.run(made.commit({}))
    assert {name: one.outcome for name, one in changed.items()} == {
        "end": "ran", "sub/dvc.yaml:table": "ran", "sub/dvc.yaml:deeper": "unchanged",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dep", "said"),
    [
        ("seed.txt", None),
        ("made.txt", None),
        ("folder", None),
        ("https://example.org/x", None),
        ("/etc/hostname", None),
        ("loose.csv", "stage two depends on loose.csv: it is in neither Git nor DVC; `dvc add loose.csv`"),
        ("gone.csv", "stage two depends on gone.csv: it is not there, and no stage makes it; put it there and"),
        ("a\\b.csv", "depends on a\\b.csv: it is not there, and no stage makes it; its backslashes are letters"),
        (
            "hidden.csv",
            "on hidden.csv: Git ignores hidden.csv.dvc, which tracks it; take that out of .gitignore",
        ),
        ("other/t.csv", "it is data of another DVC project of this repository (other/t.csv.dvc); `dvc import` it"),
        ("all/raw.csv", "DVC passes over all/raw.csv.dvc, for a .gitignore or .dvcignore names it or its folder"),
        ("named/run.py", None),
        ("bare/run.py", "bare/run.py: bare is a repository of its own, which no .gitmodules names; `git submodule add"),
        ("bare", "stage two needs bare: bare is a repository of its own"),
        ("vendor", "stage two needs vendor: vendor/own is a repository of its own"),
    ],
)
def test_a_dep_that_nobody_has_is_named_before_anything_runs(dep: str, said: str | None, toy: Make) -> None:
    stages = f"stages:\n  one: {{cmd: a, outs: [made.txt]}}\n  two: {{cmd: b, deps: ['{dep}'], outs: [x]}}\n"
    hidden = {"hidden.csv": "1", "hidden.csv.dvc": "outs: []\n", "all/raw.csv.dvc": "outs: []\n"}
    hidden |= {"other/.dvc/config": "", "other/t.csv.dvc": "outs: []\n"}
    ignored = "loose.csv\nhidden*\nall/*\n!all/*.dvc\n"
    made = toy(stages, **{".gitignore": ignored, "loose.csv": "1", **hidden})
    (made.root / "folder" / "deep").mkdir(parents=True)
    (made.root / "folder" / "deep" / "x").write_text("x")
    for module in ("named", "bare", "vendor/own"):
        (made.root / module).mkdir(parents=True)
        made.git("update-index", "--add", "--cacheinfo", f"160000,{made.git('rev-parse', 'HEAD')},{module}")
    commit = made.commit({".gitmodules": '[submodule "x"]\n\tpath = named\n\turl = ../x\n'})
    lacks = start.lacking(reading.read(made.root), Commit(made.root, commit))
    assert (lacks is None) if said is None else (said in str(lacks))


@pytest.mark.parametrize("folder", ["", "below"])
@pytest.mark.parametrize(
    ("deps", "to", "said"),
    [
        ("link", "data/a.csv", "link, which by a link in Git is data/a.csv, and a night brings only what a dep names"),
        ("link/a.csv", "data", "is data/a.csv, and a night brings only what a dep names; name data/a.csv as the dep"),
        ("link", "other", "link, which by a link in Git is data/a.csv, and"),
        ("link", "made.txt", "; name made.txt as the dep"),
        ("link", "gone.csv", "link, which by a link in Git is gone.csv: it is not there, and no stage makes it"),
        ("link", "link", None),
        ("link, data/a.csv", "data/a.csv", None),
        ("link", "seed.txt", None),
        ("link", ".dvc", None),
        ("link", "named/run.py", None),
        ("link", "../../outside", None),
        ("link", "/etc/hostname", None),
    ],
)
def test_a_dep_that_leads_by_a_link_to_what_is_not_brought_is_named_before_anything_runs(
    deps: str, to: str, said: str | None, folder: str, tmp_path: Path
) -> None:
    stages = f"stages:\n  one: {{cmd: a, outs: [made.txt]}}\n  two: {{cmd: b, deps: [{deps}], outs: [x]}}\n"
    data = {"data/a.csv.dvc": "outs: [{path: a.csv, md5: c4ca4238a0b923820dcc509a6f75849b, hash: md5}]\n"}
    files = {"dvc.yaml": stages, "seed.txt": "7", **data}
    made = Toy(repository(tmp_path / "toy", files, folder))
    (made.root / "other").symlink_to("data/a.csv")
    (made.root / "link").symlink_to(to)
    named = posixpath.join(folder, "named")
    made.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{named}")
    (made.root / "named").mkdir()
    top(made.root)[0].joinpath(".gitmodules").write_text(f'[submodule "x"]\n\tpath = {named}\n\turl = ../x\n')
    commit = made.commit({})
    lacks = start.lacking(reading.read(made.root), Commit(top(made.root)[0], commit, folder))
    assert (lacks is None) if said is None else (said in str(lacks))


FLAGS = """\
stages:
  still: {cmd: cp seed.txt still.txt, deps: [seed.txt], outs: [still.txt], frozen: true}
  read: {cmd: cp still.txt read.txt, deps: [still.txt], outs: [read.txt]}
  diary:
    cmd: cat seed.txt >> diary.txt
    deps: [seed.txt]
    outs: [{diary.txt: {persist: true}}]
"""


def test_a_frozen_stage_keeps_its_entry_and_a_persistent_out_goes_on(toy: Make) -> None:
    made = toy(FLAGS.replace(", frozen: true", ""))
    first = made.run("HEAD")
    assert {one.outcome for one in first.values()} == {"ran"}
    made.came = dict.fromkeys(first, "HEAD")
    changed = made.run(made.commit({"dvc.yaml": FLAGS, "seed.txt": "8"}))
    assert {name: one.outcome for name, one in changed.items()} == {
        "still": "unchanged", "read": "unchanged", "diary": "ran",
    }  # fmt: skip
    diary = lock.hashes(reading.read(made.root).stages["diary"], changed["diary"].entry or {}, "outs")["diary.txt"]
    assert objects.place(made.root / ".dvc/cache", diary).read_text() == "78"
