"""Nights published at a remote: bare, with the branch checked out, with a hook that says no, and away."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dvc_engine.git import GitError, git, tags_of
from dvc_engine.night import publish
from dvc_engine.night.publish import Published
from dvc_engine.pipeline import reading
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage.command import Command
from dvc_engine.stage.outcome import Result
from dvc_engine.store import history, lease, params, repository, snapshot, written
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository
from nightshift import storage
from tests.dvc_airflow.conftest import Toy, at_once

Make = Callable[..., Toy]
REFS = "refs/dvc-airflow"
BY = {"total.by": 2}
NO_BRANCHES = ["a b", "a\tb", "a\x7f", "a..b", "a@{b", "a~b", "a^", "a:b", "a?", "a*", "a[", "a\\b", "-a", ".a", "a/.b"]
NO_BRANCHES += ["/a", "a/", "a//b", "a.", "a.b/c.", "a.lock", "a.lock/b", "HEAD"]
SAYS = """echo '{"message": "a night", "tags": [{"name": "toy@v1", "message": "first"}]}'"""


@pytest.fixture
def made(toy: Make) -> Toy:
    """A project whose remote is bare."""
    made = toy()
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(made.root.parent / "bare")], check=True)
    made.git("remote", "add", "origin", str(made.root.parent / "bare"))
    return made


def at(made: Toy, remote: str = "origin") -> Repository:
    return Repository(made.root, "nights", REFS, remote)


def night(made: Toy, seed: str, run: str, remote: str = "origin", command: Command | None = None) -> Published:
    """A night with this seed, as the tasks of one do it."""
    record, commit = at(made, remote), made.commit({"seed.txt": seed})
    record.fetch()
    known = reading.read(made.root)
    made.learn(history.newest(record, Commit(made.root, commit), known))
    results: dict[str, Result] = made.run(commit)
    return publish.publish(
        replace(made.pinned(commit, record), run=run),
        known,
        results,
        record,
        command,
        {},
        made.root / ".dvc/tmp/clones",
    )


def test_a_bare_remote_gets_branch_and_tags_and_this_checkout_no_branch(made: Toy) -> None:
    (made.root / "says.sh").write_text(SAYS)
    first = night(made, "7", "one", command=Command("sh says.sh"))
    bare = made.root.parent / "bare"
    assert git(bare, "rev-parse", "nights") == first.commit == at(made).tip
    assert made.git("branch", "--list", "nights") == ""
    assert git(bare, "rev-parse", "toy@v1^{}") == first.commit
    second = night(made, "8", "two")
    assert git(bare, "log", "-2", "--first-parent", "--format=%H", "nights").split() == [second.commit, first.commit]
    assert not night(made, "8", "three").new


@pytest.mark.parametrize("how", ["hook", "checked out", "away"])
def test_what_a_remote_refuses_is_published_by_the_next_night(how: str, made: Toy) -> None:
    bare, remote = made.root.parent / "bare", "origin"
    if how == "checked out":
        other = made.root.parent / "other"
        subprocess.run(["git", "init", "-q", "-b", "nights", str(other)], check=True)
        for key, value in [("user.name", "o"), ("user.email", "o@example.org")]:
            git(other, "config", key, value)
        git(other, "commit", "-qm", "theirs", "--allow-empty")
        bare, remote = other, str(other)
    hook = bare / "hooks" / "update"
    if how == "hook":
        hook.write_text('#!/bin/sh\n[ "$1" != refs/heads/nights ] || { echo "no: frozen" >&2; exit 1; }\n')
        hook.chmod(0o755)
    record, commit = at(made, remote), made.commit({"seed.txt": "7"})
    record.fetch()
    results = made.run(commit)
    if how == "away":
        bare.rename(bare.with_name("gone"))
    known, clones = reading.read(made.root), made.root / ".dvc/tmp/clones"
    refused = publish.publish(made.pinned(commit, record), known, results, record, None, {}, clones)
    assert not refused.new
    wanted = {"hook": "remote: no: frozen;", "checked out": "refusing to update checked out branch"}
    assert wanted.get(how, "Could not read from remote repository") in refused.refused
    assert made.git("rev-parse", f"{REFS}/unpublished/night") == refused.commit

    if how == "hook":
        hook.unlink()
    elif how == "checked out":
        git(bare, "checkout", "-q", "-b", "else")
    else:
        bare.with_name("gone").rename(bare)
    after = night(made, "8", "after", remote)
    assert after.new
    assert git(bare, "rev-parse", "nights") == after.commit
    assert git(bare, "for-each-ref", f"{REFS}/unpublished") == made.git("for-each-ref", f"{REFS}/unpublished") == ""
    assert "each@b" in git(bare, "show", "nights:dvc.lock")


def test_what_was_kept_while_the_remote_was_away_stays_the_newest(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    record, bare, nights = at(made), made.root.parent / "bare", [made.git("rev-parse", "HEAD")]
    for number in range(4):
        nights.append(made.git("commit-tree", "HEAD^{tree}", "-p", nights[-1], "-m", f"{number}"))
    _, first, theirs, ours, whole = nights
    waiting = f"{REFS}/unpublished/of-some-stages"
    record.keep("of-some-stages", first)
    made.git("push", "-q", "origin", f"{theirs}:{waiting}")
    record.fetch()
    assert record.unpublished() == {waiting: theirs}
    bare.rename(bare.with_name("gone"))
    record.keep("of-some-stages", ours)
    bare.with_name("gone").rename(bare)
    record.fetch()
    assert record.unpublished() == {waiting: ours}
    assert record.publish(whole, None, {}, record.unpublished()) == ""
    assert git(bare, "for-each-ref", REFS) == made.git("for-each-ref", f"{REFS}/unpublished") == ""


@pytest.mark.parametrize("remote", ["", "origin"])
def test_what_another_has_cleared_up_meanwhile_is_no_failure_of_a_publication(remote: str, made: Toy) -> None:
    record, commit = at(made, remote), made.git("rev-parse", "HEAD")
    for name in ("one", "two", "three"):
        record.keep(name, commit)
    waiting, newer = record.unpublished(), made.git("commit-tree", "HEAD^{tree}", "-m", "newer")
    made.git("update-ref", "-d", f"{REFS}/unpublished/one")
    record.keep("two", newer)
    assert record.publish(commit, None, {}, waiting) == ""
    assert record.tip == commit
    assert record.unpublished() == {f"{REFS}/unpublished/two": newer}


@pytest.mark.parametrize("remote", ["", "origin"])
def test_a_hook_for_what_people_push_is_not_for_nights(remote: str, made: Toy) -> None:
    hook = made.root / ".git" / "hooks" / "pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n")  # as that of `dvc install` ends without a remote of DVC's
    hook.chmod(0o755)
    record, commit = at(made, remote), made.git("rev-parse", "HEAD")
    lease.take(record, "one", "here", time.time())
    record.pin("one", commit)
    made.git("tag", "toy@v1")
    record.share("toy@*")
    record.keep("one", commit)
    assert record.publish(commit, None, {}, record.unpublished()) == ""
    record.unpin("one")
    assert lease.release(record, "one")
    if remote:
        assert git(made.root.parent / "bare", "for-each-ref", "--format=%(refname)").split() == [
            "refs/heads/nights",
            "refs/tags/toy@v1",
        ]


def test_another_checkout_fetches_what_a_night_is_of(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    other = made.root.parent / "other"
    subprocess.run(["git", "clone", "-q", str(made.root.parent / "bare"), str(other)], check=True)
    made.git("tag", "-am", "one", "toy@v1")
    made.git("push", "-q", "origin", "toy@v1")
    commit = made.commit({"seed.txt": "9"})
    at(made).pin("run", commit)
    tags = tags_of(made.root)
    theirs = Repository(other, "nights", REFS, "origin")
    with pytest.raises(GitError):
        git(other, "cat-file", "-e", commit)
    theirs.have("run", commit, tags.values())
    assert git(other, "show", f"{commit}:seed.txt") == "9"
    assert tags_of(other) == tags
    theirs.unpin("run")
    theirs.unpin("run")
    assert git(made.root.parent / "bare", "for-each-ref", f"{REFS}/pinned") == ""


def test_what_ran_is_fetched_for_a_task_that_is_cleared_after_the_nights_end(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    record, other = at(made), made.root.parent / "other"
    git(made.root, "clone", "-q", f"file://{made.root.parent}/bare", str(other))
    committed, trial = made.commit({"seed.txt": "8"}), params.override(made.root, made.git("rev-parse", "HEAD"), BY)
    made.git("push", "-q", "origin", "main")
    for commit in (committed, trial):
        record.pin("one", commit)
        record.unpin("one")
        replace(record, path=other).have("one", commit)
        assert git(other, "cat-file", "-t", commit) == "commit"


def test_a_branch_that_is_removed_at_the_remote_is_begun_anew(made: Toy) -> None:
    assert night(made, "8", "one").new
    git(made.root.parent / "bare", "update-ref", "-d", "refs/heads/nights")
    done = night(made, "9", "two")
    assert (done.new, done.refused) == (True, "")
    assert git(made.root.parent / "bare", "rev-list", "--count", "--author=^dvc-airflow ", "nights") == "1"


@pytest.mark.parametrize("two", [("a-b", "a/b"), ("a.b", "a-b"), ("モデル", "データ"), ("モデル", "")], ids=str)
def test_two_projects_of_a_repository_have_a_branch_and_refs_each(two: tuple[str, str], toy: Make) -> None:
    root = toy().root
    for folder in two:
        (root / folder).mkdir(parents=True, exist_ok=True)
    one, other = (repository.of(root / folder) for folder in two)
    assert one.branch != other.branch
    assert one.refs != other.refs
    for each in (one, other):
        git(root, "check-ref-format", f"refs/heads/{each.branch}")


def test_what_a_night_is_of_outlives_a_clearing_up_of_git_until_the_night_ends(toy: Make) -> None:
    made = toy()
    record = repository.of(made.root)
    trial = params.override(made.root, made.git("rev-parse", "HEAD"), BY)
    record.pin("before", made.git("rev-parse", "HEAD"))
    record.pin("one", trial)
    made.git("gc", "--quiet", "--prune=now")
    assert made.git("cat-file", "-t", trial) == "commit"
    record.unpin("one")
    record.unpin("one")
    assert made.git("for-each-ref", record.refs) == ""


def test_of_a_tag_that_is_there_already_its_name_is_said(made: Toy) -> None:
    made.commit({"says.sh": SAYS})
    assert night(made, "8", "one", command=Command("sh says.sh")).refused == ""
    assert "toy@v1 (already exists)" in night(made, "9", "two", command=Command("sh says.sh")).refused


def test_a_night_that_waits_is_of_its_own_branch_alone(toy: Make) -> None:
    root = toy().root
    one, two, own = repository.of(root, "one"), repository.of(root, "two"), repository.of(root)
    assert (own.refs, repository.of(root, own.branch).refs) == (REFS, REFS)
    one.keep("night", git(root, "rev-parse", "HEAD"))
    assert two.unpublished() == own.unpublished() == {}
    (root / "one").mkdir()
    assert repository.of(root / "one").unpublished() == {}
    assert len(one.unpublished()) == 1


def test_two_checkouts_have_one_lease(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    other = made.root.parent / "other"
    subprocess.run(["git", "clone", "-q", str(made.root.parent / "bare"), str(other)], check=True)
    theirs = Repository(other, "nights", REFS, "origin")
    held = lease.take(at(made), "one", "here", now=1000.0)
    assert lease.read(theirs) == held
    free = f"`git -C {other} push origin :{REFS}/running`"
    with pytest.raises(lease.Held, match=f"the night one on here is under way.*{free}"):
        lease.take(theirs, "two", "there", now=1001.0)
    renewed = lease.take(theirs, "one", "there", now=1002.0)
    assert lease.read(at(made)) == renewed
    assert not lease.release(at(made), "two")
    assert lease.release(at(made), "one")
    assert lease.read(theirs) is None


def test_a_night_of_a_remote_is_of_a_commit(made: Toy) -> None:
    snapshot.refuse_changes(made.root, "origin")
    (made.root / "seed.txt").write_text("8")
    with pytest.raises(snapshot.Refused, match=r"seed\.txt is not committed, and nights are published at origin"):
        snapshot.refuse_changes(made.root, "origin")


def test_a_worker_without_a_checkout_makes_one_and_follows_what_is_pinned(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    place, url = made.root.parent / "workers" / "one", str(made.root.parent / "bare")
    assert at_once(3, partial(repository.checked_out, place, url)) == []
    theirs = Repository(place, "nights", REFS, url, own=True)
    first = made.git("rev-parse", "HEAD")
    assert git(place, "rev-parse", "HEAD") == theirs.newest(None) == first
    second = made.commit({"seed.txt": "9"})
    made.git("push", "-q", "origin", "main")
    assert theirs.newest(None) == second
    assert theirs.newest(first) == first
    with pytest.raises(GitError):
        theirs.newest("c" * 40)
    (place / "seed.txt").write_text("left over")
    theirs.have("run", second)
    assert (git(place, "rev-parse", "HEAD"), (place / "seed.txt").read_text()) == (second, "9")


def test_a_folder_in_which_somebody_works_is_not_taken_for_the_engines_own(made: Toy) -> None:
    (made.root / "seed.txt").write_text("mine, and not committed")
    with pytest.raises(GitError, match="is not empty, and the engine did not make it; name a folder of its own"):
        repository.checked_out(made.root, str(made.root.parent / "bare"))
    assert (made.root / "seed.txt").read_text() == "mine, and not committed"


def test_tasks_of_one_checkout_fetch_side_by_side(made: Toy) -> None:
    made.git("push", "-q", "origin", "main")
    other, url = made.root.parent / "other", str(made.root.parent / "bare")
    subprocess.run(["git", "clone", "-q", url, str(other)], check=True)
    theirs = Repository(other, "nights", REFS, "origin")

    def have(run: str, commit: str) -> None:
        theirs.have(run, commit)
        lease.read(theirs)

    for number in range(4):
        night(made, f"{number}", f"n{number}")
        commit = made.commit({"seed.txt": f"new {number}"})
        at(made).pin(f"run-{number}", commit)
        lease.take(at(made), f"run-{number}", "here", now=1e9 * number)
        assert at_once(6, partial(have, f"run-{number}", commit)) == []
    assert not (other / ".git" / "FETCH_HEAD").exists()  # there is one for all tasks


def test_a_night_that_was_kept_meanwhile_goes_on_waiting(made: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a night's look at what waits and its push."""
    made.git("push", "-q", "origin", "main")
    bare, real = made.root.parent / "bare", Repository.publish
    commit = made.git("rev-parse", "HEAD")
    git(bare, "update-ref", f"{REFS}/unpublished/before", commit)

    def late(*words: Any) -> str:
        git(bare, "update-ref", f"{REFS}/unpublished/meanwhile", commit)
        return real(*words)

    monkeypatch.setattr(Repository, "publish", late)
    assert night(made, "7", "one").new
    assert git(bare, "for-each-ref", "--format=%(refname:lstrip=3)", f"{REFS}/unpublished") == "meanwhile"


