"""What of a cache may go: never what somebody has, or is making; the rest by reason, and under a limit for a year."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_airflow.__main__ import main
from dvc_engine.git import git
from dvc_engine.night import publish
from dvc_engine.pipeline import lock, reading
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage import plan
from dvc_engine.store import gc, history, lease, objects, uncached, workspace
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import WHO, Repository, of
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
DAY = 86_400.0


def night(made: Toy, seed: str, params: int, branch: str | None = None) -> publish.Published:
    record, commit = of(made.root, branch), made.commit({"seed.txt": seed, "params.yaml": f"total: {{by: {params}}}\n"})
    known = reading.read(made.root)
    made.learn(history.newest(record, Commit(made.root, commit), known))
    results = made.run(commit)
    assert all(one.well for one in results.values())
    return publish.publish(made.pinned(commit, record), known, results, record, None, {}, made.root / ".dvc/tmp/clones")


def age(made: Toy, days: float) -> None:
    """Let all that the cache holds be as old."""
    then = time.time() - days * DAY
    for path in workspace.cache_of(made.root).rglob("*"):
        os.utime(path, (then, then))


STAGE = """\
stages:
  make: {cmd: mkdir d && cp seed.txt d/a && echo same > d/b, deps: [seed.txt], params: [total], outs: [d]}
  note: {cmd: cp d/a n.json, deps: [d], metrics: [{n.json: {cache: false}}]}
"""


def test_what_goes_is_said_by_reason_and_removed_only_when_it_is_asked_for(
    toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = toy(STAGE)
    cache = workspace.cache_of(made.root)
    for seed in ("1", "22", "333"):
        night(made, seed, 1)
    stray = objects.place(cache, "ab" * 16)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("nobody's")
    assert main(["gc", str(made.root), "--nights", "1", "--dry-run"]) == 0
    assert "goes" not in capsys.readouterr().out  # all of it is young
    age(made, 3)
    before = {path for path in cache.rglob("*") if path.is_file()}
    assert main(["gc", str(made.root), "--nights", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert {path for path in cache.rglob("*") if path.is_file()} == before
    assert {line.split(": ")[1] for line in said.splitlines()} == {
        gc.TONIGHT, gc.NIGHTS, gc.NOBODY, gc.OLD, gc.RUNS,
    }  # fmt: skip
    assert main(["gc", str(made.root), "--nights", "2"]) == 0
    assert capsys.readouterr().out == said
    assert not stray.exists()
    made.learn(history.newest(of(made.root), Commit(made.root, "HEAD"), reading.read(made.root)))
    assert {one.outcome for one in made.run("HEAD").values()} == {"unchanged"}
    assert main(["gc", str(made.root), "--nights", "2"]) == 0
    assert "goes" not in capsys.readouterr().out
    stray.mkdir()
    age(made, 3)
    assert main(["gc", str(made.root), "--nights", "2"]) == 2
    assert capsys.readouterr().err == f"{stray}: Is a directory\n"
    assert lease.read(of(made.root)) is None


def test_one_that_is_cut_off_leaves_no_folder_half_there(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy(STAGE)
    for number in range(2):
        night(made, f"{number}", number)
    age(made, 3)
    cache, real, left = workspace.cache_of(made.root), Path.unlink, list[str]()
    sweep = gc.look(made.root, of(made.root), nights=0)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        lists = list(cache.glob("files/md5/??/*.dir"))
        left.extend(md5 for one in lists for md5 in objects.listed(one) if not objects.place(cache, md5).exists())
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    sweep.remove()
    assert len(sweep.files) > 1
    assert left == []


@pytest.mark.parametrize("idle_s", [0, 700])
@pytest.mark.parametrize("refs", ["refs/dvc-airflow", "refs/others"])
def test_it_does_not_run_beside_a_night_though_that_waits_for_a_person(
    refs: str, idle_s: float, toy: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = toy(STAGE)
    made.git("branch", "are/running")
    made.git("update-ref", "refs/exps/ab/running", "HEAD")  # an experiment's
    for kind in ("unpublished", "pinned"):  # of a run that is called so
        made.git("update-ref", f"{refs}/{kind}/running", "HEAD")
    gc.refuse_beside(of(made.root))
    record = Repository(made.root, "nights", refs)
    lease.take(record, "tonight", "here", time.time() - idle_s)
    assert main(["gc", str(made.root), "--nights", "1"]) == 2
    what = f"{refs}/running says that a night is under way, or waits for a person or a slot"
    assert capsys.readouterr().err == f"{what}; wait until it ends, or remove that ref where there is none\n"
    assert lease.read(record)
    if refs == of(made.root).refs:
        gc.look(made.root, record, nights=1)  # as its own last task does
    else:
        with pytest.raises(ProjectError, match=refs):
            gc.look(made.root, of(made.root), nights=1)


def test_what_a_night_restores_is_young(toy: Make) -> None:
    """No commit names it yet, and nobody else knows that it is read tonight."""
    made = toy(STAGE)
    commit = made.git("rev-parse", "HEAD")
    made.run(commit)
    age(made, 3)
    made.entries = {}
    assert {one.outcome for one in made.run(commit).values()} == {"cached"}
    assert gc.look(made.root, of(made.root), nights=0).gone == {}


def test_what_a_night_restores_while_it_is_decided_what_goes_stays(toy: Make) -> None:
    """The lease is one DAG's: a night of another may begin meanwhile."""
    made = toy(STAGE)
    commit, cache = made.git("rev-parse", "HEAD"), workspace.cache_of(made.root)
    made.run(commit)
    stray = put(cache, b"nobody's", time.time())
    age(made, 3)
    made.entries = {}
    sweep = gc.look(made.root, of(made.root), nights=0)
    results = made.run(commit)
    assert {one.outcome for one in results.values()} == {"cached"}
    sweep.remove()
    assert not objects.place(cache, stray).exists()
    for name, store in [("make", cache), ("note", uncached.store(cache))]:
        outs = lock.hashes(made.known().stages[name], results[name].entry or {}, "outs")
        assert objects.problems(store, outs) == []


