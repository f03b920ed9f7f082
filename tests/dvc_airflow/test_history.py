"""Which entry a night starts from: what nights made, what people made and committed, what a failed night finished."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_engine.night import publish
from dvc_engine.pipeline import lock, reading
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage import start
from dvc_engine.stage.outcome import Result, standing
from dvc_engine.stage.settled import settled
from dvc_engine.store import history, lease, objects, params
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_data import remote
from tests.dvc_airflow.test_operator import RUN, ended, pinned

Make = Callable[..., Toy]
REFS = "refs/dvc-airflow"
CHAIN = """\
stages:
  load: {cmd: echo run >> log && echo 1 > loaded, outs: [loaded]}
  train: {cmd: cp seed.txt model, deps: [seed.txt], outs: [{model: {cache: false}}]}
  judge: {cmd: cat loaded model > said && test -e good, deps: [loaded, model, src], outs: [said]}
"""
FROZEN = """\
stages:
  make: {cmd: cp seed.txt made, deps: [seed.txt], outs: [made]}
  read: {cmd: cp made seen, deps: [made], outs: [{seen: {cache: false}}]}
"""


def record(made: Toy) -> Repository:
    return Repository(made.root, "nights", REFS)


def known(made: Toy) -> history.Known:
    return history.newest(record(made), Commit(made.root, made.git("rev-parse", "HEAD")), reading.read(made.root))


def newest(made: Toy) -> dict[str, lock.Entry]:
    """The newest entry of every stage."""
    return {name: entries[0][0] for name, entries in known(made).items()}


def by_hand(made: Toy, *targets: str) -> None:
    """`dvc repro` in the checkout."""
    before = Path.cwd()
    os.chdir(made.root)
    try:
        with Repo(str(made.root)) as repo:
            repo.reproduce(targets=list(targets))
    finally:
        os.chdir(before)


def night(made: Toy) -> dict[str, Result]:
    """A night of what is committed, published or kept as its tasks do it."""
    project = made.known()
    found, nearest = start.known(project, Commit(made.root, made.git("rev-parse", "HEAD")), record(made))
    pinned = replace(made.pinned("HEAD", record(made)), known=found, nearest=nearest)
    still = settled(pinned, project, made.root / ".dvc/tmp/clones")
    others = [one.name for one in project.stages.values() if not one.selected]
    results: dict[str, Result] = standing(pinned, [*still, *others])  # as the pin tells
    for stage in (one for one in project.order if one not in results):
        results[stage] = made.attempt(stage, pinned, results).run()
    if all(one.well for one in results.values()):
        publish.publish(pinned, project, results, record(made), None, {}, made.root / ".dvc/tmp/clones")
    else:
        publish.remember(pinned, project, results, record(made))
    return results


def outcomes(results: dict[str, Result]) -> dict[str, str]:
    return {name: one.outcome for name, one in results.items()}


def dep(made: Toy, entry: lock.Entry) -> str:
    """The content of seed.txt that an entry of `numbers` is of."""
    md5 = lock.hashes(made.known().stages["numbers"], entry, "deps")["seed.txt"]
    return next(one for one in "789" if objects.md5(one.encode()) == md5)


def after_a_merge(toy: Make) -> Toy:
    """A project whose first night somebody merged, before seed.txt became 8."""
    made = toy(CHAIN, **{"good": "", "src": "1"})
    night(made)
    made.git("merge", "-q", "nights")
    made.commit({"seed.txt": "8"})
    return made


def test_what_a_person_made_is_newer_than_the_night_before_and_older_than_the_night_after(toy: Make) -> None:
    made = toy()
    night(made)
    made.commit({"seed.txt": "8"})
    by_hand(made)
    theirs = made.commit({})
    (entry, came), *older = known(made)["numbers"]
    assert (dep(made, entry), came) == ("8", theirs)
    assert [dep(made, entry) for entry, _ in older] == ["7"]
    made.commit({"seed.txt": "9"})
    night(made)
    (entry, came), *older = known(made)["numbers"]
    assert (dep(made, entry), came) == ("9", record(made).tip)
    assert [dep(made, entry) for entry, _ in older] == ["8"]


def test_what_a_person_made_and_committed_is_not_made_again(toy: Make) -> None:
    made = toy(CHAIN, **{"good": "", "src": ""})
    night(made)
    made.commit({"seed.txt": "8"})
    by_hand(made)
    made.commit({})
    shutil.rmtree(made.root / ".dvc/cache/runs", ignore_errors=True)
    assert set(outcomes(night(made)).values()) == {"unchanged"}
    made.commit({"seed.txt": "9"})
    assert outcomes(night(made)) == {"load": "unchanged", "train": "ran", "judge": "ran"}
    made.commit({"seed.txt": "8"})
    shutil.rmtree(made.root / ".dvc/cache/runs", ignore_errors=True)
    assert outcomes(night(made)) == {"load": "unchanged", "train": "cached", "judge": "cached"}
    assert made.git("show", "nights:model") == "8"


def test_who_reads_what_came_back_to_an_older_entry_reads_that(toy: Make) -> None:
    made = after_a_merge(toy)
    night(made)
    made.commit({"seed.txt": "7", "src": "2"})
    results = night(made)
    assert outcomes(results) == {"load": "unchanged", "train": "cached", "judge": "ran"}
    read = lock.hashes(made.known().stages["judge"], results["judge"].entry or {}, "deps")["model"]
    assert read == objects.md5(b"7")
    assert made.git("show", "nights:model") == "7"


def test_an_older_entry_that_only_dvc_can_tell_of_is_said_to_be_one(toy: Make) -> None:
    made = toy("stages:\n  train: {cmd: cp seed.txt model, deps: [seed.txt, src], outs: [model]}\n")
    (made.root / "src").mkdir()
    made.commit({"src/a": "1"})
    night(made)
    made.git("merge", "-q", "nights")
    made.commit({"seed.txt": "8"})
    night(made)
    made.commit({"seed.txt": "7"})
    shutil.rmtree(made.root / ".dvc/cache/runs")
    assert outcomes(night(made)) == {"train": "cached"}


def test_what_a_failed_night_made_is_not_newer_than_a_night_after_it(toy: Make) -> None:
    made = after_a_merge(toy)
    made.git("rm", "-q", "good")
    made.commit({})
    assert outcomes(night(made))["judge"] == "failed"
    made.commit({"seed.txt": "7", "good": ""})
    night(made)
    assert record(made).unpublished() == {}
    assert newest(made)["train"]["deps"][0]["md5"] == objects.md5(b"7")


def test_a_night_of_some_stages_leaves_out_a_file_of_another_that_nobody_has(toy: Make) -> None:
    made = toy(FROZEN.replace("cp made seen", "cat made made > seen"), **{".gitignore": "seen\n"})
    by_hand(made)
    made.commit({})
    (made.root / "seen").unlink()
    made.select = ["make"]
    made.commit({"seed.txt": "8"})
    assert outcomes(night(made))["make"] == "ran"
    assert "md5" in made.git("show", f"{REFS}/unpublished/{publish.SOME}:dvc.lock")


@pytest.mark.parametrize("lost", ["what both have", "what it said"])
def test_of_a_history_that_was_written_anew_nights_are_the_newest(lost: str, toy: Make) -> None:
    made = toy("stages:\n  grow: {cmd: cat seed.txt >> grown, deps: [seed.txt], outs: [{grown: {persist: true}}]}\n")
    if lost == "what it said":
        made.commit({"dvc.lock": "<<<<<<< ours\n"})
        made.git("rm", "-q", "dvc.lock")
        made.commit({})
        made.git("branch", "other", "HEAD~1")
    else:
        by_hand(made)
        made.commit({})
    night(made)
    if lost == "what it said":
        made.git("checkout", "-q", "other")
        made.git("rm", "-q", "dvc.lock")
    else:
        made.git("reset", "-q", "--hard", made.git("commit-tree", "HEAD^{tree}", "-m", "all in one"))
    made.commit({"seed.txt": "8"})
    grown = lock.hashes(made.known().stages["grow"], night(made)["grow"].entry or {}, "outs")["grown"]
    assert objects.place(made.root / ".dvc/cache", grown).read_text() == "78"


def test_a_lock_file_that_somebody_broke_on_the_branch_of_nights_is_mended_by_the_next(toy: Make) -> None:
    made = toy(FROZEN)
    night(made)
    made.git("checkout", "-q", "nights")
    made.commit({"dvc.lock": "<<<<<<< ours\n"})
    made.git("checkout", "-q", "main")
    assert outcomes(night(made))["make"] == "cached"
    assert made.git("show", "nights:dvc.lock").startswith("schema")


def test_a_stage_that_is_frozen_is_what_its_people_made_last(toy: Make) -> None:
    made = toy(FROZEN)
    night(made)
    made.commit({"seed.txt": "8"})
    by_hand(made)
    made.commit({"dvc.yaml": FROZEN.replace("make: {", "make: {frozen: true, ")})
    night(made)
    assert made.git("show", "nights:seen") == "8"


def test_what_a_failed_night_finished_is_not_done_again(toy: Make) -> None:
    made = toy(CHAIN, src="")
    assert outcomes(night(made)) == {"load": "ran", "train": "ran", "judge": "failed"}
    shutil.rmtree(made.root / ".dvc/cache/runs", ignore_errors=True)
    assert record(made).tip is None
    assert made.git("log", "-1", "--format=%s", f"{REFS}/unpublished/of-some-stages") == "Night night of load, train"
    assert publish.remember(made.pinned("HEAD", record(made)), made.known(), {}, record(made)) is None
    made.commit({"good": "", "src": "mended"})
    assert outcomes(night(made)) == {"load": "unchanged", "train": "unchanged", "judge": "ran"}
    assert made.git("show", "nights:model") == "7"
    assert record(made).unpublished() == {}


def test_what_a_person_is_asked_about_is_asked_about_again(toy: Make) -> None:
    asking = CHAIN.replace("outs: [loaded]", "outs: [loaded], meta: {airflow: {approve: is it good}}")
    made = toy(asking, src="")
    night(made)
    assert set(known(made)) == {"train"}


@pytest.mark.parametrize("cleared", [False, True])
def test_the_end_of_a_night_that_failed_keeps_what_it_finished(
    cleared: bool, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow import DvcDag

    made = toy(CHAIN, src="")
    dag, ti = DvcDag("mine", made.root, branch="nights", refs=REFS), pinned(made)
    for name, one in made.run("HEAD").items():
        ti.said[name, "result"] = one.as_json() | {"attempts": 1}
    made.entries.clear()
    lease.take(record(made), "another", "here", now=time.time())
    ended(made, dag, ti)
    assert record(made).unpublished() == {}  # the lease is not its own
    lease.release(record(made), "another")
    if cleared:  # a stage, after the night has ended: nobody has a lease
        made.git("branch", "nights")
        ended(made, dag, ti)
        assert record(made).unpublished() == {}  # others have published since
        made.git("branch", "-D", "nights")
        newer = made.git("commit-tree", "-m", "Night newer of load", "HEAD^{tree}")
        record(made).keep("of-some-stages", newer)
        ended(made, dag, ti)
        assert list(record(made).unpublished().values()) == [newer]
        made.git("update-ref", "-d", f"{REFS}/unpublished/of-some-stages")
        record(made).keep("monday", newer)  # this waited when the night was pinned
        night_of = replace(made.night("HEAD"), seen=record(made).nights())
        ti.said["pin", "return_value"]["night"] = night_of.dumps()
    else:
        dag.get_task("pin")._lease({"ti": ti, "run_id": RUN})
        ti.said["pin", "return_value"]["holder"] = dag.get_task("pin").holder({})
    _, said = ended(made, dag, ti)
    assert said.startswith("the night was not published: judge: failed")
    assert set(known(made)) == {"load", "train"}
    assert lease.read(record(made)) is None


@pytest.mark.parametrize("way", ["frozen", "not selected"])
def test_what_does_not_run_is_of_this_branch_and_not_of_the_newest_nights(way: str, toy: Make) -> None:
    text = FROZEN.replace("cp made seen", "cat made seed.txt > seen")
    made = toy(text)
    night(made)
    made.git("merge", "-q", "nights")
    before = made.git("rev-parse", "HEAD")
    made.commit({"seed.txt": "8"})
    night(made)
    made.git("merge", "-q", "nights")
    made.git("checkout", "-q", "-b", "hotfix", before)
    made.commit({"dvc.yaml": text.replace("make: {", "make: {frozen: true, " if way == "frozen" else "make: {")})
    made.select = ["read"] if way == "not selected" else []
    made.commit({"dvc.yaml": (made.root / "dvc.yaml").read_text().replace("> seen", "- > seen")})
    assert night(made)["read"].files == {"seen": "77"}


def test_a_trial_that_failed_is_not_read_by_a_night_without_its_params(toy: Make) -> None:
    made = toy(
        "stages:\n  make: {cmd: cp params.yaml made, params: [total.by], outs: [made]}\n"
        "  read: {cmd: grep by made > seen, deps: [made], outs: [{seen: {cache: false}}]}\n"
        "  judge: {cmd: '! grep 2 seen', deps: [seen]}\n"
    )
    night(made)
    kept = made.git("rev-parse", "HEAD")
    made.git("checkout", "-q", params.override(made.root, kept, {"total.by": 2}))
    night(made)
    made.git("checkout", "-q", kept)
    made.select = ["read"]
    night(made)
    assert made.git("show", f"{REFS}/unpublished/{publish.SOME}:seen") == "total: {by: 1}"


def test_a_frozen_stage_below_one_that_runs_is_the_newest(toy: Make) -> None:
    """What is committed of a `cache: false` out is what an earlier night made."""
    text = (
        "stages:\n  make: {cmd: cp seed.txt made, deps: [seed.txt], outs: [{made: {cache: false}}]}\n"
        "  mid: {cmd: cp made between, deps: [made], outs: [{between: {cache: false}}]}\n"
        "  last: {cmd: cat made between > seen, deps: [made, between], outs: [{seen: {cache: false}}]}\n"
    )
    made = toy(text)
    night(made)
    made.git("merge", "-q", "nights")
    made.commit({"seed.txt": "8"})
    night(made)
    frozen = text.replace("mid: {", "mid: {frozen: true, ").replace("> seen", "- > seen")
    made.commit({"dvc.yaml": frozen})
    assert night(made)["last"].files == {"seen": "88"}
    made.commit({"dvc.yaml": frozen, "seed.txt": "7"})  # what is made of that, and of what is made of it, is known
    night(made)
    assert made.git("show", "nights:seen") == "77"


def test_a_night_of_some_stages_keeps_what_others_kept(toy: Make) -> None:
    made = toy(FROZEN)
    night(made)
    made.git("merge", "-q", "nights")
    before = made.git("rev-parse", "HEAD")
    made.select = ["make"]
    made.commit({"seed.txt": "8"})
    eight = night(made)["make"].entry
    made.git("checkout", "-q", before)
    made.select = ["read"]
    made.commit({"dvc.yaml": FROZEN.replace("cp made seen", "cat made > seen")})
    read = lock.hashes(made.known().stages["read"], night(made)["read"].entry or {}, "deps")["made"]
    assert read == objects.md5(b"7")
    assert newest(made)["make"] == eight


def test_a_night_of_some_stages_in_which_nothing_is_new_is_no_other_commit(toy: Make) -> None:
    made = toy(FROZEN)
    night(made)
    made.select = ["make"]
    made.commit({"seed.txt": "8"})
    night(made)
    before = record(made).unpublished()
    night(made)
    assert record(made).unpublished() == before


def test_the_commits_own_entry_is_known_however_many_nights_wait(toy: Make) -> None:
    made, entries, commits = toy(FROZEN), list[lock.Entry | None](), list[str]()
    for seed in "123456":
        made.commit({"seed.txt": seed})
        entries.append(night(made)["make"].entry)
        commits.append(made.git("rev-parse", "nights"))
    for number, commit in enumerate(commits):
        record(made).keep(f"night-{9 - number}", commit)  # of those of one second Git has the first name first
    made.git("checkout", "-q", commits[0])
    found = [entry for entry, _ in known(made)["make"]]
    assert len(found) == history.MOST + 1
    assert found[-1] == entries[0]


@pytest.mark.parametrize("lost", [("cache/runs",), ("cache/runs", "cache/files")])
def test_a_change_that_is_taken_back_is_not_waited_for_again_by_another_worker(
    lost: tuple[str, ...], toy: Make
) -> None:
    """What ran three nights ago stands in the branch's history alone; on that worker's disk is what DVC keeps of it."""
    made = toy(CHAIN, **{"good": "", "src": "1"})
    remote(made)
    made.commit({})
    first = night(made)
    for seed in "89":
        made.commit({"seed.txt": seed})
        night(made)
    for folder in lost:
        shutil.rmtree(made.root / ".dvc" / folder)
    made.commit({"seed.txt": "7"})
    results = night(made)
    assert {name: one.outcome for name, one in results.items() if name != "load"} == dict.fromkeys(
        ("train", "judge"), "cached"
    )
    assert [results[name].entry for name in first] == [one.entry for one in first.values()]
    assert made.git("show", "nights:model") == "7"


def test_what_git_alone_has_of_a_night_before_goes_where_another_worker_finds_it(toy: Make) -> None:
    text = "stages:\n  train: {cmd: cp seed.txt model, deps: [seed.txt], outs: [{model: {cache: false}}]}\n"
    made = toy(f"{text}  judge: {{cmd: cat model src > said, deps: [model, src], outs: [said]}}\n", src="1")
    remote(made)
    for seed in "78":
        made.commit({"seed.txt": seed})
        by_hand(made)
        made.commit({})
    night(made)
    made.commit({"seed.txt": "9"})
    night(made)
    made.commit({"seed.txt": "7", "src": "2"})
    project = made.known()
    pin = replace(made.pinned("HEAD", record(made)), known=known(made))
    results = dict[str, Result]()
    for stage in project.order:
        shutil.rmtree(made.root / ".dvc" / "cache", ignore_errors=True)  # each is another worker's
        results[stage] = made.attempt(stage, pin, results).run()
    assert outcomes(results) == {"train": "cached", "judge": "ran"}
    shutil.rmtree(made.root / ".dvc" / "cache")
    assert publish.publish(pin, project, results, record(made), None, {}, made.root / ".dvc/tmp/clones").new
    assert made.git("show", "nights:model") == "7"


@pytest.mark.parametrize("broken", ["<<<<<<<\n", "    deps: 5\n", "  - a\n"])
def test_a_night_before_that_somebody_broke_is_passed_over(broken: str, toy: Make) -> None:
    made = toy("stages:\n  train: {cmd: cp seed.txt model, deps: [seed.txt], params: [total.by], outs: [model]}\n")
    night(made)
    made.git("checkout", "-q", "nights")
    whole = (made.root / "dvc.lock").read_text()
    made.commit({"dvc.lock": f"schema: '2.0'\nstages:\n  train:\n    cmd: cp seed.txt model\n    params:\n{broken}"})
    made.commit({"dvc.lock": whole})
    made.git("checkout", "-q", "main")
    made.commit({"params.yaml": "total: {by: 5}\n"})
    assert outcomes(night(made)) == {"train": "ran"}


@pytest.mark.parametrize("merged", [False, True])
def test_a_folder_of_git_that_is_the_same_again_is_found_among_nights_before(merged: bool, toy: Make) -> None:
    made = toy("stages:\n  train: {cmd: cat seed.txt src/* > model, deps: [seed.txt, src], outs: [model]}\n")
    (made.root / "src").mkdir()
    entries = list[lock.Entry | None]()
    for source in "ABC":
        made.commit({"src/a": source})
        entries.append(night(made)["train"].entry)
        if merged and source == "A":  # from here on a lock file stands in each commit, and says what was
            made.git("merge", "-q", "nights")
    assert entries[0] != entries[1] != entries[2]
    shutil.rmtree(made.root / ".dvc" / "cache" / "runs")
    made.commit({"src/a": "A"})
    again = night(made)["train"]
    assert (again.outcome, again.entry) == ("cached", entries[0])


def test_the_newest_entry_comes_before_one_of_the_same_whose_commit_is_nearer(toy: Make) -> None:
    made = toy("stages:\n  train: {cmd: cat seed.txt src/a > model, deps: [seed.txt, src], outs: [model]}\n")
    (made.root / "src").mkdir()
    (made.root / ".dvcignore").write_text("*.md\n")
    made.commit({"src/a": "A"})
    night(made)
    made.git("merge", "-q", "nights")
    made.commit({"src/a": "B"})
    night(made)
    made.commit({"src/README.md": "words"})
    shutil.rmtree(made.root / ".dvc" / "cache" / "runs")
    assert outcomes(night(made)) == {"train": "unchanged"}


def test_what_people_made_is_not_what_the_branch_of_nights_has(toy: Make) -> None:
    made = toy(FROZEN)
    first = night(made)["make"].entry
    made.commit({"seed.txt": "8"})
    by_hand(made)
    made.commit({})
    stage, tip = made.known().stages["make"], Commit(made.root, made.git("rev-parse", "nights"))
    assert history.published(tip, stage) == first != newest(made)["make"]


def test_an_older_entry_of_the_same_tree_is_not_taken_where_others_make_what_lies_in_it(toy: Make) -> None:
    made = toy("""\