@pytest.mark.parametrize("remote", ["", "origin"])
def test_a_branch_that_moved_since_it_was_read_is_not_gone_over(remote: str, made: Toy) -> None:
    record, old = at(made, remote), night(made, "7", "one", remote).commit
    new = night(made, "8", "two", remote).commit
    late = made.git("commit-tree", f"{new}^{{tree}}", "-p", new, "-m", "of who read the branch before")
    assert record.publish(late, old, {}, {})  # though Git could go forward to it
    assert record.tip == new
    assert not remote or git(made.root.parent / "bare", "rev-parse", "nights") == new


def test_a_server_that_takes_branches_alone_is_told_what_a_night_needs(made: Toy) -> None:
    hook = made.root.parent / "bare" / "hooks" / "update"
    hook.write_text("#!/bin/sh\ncase $1 in refs/heads/*) ;; *) echo no such refs; exit 1;; esac\n")
    hook.chmod(0o755)
    with pytest.raises(GitError, match=r"the remote has to take refs below refs/dvc-airflow, or others that the DAG"):
        lease.take(at(made), "one", "here", now=1.0)


def test_what_another_checkout_published_waits_here_no_more(made: Toy) -> None:
    hook = made.root.parent / "bare" / "hooks" / "update"
    hook.write_text('#!/bin/sh\n[ "$1" != refs/heads/nights ]\n')
    hook.chmod(0o755)
    assert not night(made, "7", "one").new
    other = made.root.parent / "other"
    subprocess.run(["git", "clone", "-q", "--mirror", str(made.root.parent / "bare"), str(other)], check=True)
    theirs = Repository(other, "mirrored", REFS, str(made.root.parent / "bare"))
    assert list(theirs.unpublished()) == [f"{REFS}/unpublished/one"]
    hook.unlink()
    assert night(made, "8", "two").new
    theirs = replace(theirs, branch="nights")
    theirs.fetch()
    assert theirs.unpublished() == {}