def test_what_people_and_unpublished_nights_name_stays(toy: Make) -> None:
    made = toy(STAGE)
    record = of(made.root)
    tagged = night(made, "1", 1).commit
    made.git("tag", "-a", "-m", "one", "toy@v1", tagged)
    branched = night(made, "22", 1).commit
    made.git("branch", "theirs", branched)
    waiting = night(made, "333", 1).commit
    gone = night(made, "4444", 1).commit
    held = night(made, "55555", 1).commit
    (made.root / "dvc.lock").write_text(made.git("show", f"{held}:dvc.lock"))
    last = night(made, "666666", 1).commit
    made.git("update-ref", "refs/dvc-airflow/unpublished/x", waiting)
    age(made, 3)
    gc.look(made.root, record, nights=0, most_bytes=0).remove()
    cache, known = workspace.cache_of(made.root), reading.read(made.root)

    def whole(commit: str) -> bool:
        found = history.newest(Repository(made.root, "none", "refs/none"), Commit(made.root, commit), known)
        return all(
            plan.unchanged(known.stages[name], entry, {}, Commit(made.root, commit), cache) is not False
            for name, [(entry, _), *_] in found.items()
            if name == "make"
        )

    assert {name: whole(commit) for name, commit in [
        ("tagged", tagged), ("branched", branched), ("waiting", waiting), ("held", held), ("last", last), ("gone", gone)
    ]} == {"tagged": True, "branched": True, "waiting": True, "held": True, "last": True, "gone": False}  # fmt: skip


def test_what_a_linked_work_tree_names_stays(toy: Make, tmp_path: Path) -> None:
    made = toy(STAGE)
    cache, trees = workspace.cache_of(made.root), [tmp_path / one for one in ("theirs", "removed")]
    for number, tree in enumerate(trees):
        made.git("worktree", "add", "-q", "--detach", str(tree))
        for name in (f"{number} committed", f"{number} added"):
            (tree / f"{name}.dvc").write_text(f"outs: [{{md5: {put(cache, name.encode(), 0)}, path: '{name}'}}]\n")
            if name.endswith("committed"):
                git(tree, "add", "-A")
                git(tree, "commit", "-q", "-m", name)
                (tree / f"{name}.dvc").unlink()
    shutil.rmtree(trees[1])
    made.git("worktree", "add", "-q", "--detach", str(tmp_path / "begun"))
    git(tmp_path / "begun", "checkout", "-q", "--orphan", "begun")  # no commit yet
    assert {path.read_text() for path in gc.look(made.root, of(made.root), nights=0).files} == {
        "1 committed",
        "1 added",
    }


