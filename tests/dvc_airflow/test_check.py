"""`python -m dvc_airflow graph` and `check`: one project by whatever path, and all that a pin would refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_airflow.__main__ import main
from dvc_engine.pipeline import kept, lock
from dvc_engine.stage import start
from dvc_engine.store import snapshot, uncached, workspace
from dvc_engine.store.commit import Commit
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


def test_a_project_behind_a_link_is_the_same_one(toy: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, link = toy(), tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(made.root)
    for places in ([link, made.root], [made.root, link]):
        shutil.rmtree(kept.folder(made.root), ignore_errors=True)
        for place in places:
            assert main(["check", str(place)]) == 0
            assert main(["graph", str(place)]) == 0
    said = capsys.readouterr()
    graphs = {line for line in said.out.splitlines() if line}
    assert len(graphs) == 1
    assert json.loads(graphs.pop())["stages"] == list(made.known().stages)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ({"data.csv": None}, "depends on data.csv: it is not there, and no stage makes it"),
        ({".gitignore": "data.csv\n"}, "depends on data.csv: it is in neither Git nor DVC; `dvc add data.csv`"),
        ({"big.bin": "x" * (1 << 21)}, "big.bin is new and over 1 MB; `dvc add big.bin`"),
    ],
)
def test_check_refuses_what_the_pin_would(
    harm: dict[str, str | None], said: str, toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = toy("stages: {one: {cmd: wc data.csv > n, deps: [data.csv], outs: [n]}}\n")
    (made.root / "data.csv").write_text("1\n")
    assert main(["check", str(made.root)]) == 0  # what is not committed yet becomes a part of the night
    for name, text in harm.items():
        (made.root / name).unlink() if text is None else (made.root / name).write_text(text)
    assert main(["check", str(made.root)]) == 2
    assert said in capsys.readouterr().err
    assert main(["check", "--pipeline", str(made.root)]) == 0


@pytest.mark.parametrize(
    ("wdir", "dep", "there"),
    [("kept", "../seed.txt", True), ("made", "one.txt", True), ("empty", "../seed.txt", False)],
)
def test_a_folder_to_work_in_that_nobody_has_is_named_too(wdir: str, dep: str, there: bool, toy: Make) -> None:
    one = "  one: {cmd: echo 1 > made/one.txt, deps: [seed.txt], outs: [made/one.txt]}\n"
    made = toy(f"stages:\n{one}  two: {{cmd: cp {dep} x, wdir: {wdir}, deps: [{dep}], outs: [x]}}\n")
    for folder in ("kept", "made", "empty"):
        (made.root / folder).mkdir()
    (made.root / "kept" / ".gitkeep").touch()
    lacks = start.lacking(made.known(), Commit(made.root, made.commit({})))
    said = "stage two works in empty, a folder that Git does not have; put a file into it, and commit that"
    assert lacks == (None if there else f"dvc.yaml:3: {said}")


def test_a_dep_that_is_named_from_the_wrong_folder_is_told_how(toy: Make) -> None:
    files = {"src/dvc.yaml": "stages:\n  one:\n    cmd: a\n    deps: [src/run.py, data/in.csv]\n", "src/run.py": ""}
    made = toy("stages: {}\n", **files, **{"data/in.csv": ""})
    for wrong, right in (("src/run.py", "run.py"), ("data/in.csv", "../data/in.csv")):
        lacks = start.lacking(made.known(), Commit(made.root, made.commit({})))
        assert f"depends on src/{wrong}: it is not there, and" in str(lacks)
        assert str(lacks).endswith(f"; paths are from src, so write {right}")
        text = (made.root / "src/dvc.yaml").read_text()
        made.commit({"src/dvc.yaml": text.replace(wrong, right)})
    assert start.lacking(made.known(), Commit(made.root, made.commit({}))) is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("[fit.steps, 'fit.*', list.1]", None),
        ("[other.json: [a]]", None),
        ("[other.json: ]", None),
        ("[made.yaml: [a]]", None),
        ("[values.toml: [a]]", None),  # a format of which only DVC tells
        ("[fit.steps, fit.rate]", "reads fit.rate of params.yaml, which has no such key; write it there"),
        ("[other.json: [b]]", "reads b of other.json, which has no such key; write it there"),
        ("[gone.yaml: [a]]", "reads gone.yaml, which Git does not have; write and commit it"),
        ("[own.yaml: [a]]", "reads own.yaml, which Git does not have; commit it"),
    ],
)
def test_params_that_nobody_has_are_named_too(params: str, said: str | None, toy: Make) -> None:
    one = "  one: {cmd: 'echo a: 1 > made.yaml', outs: [made.yaml]}\n"
    made = toy(f"stages:\n{one}  two: {{cmd: wc seed.txt > x, params: {params}, outs: [x]}}\n")
    files = {"params.yaml": "fit: {steps: 1}\nlist: [1, 2]\n", "other.json": '{"a": 1}', "values.toml": "b = 1\n"}
    (made.root / "own.yaml").write_text("a: 1\n")
    lacks = start.lacking(made.known(), Commit(made.root, made.commit({**files, ".gitignore": "own.yaml\n"})))
    assert lacks == (said and f"dvc.yaml:3: stage two {said}")


def test_an_out_that_dvc_does_not_cache_may_be_large_and_lie_there(toy: Make) -> None:
    made = toy("stages: {one: {cmd: cp seed.txt o, deps: [seed.txt], outs: [{o: {cache: false}}]}}\n")
    (made.root / "o").write_text("1")
    assert main(["check", str(made.root)]) == 0
    commit = snapshot.of_tree(made.root, made.known())
    assert made.git("show", f"{commit}:o") == "1"  # it need not be made anew
    (made.root / "o").write_text("1" * (1 << 21))
    assert main(["check", str(made.root)]) == 0
    assert snapshot.of_tree(made.root, made.known()) == made.git("rev-parse", "HEAD")


@pytest.mark.parametrize("cmd", ["''", "[]", "[echo 1, null]"])
def test_a_command_without_words_is_refused(cmd: str, toy: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = toy(f"stages:\n  one:\n    outs: [a]\n    cmd: {cmd}\n")
    capsys.readouterr()
    assert main(["check", str(made.root)]) == 2
    assert capsys.readouterr().err == "dvc.yaml:4: stage one: its command is empty; write one\n"
    made.commit({"dvc.yaml": "stages: {one: {outs: [a], cmd: ['', echo 1 > a]}}\n"})  # an option that is not used
    assert main(["check", str(made.root)]) == 0


def test_an_import_without_its_data_is_refused_unless_each_night_fetches_it(
    toy: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy("stages: {one: {cmd: cp got x, deps: [got], outs: [x]}}\n")
    (made.root.parent / "source").write_text("1")
    monkeypatch.chdir(made.root)
    with Repo(str(made.root)) as repo:
        repo.imp_url(str(made.root.parent / "source"), "got", no_download=True)
    made.commit({})
    capsys.readouterr()
    assert main(["check", str(made.root)]) == 2
    do = "`dvc update got.dvc` and commit that, or give it `meta: {airflow: {update: true}}`"
    line = (made.root / "got.dvc").read_text().splitlines().index("outs:") + 1
    assert capsys.readouterr().err == f"got.dvc:{line}: got.dvc was imported without its data; {do}\n"
    made.commit({"dvc.yaml": "stages: {one: {cmd: echo 1 > x, outs: [x]}}\n"})
    assert main(["check", str(made.root)]) == 0  # nothing reads it
    made.commit({"dvc.yaml": "stages: {one: {cmd: cp got x, deps: [got], outs: [x]}}\n"})
    made.commit({"got.dvc": f"{(made.root / 'got.dvc').read_text()}meta: {{airflow: {{update: true}}}}\n"})
    assert main(["check", str(made.root)]) == 0
    assert {name: one.outcome for name, one in made.run("HEAD").items()} == {"got.dvc": "ran", "one": "ran"}


FROM = "path: data.csv\n  repo: {{url: '{}', rev_lock: 0a}}"


@pytest.mark.parametrize(
    ("dep", "refused"),
    [
        (FROM.format("../src"), "../src"),
        (FROM.format("."), ""),
        (FROM.format("/srv/src"), ""),
        (FROM.format("git@example.org:src"), ""),
        (f"path: ../data.csv\n  md5: {'a' * 32}", "../data.csv"),
        (f"path: /srv/data.csv\n  md5: {'a' * 32}", ""),
    ],
)
def test_an_import_that_each_night_fetches_from_beside_the_repository_is_refused(
    dep: str, refused: str, toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"frozen: true\ndeps:\n- {dep}\nouts:\n- path: got\n"
    made = toy(**{"got.dvc": f"{said}meta: {{airflow: {{update: true}}}}\n"})
    capsys.readouterr()
    assert main(["check", str(made.root)]) == (2 if refused else 0), capsys.readouterr().err
    where = f"got.dvc:2: got.dvc: it imports from {refused}, which lies beside the repository"
    assert capsys.readouterr().err == (
        f"{where}, and a night runs in clones; name an absolute path, or a URL\n" if refused else ""
    )


@pytest.mark.parametrize("out", ["/tmp/somewhere/else", "s3://bucket/else"])
def test_an_out_elsewhere_that_dvc_would_not_keep_is_refused(
    out: str, toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = toy(f'stages:\n  one:\n    cmd: a\n    outs: ["{out}"]\n')
    capsys.readouterr()
    assert main(["check", str(made.root)]) == 2
    said = f"dvc.yaml:4: stage one: {out} lies outside the project, and DVC 3 keeps no such out; give it `cache: false`"
    assert capsys.readouterr().err.startswith(said)


def test_a_frozen_stage_whose_file_only_the_checkout_has_is_refused(
    toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC finds that file there; no clone has what neither Git nor DVC keeps."""
    stages = "stages:\n  one: {cmd: echo 1 > o, outs: [{o: {cache: false}}]}\n"
    made = toy(stages, **{".gitignore": "/o\n"})
    made.run("HEAD")
    lock_file = lock.files(made.known(), made.entries)["dvc.lock"]  # type: ignore[arg-type]
    made.commit({"dvc.yaml": stages.replace("}]}", "}], frozen: true}"), "dvc.lock": lock_file, "o": "1\n"})
    capsys.readouterr()
    assert main(["check", str(made.root)]) == 0  # the night that made it kept it
    shutil.rmtree(uncached.store(workspace.cache_of(made.root)))
    assert main(["check", str(made.root)]) == 2
    said = (
        "one is frozen, and o, which DVC does not cache, is in no commit; `dvc unfreeze` it for a night, or commit that"
    )
    assert capsys.readouterr().err == f"{said}\n"
    made.git("add", "-f", "o")
    assert main(["check", str(made.root)]) == 0


def test_a_frozen_stage_of_which_no_commit_knows_anything_is_refused(
    toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = "  one: {cmd: echo 1 > o, outs: [o], frozen: true}\n"
    made = toy(f"stages:\n{frozen}  two: {{cmd: cp o p, deps: [o], outs: [p]}}\n")
    capsys.readouterr()
    assert main(["check", str(made.root)]) == 2
    assert capsys.readouterr().err.startswith("one is frozen, and no commit says what it made; run it once, or")
    made.commit({"dvc.lock": "schema: '2.0'\nstages:\n  one:\n    cmd: echo 1 > o\n"})
    made.git("branch", "elsewhere")
    made.git("rm", "-q", "dvc.lock")
    made.git("commit", "-qm", "Forget it")
    assert main(["check", "--branch", "elsewhere", str(made.root)]) == 0