def test_tags_that_a_command_made_are_shared(made: Toy) -> None:
    made.git("tag", "-am", "one", "toy@v1")
    (commit,) = made.git("rev-parse", "toy@v1").split()
    at(made).share("toy@*")
    at(made).share("toy@*")
    assert git(made.root.parent / "bare", "rev-parse", "toy@v1") == commit


def test_what_is_written_of_a_night_is_whole_in_a_folder_and_in_a_bucket(made: Toy, bucket: Any) -> None:
    for place in (str(made.root.parent / "runs"), "s3://documents/runs"):
        written.write(f"{place}/a/night.json", b"first")
        written.write(f"{place}/a/night.json", b"second")
        assert storage.read(f"{place}/a/night.json") == b"second"
        assert [one.name for one in storage.listing(place)] == ["a/night.json"]


@pytest.mark.parametrize("name", ["a", "a/b", "a.b", "a/-b", "a.locks", "a@b", "\u00e4", *NO_BRANCHES])
def test_a_branch_is_refused_where_git_refuses_it(name: str, toy: Make) -> None:
    made = toy()

    def taken(what: Callable[[], object], error: type[Exception]) -> bool:
        with suppress(error):
            return bool(what())
        return False

    by_git = taken(lambda: made.git("check-ref-format", "--branch", name), GitError)
    assert taken(lambda: repository.of(made.root, name), ProjectError) is by_git