def test_nights_of_another_dag_are_its_own(toy: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = toy(STAGE)
    first, second = night(made, "1", 1).commit, night(made, "22", 1).commit
    made.git("branch", "-m", "dvc-airflow", "theirs")
    age(made, 3)
    cache = workspace.cache_of(made.root)
    before = {path for path in cache.rglob("*") if path.is_file()}
    assert main(["gc", str(made.root), "--nights", "1"]) == 2
    said = capsys.readouterr().err
    assert "no night has been published on dvc-airflow, so what is kept of it cannot be told; name the branch" in said
    made.git("update-ref", "refs/heads/dvc-airflow", made.git("rev-parse", "HEAD"))
    assert main(["gc", str(made.root), "--nights", "1", "--bytes", "1 GB"]) == 0
    assert {path for path in cache.rglob("*") if path.is_file()} == before
    assert main(["gc", str(made.root), "--nights", "1", "--branch", "a b"]) == 2
    assert "branch is 'a b', of which Git makes no ref; call it otherwise" in capsys.readouterr().err
    assert first != second


@pytest.mark.parametrize(("remote", "changed"), [("", False), ("origin", False), ("", True)])
def test_older_nights_of_another_dag_stay(remote: str, changed: bool, toy: Make) -> None:
    made = toy(STAGE)
    made.git("init", "-q", "--bare", str(made.root.parent / "bare"))
    made.git("remote", "add", "origin", str(made.root.parent / "bare"))
    weekly, daily = of(made.root, "weekly", None, remote), of(made.root, None, None, remote)
    clones, kept = made.root / ".dvc/tmp/clones", list[str]()
    for seed, record in [("1", weekly), ("22", weekly), ("333", daily), ("4444", daily)]:
        if record is daily and changed:  # people took over what the other made
            made.git("merge", "-q", "--no-ff", "weekly")
        results = made.run(made.commit({"seed.txt": seed}))
        publish.publish(made.pinned("HEAD", record), made.known(), results, record, None, {}, clones)
        kept += [] if record is daily else [(results["make"].entry or {})["outs"][0]["md5"]]
    if changed:  # somebody wrote on the branch
        made.git("branch", "-f", "weekly", made.git("commit-tree", "-p", "weekly", "-m", "word", "weekly^{tree}"))
    made.git("branch", "hotfix", made.git("commit-tree", "-p", f"{daily.tip}~1", "-m", "fix", f"{daily.tip}^{{tree}}"))
    age(made, 3)
    gone = gc.look(made.root, daily, nights=1)
    gone.remove()
    assert len(gone.files) > 0  # of our own older night, though somebody began from it
    assert [one for one in kept if objects.place(workspace.cache_of(made.root), one).is_file()] == kept


def put(store: Path, content: bytes, written: float) -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    place = objects.place(store, md5)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    os.utime(place, (written, written))
    return md5


def test_a_ref_that_cannot_be_read_may_name_anything(toy: Make) -> None:
    made = toy(STAGE)
    record, cache = of(made.root), workspace.cache_of(made.root)
    md5 = put(cache, b"theirs", time.time() - 3 * DAY)
    tracked = made.commit({"x.dvc": f"outs:\n- md5: {md5}\n  path: x\n"})
    made.git("branch", "theirs")
    made.git("reset", "-q", "--hard", "HEAD^")
    made.git("tag", "of-a-file", made.git("rev-parse", "HEAD:seed.txt"))
    assert gc.look(made.root, record, nights=1).gone == {}
    tree = made.git("rev-parse", f"{tracked}^{{tree}}")
    (made.root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(
        ProjectError, match=f"Git cannot read {tracked}, which may name anything, so nothing is removed"
    ):
        gc.look(made.root, record, nights=1)


def test_what_is_stashed_stays(toy: Make) -> None:
    made = toy(STAGE)
    for number in range(2):
        md5 = put(workspace.cache_of(made.root), f"{number}".encode(), time.time() - 3 * DAY)
        (made.root / "x.dvc").write_text(f"outs:\n- md5: {md5}\n  path: x\n")
        made.git("add", *["x.dvc"] * (1 - number), "seed.txt")
        made.git("stash", "push", "-qu")
    assert gc.look(made.root, of(made.root), nights=1).gone == {}


def test_what_experiments_that_are_queued_name_stays(toy: Make) -> None:
    """DVC keeps them as Git keeps a stash: of all but the newest only the reflog tells."""
    made = toy(STAGE)
    for number in range(2):
        md5 = put(workspace.cache_of(made.root), f"{number}".encode(), time.time() - 3 * DAY)
        (made.root / "x.dvc").write_text(f"outs:\n- md5: {md5}\n  path: x\n")
        made.git("add", "x.dvc")
        with Repo(str(made.root)) as repo:
            repo.experiments.run(queue=True, tmp_dir=True)
        made.git("reset", "-q", "--hard")
    assert len(made.git("log", "-g", "--format=%H", "refs/exps/celery/stash").splitlines()) == 2
    assert gc.look(made.root, of(made.root), nights=1).gone == {}


def test_nights_of_another_dag_stay_though_the_branch_goes_on_from_them(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Git is configured to."""
    configured = {"grep.patternType": "fixed", "trailer.separators": "="}
    configured |= {"i18n.logOutputEncoding": "latin1", "i18n.commitEncoding": "latin1"}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(configured)))
    for number, (key, value) in enumerate(configured.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    made, theirs, ours = toy(STAGE), set[str](), "n\N{LATIN SMALL LETTER A WITH DIAERESIS}chte"
    for branch in ("weekly", ours):
        for number in range(3):
            assert night(made, f"{branch} {number}", 1, branch).new
            theirs |= {one["md5"] for one in made.entries["make"]["outs"]} if branch == "weekly" else set()  # type: ignore[index]
            made.git("merge", "-q", "--ff-only", branch)
            if branch == "weekly":
                amend = ["commit", "-q", "--amend", "--signoff", "--no-edit", "--reset-author"]
                made.git("-c", "user.name=dvc-airflow", *amend)
                made.git("branch", "-qf", branch, "HEAD")
    age(made, 10)
    gone = gc.look(made.root, of(made.root, ours), nights=1)
    assert gone.files
    gone.remove()
    cache = workspace.cache_of(made.root)
    assert [md5 for md5 in theirs if not objects.place(cache, md5).is_file()] == []


@pytest.mark.parametrize("nights", [40, pytest.param(365, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_nights_stay_under_the_limit(nights: int, toy: Make) -> None:
    """A folder of two files, a tenth of it shared with the night before; each tenth night is a release, with a tag."""
    made = toy(STAGE)
    root, cache, limit, now = made.root, workspace.cache_of(made.root), 400_000, time.time()
    record, parent = of(root), made.git("rev-parse", "HEAD")
    kept, waiting = set[str](), ""
    for number in range(nights):
        now += DAY
        common = put(cache, b"c" * 1000 + str(number // 10).encode(), now)
        own = put(cache, os.urandom(10_000), now)
        listed = json.dumps([{"md5": common, "relpath": "b"}, {"md5": own, "relpath": "a"}]).encode()
        top = put(cache, listed, now)
        objects.place(cache, top).rename(objects.place(cache, f"{top}.dir"))
        note = put(uncached.store(cache), str(number).encode(), now)
        lock = (
            "schema: '2.0'\nstages:\n  make:\n    cmd: x\n    outs:\n    - path: d\n      hash: md5\n"
            f"      md5: {top}.dir\n  note:\n    cmd: y\n    outs:\n    - path: n.json\n      md5: {note}\n"
        )
        blob = git(root, "hash-object", "-w", "--stdin", stdin=lock)
        tree = git(root, "mktree", stdin=f"100644 blob {blob}\tdvc.lock\n")
        whose = ["-m", record.trailer] if number > nights // 4 else []  # nights did not always say it
        commit = git(root, "commit-tree", tree, "-p", parent, "-m", f"Night {number}", *whose, env=WHO)
        if number == nights // 2:
            made.git("update-ref", "refs/dvc-airflow/unpublished/x", commit)
            waiting = own
        else:
            made.git("update-ref", "refs/heads/dvc-airflow", commit)
            parent = commit
        if number % 100 == 10:
            made.git("tag", f"toy@v{number}", commit)
            kept.add(own)
        gc.look(root, record, nights=20, most_bytes=limit, now=now).remove()
        held = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        assert held <= limit + 25_000  # what is young stays whatever it takes
        assert objects.place(cache, own).is_file()
    for md5 in kept | {waiting}:
        assert objects.place(cache, md5).is_file()
    assert 15 <= len(list(cache.glob("files/md5/*/*.dir"))) <= 25


def test_what_others_may_need_is_not_touched(toy: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = toy(STAGE)
    config = made.root / ".dvc" / "config"
    config.write_text(f"{config.read_text()}[cache]\n    dir = {tmp_path / 'shared'}\n")
    assert main(["gc", str(made.root), "--nights", "1"]) == 2
    assert "is not this project's alone, and others may need what it holds" in capsys.readouterr().err


def test_a_lock_that_cannot_be_read_may_name_anything(toy: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = toy(STAGE)
    (made.root / "dvc.lock").write_text("<<<<<<< ours\nstages: {\n")
    assert main(["gc", str(made.root), "--nights", "1"]) == 2
    assert "cannot be read, so nothing is removed" in capsys.readouterr().err