stages:
  make: {cmd: cp seed.txt data/x, deps: [seed.txt], outs: [data/x]}
  train: {cmd: cat data/x > model, deps: [data], outs: [model]}
""")
    (made.root / "data").mkdir()
    made.commit({"data/readme": "r", "data/.gitignore": "/x\n", ".dvcignore": "*.md\n"})
    night(made)
    made.commit({"seed.txt": "8", "data/notes.md": "n"})
    night(made)
    made.git("rm", "-q", "data/notes.md")
    made.commit({})  # the tree of the first night, but for what lies in it and Git does not have
    shutil.rmtree(made.root / ".dvc" / "cache" / "runs")
    assert outcomes(night(made)) == {"make": "unchanged", "train": "unchanged"}


def test_what_git_alone_has_of_a_stage_that_need_not_run_reaches_who_reads_it(toy: Make) -> None:
    text = "stages:\n  train: {cmd: cp seed.txt model, deps: [seed.txt], outs: [{model: {cache: false}}]}\n"
    made = toy(f"{text}  judge: {{cmd: cat model src > said, deps: [model, src], outs: [said]}}\n", src="1")
    by_hand(made)
    made.commit({})
    made.commit({"src": "2"})
    project = made.known()
    pin = replace(made.pinned("HEAD", record(made)), known=known(made))
    still = settled(pin, project, made.root / ".dvc/tmp/clones")
    assert set(still) == {"train"}
    shutil.rmtree(made.root / ".dvc" / "cache")  # of the worker that runs the other
    assert made.attempt("judge", replace(pin, settled=list(still)), standing(pin, still)).run().well


def test_a_publication_that_died_before_what_waited_was_gone_is_found_by_the_next_attempt(toy: Make) -> None:
    made = toy(CHAIN, src="")
    night(made)  # which fails, and keeps what it made
    made.commit({"good": ""})
    waiting = record(made).unpublished()
    assert waiting
    results, pin = night(made), made.pinned("HEAD", record(made))
    for ref, commit in waiting.items():
        made.git("update-ref", ref, commit)
    record(made).fetch()  # as its task does
    assert record(made).unpublished() == {}
    tip = record(made).tip
    again = publish.publish(pin, made.known(), results, record(made), None, {}, made.root / ".dvc/tmp/clones")
    assert (again.commit, again.new, again.refused) == (tip, False, "")


@pytest.mark.parametrize("name", ["y2024", "2024", "true", "1e3", "say: it's", "#1"])
def test_what_the_branch_has_of_a_stage_is_found_however_its_name_is_written(name: str, toy: Make) -> None:
    made = toy(json.dumps({"stages": {"each": {
        "matrix": {"a": [name]}, "cmd": "cp seed.txt made", "deps": ["seed.txt"], "outs": ["made"],
    }, name if name.isalnum() else "other": {"cmd": "true", "deps": ["seed.txt"]}}}))  # fmt: skip
    night(made)
    tip = Commit(made.root, made.git("rev-parse", "nights"))
    for stage in made.known().stages.values():
        assert history.published(tip, stage) == newest(made)[stage.name]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("stages:\n  make:\n<<<<<<< HEAD\n    cmd: x\n=======\n    cmd: y\n>>>>>>> other\n", "dvc.lock:4"),
        ("<<<<<<< HEAD\n", "dvc.lock"),
        ("- 1\n", "dvc.lock"),
        ("stages: [make]\n", "dvc.lock"),
    ],
)
def test_a_commit_whose_lock_file_is_broken_is_refused(text: str, where: str, toy: Make) -> None:
    made = toy(FROZEN)
    project = made.known()  # which is kept: no lock file is read when dvc.yaml is as it was
    made.commit({"dvc.lock": text})
    with pytest.raises(ProjectError, match=rf"^{where}: cannot be read as DVC writes it \(conflicts of a merge"):
        start.known(project, Commit(made.root, made.git("rev-parse", "HEAD")), record(made))


@pytest.mark.parametrize("written", ["  hash: md5\n", ""], ids=["DVC 3", "DVC 2"])
def test_a_change_that_is_taken_back_is_found_where_data_lies_in_a_folder_of_git(written: str, toy: Make) -> None:
    made = toy("stages:\n  train: {cmd: cat data/* > model, deps: [data], outs: [model]}\n")
    (made.root / "data").mkdir()
    (made.root / "data" / "x").write_text("x")
    with Repo(str(made.root)) as repo:
        repo.add([str(made.root / "data" / "x")])
    tracked, cache = made.root / "data" / "x.dvc", made.root / ".dvc" / "cache"
    tracked.write_text(tracked.read_text().replace("  hash: md5\n", written))
    if not written:
        shutil.copytree(cache / "files" / "md5", cache, dirs_exist_ok=True)
    for text in ("1", "2"):
        made.commit({"data/readme": text})
        night(made)
    made.commit({"data/readme": "1"})
    shutil.rmtree(made.root / ".dvc" / "cache" / "runs")
    assert outcomes(night(made))["train"] == "cached"


def test_who_reads_an_import_in_a_folder_of_git_runs_when_that_has_changed_and_not_again(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, source = (
        toy("stages:\n  train: {cmd: cat data/got > model, deps: [data], outs: [model]}\n"),
        tmp_path / "source",
    )
    source.write_text("first")
    (made.root / "data").mkdir()
    monkeypatch.chdir(made.root)
    with Repo(str(made.root)) as repo:
        repo.imp_url(str(source), "data/got")
    text = (made.root / "data" / "got.dvc").read_text()
    made.commit({"data/readme": "1", "data/got.dvc": f"{text}meta:\n  airflow: {{update: true}}\n"})
    night(made)
    source.write_text("second")
    assert outcomes(night(made))["train"] == "ran"
    shutil.rmtree(made.root / ".dvc" / "cache" / "runs")
    assert outcomes(night(made))["train"] == "unchanged"
