"""What a night pins and publishes: the tree as it is, one branch, one lease, nothing lost when a push is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from dvc_engine.git import GitError
from dvc_engine.night.publish import Published, PublishError, publish
from dvc_engine.pipeline import lock, reading
from dvc_engine.stage.command import Command
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.store import lease, snapshot
from dvc_engine.store.commit import Commit
from dvc_engine.store.history import newest
from dvc_engine.store.repository import Repository
from nightshift import signature
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
REFS = "refs/dvc-airflow"

SAYS = """\
import json
total = json.load(open("total.json"))["total"]
print("some words")
said = {"message": f"total {total}", "tags": [{"name": "toy@v0.0.1", "message": "first"}], "released": "toy"}
print(json.dumps(said))
"""


def record(made: Toy) -> Repository:
    return Repository(made.root, "nightly", REFS)


def publication(
    made: Toy, results: dict[str, Result], text: str | None = None, night: Night | None = None
) -> Published:
    known = reading.read(made.root)
    clones, command = made.root / ".dvc/tmp/clones", Command(text) if text else None
    night = night or made.pinned("HEAD", record(made))
    return publish(night, known, results, record(made), command, {}, clones)


def pinned(made: Toy, run: str) -> Night:
    """A night of this name."""
    return replace(made.pinned("HEAD", record(made)), run=run)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("big.bin", "x" * ((1 << 20) + 1), "dvc add big.bin"),
        (".env", "TOKEN=1", "looks like a secret"),
        ("deep/id_rsa", "key", "looks like a secret"),
    ],
)
def test_a_new_file_that_should_not_be_in_git_is_refused(name: str, content: str, sentence: str, toy: Make) -> None:
    made = toy()
    (made.root / name).parent.mkdir(exist_ok=True)
    (made.root / name).write_text(content)
    with pytest.raises(snapshot.Refused, match=sentence):
        snapshot.take(made.root)


def test_a_public_key_is_no_secret_and_is_pinned_with_the_night(toy: Make) -> None:
    made = toy()
    name = f"keys/{signature.publish(made.root.parent / 'home', made.root / 'keys')[: signature.ID_DIGITS]}.pem"
    public = (made.root / name).read_text()
    assert made.git("show", f"{snapshot.take(made.root)}:{name}") == public.rstrip("\n")
    for more in ("token = 1\n", (made.root.parent / "home" / signature.PRIVATE).read_text()):
        (made.root / name).write_text(public + more)
        with pytest.raises(snapshot.Refused, match=rf"{name} looks like a secret"):
            snapshot.take(made.root)


GPG = """\
#!/bin/sh
cat > /dev/null
case "$*" in
*--verify*) echo 'gpg: Good signature from "toy"' >&2; printf '\\n[GNUPG:] GOODSIG 1 toy\\n' ;;
*) printf -- '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n'
   printf '\\n[GNUPG:] SIG_CREATED \\n' >&2 ;;
esac
"""


def test_a_signature_that_git_is_to_show_is_not_taken_for_who_made_a_commit(toy: Make, tmp_path: Path) -> None:
    made, program = toy(), tmp_path / "gpg"
    program.write_text(GPG)
    program.chmod(0o755)
    for key, value in [("gpg.program", str(program)), ("log.showSignature", "true")]:
        made.git("config", key, value)
    made.git("commit", "-q", "-S", "--allow-empty", "-m", "signed")
    (made.root / "seed.txt").write_text("8")
    asked = ["show", "-s", "--no-show-signature", "--format=%an %ae %aI"]
    assert made.git(*asked, snapshot.take(made.root)) == made.git(*asked, "HEAD")


@pytest.mark.parametrize("date", ["@0 +0000", "2024-02-29T12:00:00+0100"])
def test_a_changed_tree_becomes_the_same_commit_each_time_and_is_not_touched(date: str, toy: Make) -> None:
    made = toy()
    made.git("commit", "-q", "--amend", "--no-edit", f"--date={date}")
    head = made.git("rev-parse", "HEAD")
    assert snapshot.take(made.root) == head
    (made.root / "seed.txt").write_text("8")
    (made.root / "new.txt").write_text("new")
    before = made.git("status", "--porcelain")
    commit = snapshot.take(made.root)
    assert commit == snapshot.take(made.root) != head
    assert made.git("show", f"{commit}:new.txt") == "new"
    assert made.git("status", "--porcelain") == before
    assert made.git("rev-parse", "HEAD") == head


def test_a_program_that_a_stage_made_may_be_run_by_the_next_and_from_git(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy("""\
stages:
  make: {cmd: cp seed.txt tool && chmod +x tool, deps: [seed.txt], outs: [{tool: {cache: false}}]}
  use: {cmd: ./tool > out.txt, deps: [tool], outs: [out.txt]}
""", **{"seed.txt": "#!/bin/sh\necho ran\n"})  # fmt: skip
    results = made.run("HEAD")
    assert [one.outcome for one in results.values()] == ["ran", "ran"], results
    published = publication(made, results)
    assert made.git("ls-tree", published.commit, "tool", "out.txt").split()[0] == "100755"
    ours = made.git("show", f"{published.commit}:dvc.lock")
    monkeypatch.chdir(made.root)
    with Repo() as repo:
        repo.reproduce()
    assert (made.root / "dvc.lock").read_text().rstrip("\n") == ours
    assert "isexec: true" in ours


def test_what_read_an_earlier_result_of_a_stage_that_was_cleared_alone_is_not_published(toy: Make) -> None:
    made = toy("""\
stages:
  stamp: {cmd: mkdir stamps && date +%s%N > stamps/now, outs: [stamps], always_changed: true}
  same: {cmd: echo 1 > same, outs: [same], always_changed: true}
  use: {cmd: cp stamps/now use, deps: [stamps/now, same], outs: [use]}
  last: {cmd: cp use last, deps: [use], outs: [last]}
""")
    commit = made.git("rev-parse", "HEAD")
    results = made.run(commit)
    night = made.night(commit)
    again = made.attempt("same", night, results).run()
    assert again.outcome == "ran"
    assert publication(made, results | {"same": again}).new  # what it makes is as before
    results |= {"stamp": made.attempt("stamp", night, results).run()}
    with pytest.raises(PublishError, match="use read an earlier result of stamp; clear what is downstream of stamp"):
        publication(made, results)
    results |= {"use": made.attempt("use", night, results).run()}
    with pytest.raises(PublishError, match="last read an earlier result of use"):
        publication(made, results)
    results |= {"last": made.attempt("last", night, results).run()}
    assert publication(made, results).new


def test_a_night_that_is_published_and_cleared_later_is_no_second_commit(toy: Make, tmp_path: Path) -> None:
    made, asked = toy(), tmp_path / "asked"
    text, night = f"sh -c 'echo 1 >> {asked}; echo {{}}'", made.pinned("HEAD", record(made))
    results = made.run(night.commit)
    first = publication(made, results, text, night)
    made.commit({"seed.txt": "8"})
    second = publication(made, made.run("HEAD"), night=pinned(made, "second"))
    assert (first.new, second.new) == (True, True)
    again = publication(made, results, text, night)
    assert (again.commit, again.new, again.refused) == (first.commit, False, "")
    assert made.git("rev-parse", "nightly") == second.commit
    assert made.git("for-each-ref", "refs/dvc-airflow") == ""
    assert asked.read_text() == "1\n"  # else what follows a release would put that in place of the newer one


def test_what_a_night_makes_otherwise_when_it_is_published_waits_for_the_next(toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: date +%s%N > a, outs: [a], always_changed: true}\n")
    night = made.pinned("HEAD", record(made))
    first = publication(made, made.run(night.commit), night=night)
    again = publication(made, made.run(night.commit), night=night)
    assert (first.new, again.new, again.refused) == (True, False, "nightly has moved since this night was pinned")
    made.git("config", "log.showSignature", "true")
    made.commit({"seed.txt": "8"})
    last = publication(made, made.run("HEAD"))
    assert (last.new, record(made).unpublished()) == (True, {})
    assert again.commit in made.git("rev-list", "nightly")


def test_what_was_before_is_published_anew_and_is_no_night_of_before(toy: Make) -> None:
    made = toy()
    for seed, before in (("8", 0), ("9", 1), ("8", 2)):
        made.commit({"seed.txt": seed})
        assert publication(made, made.run("HEAD"), night=pinned(made, seed)).new
        assert made.git("rev-list", "--count", "--first-parent", "nightly", "^main") == str(before + 1)


def test_a_night_that_waited_and_was_brought_along_is_no_second_commit(toy: Make) -> None:
    made = toy()
    night, results = made.pinned("HEAD", record(made)), made.run("HEAD")
    made.git("branch", "nightly", "HEAD")  # somebody was faster
    waits = publication(made, results, night=night)
    assert (waits.new, "has moved" in waits.refused) == (False, True)
    made.commit({"seed.txt": "8"})
    assert publication(made, made.run("HEAD"), night=pinned(made, "next")).new
    again = publication(made, results, night=night)
    assert (again.commit, again.new, again.refused) == (waits.commit, False, "")
    assert made.git("for-each-ref", "refs/dvc-airflow") == ""


def test_a_branch_that_was_removed_or_replaced_meanwhile_is_no_end_of_a_night(toy: Make) -> None:
    made = toy()
    assert publication(made, made.run("HEAD")).new
    made.commit({"seed.txt": "8"})
    night, results = pinned(made, "next"), made.run("HEAD")
    made.git("branch", "-D", "nightly")
    assert "has moved" in publication(made, results, night=night).refused
    made.git("branch", "nightly", "main~1")
    gone = replace(night, tip="1" * 40)
    assert "has moved" in publication(made, results, night=gone).refused


def test_a_night_without_all_its_stages_is_not_published(toy: Make) -> None:
    made = toy()
    results = made.run(made.git("rev-parse", "HEAD"))
    del results["each@b"]
    with pytest.raises(PublishError, match="each@b did not end well"):
        publication(made, results)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("false", "`false` ended with 1 "),
        ("sh -c 'echo first >&2; echo publish: no room. >&2; exit 14'", r"ended with 14: publish: no room\. "),
        ("echo done", "the last line of `echo done` is no JSON object: done"),
        ("echo 5", "the last line of `echo 5` is no JSON object: 5"),
    ],
)
def test_a_failing_command_publishes_nothing(command: str, sentence: str, toy: Make) -> None:
    made = toy()
    results = made.run(made.git("rev-parse", "HEAD"))
    with pytest.raises(PublishError, match=sentence):
        publication(made, results, command)
    assert made.git("branch", "--list", "nightly") == ""


def test_a_night_is_one_commit_with_its_tags_and_an_equal_night_is_none(toy: Make) -> None:
    made = toy(**{"says.py": SAYS})
    results = made.run(made.git("rev-parse", "HEAD"))
    done = publication(made, results, "python says.py")
    assert done.new
    assert made.git("show", "-s", "--format=%s", "nightly") == "total 6"
    assert made.git("rev-parse", "nightly", "nightly^1") == f"{done.commit}\n{made.git('rev-parse', 'HEAD')}"
    assert made.git("cat-file", "-t", "toy@v0.0.1") == "tag"
    assert json.loads(made.git("show", "nightly:total.json")) == {"total": 6}
    again = publication(made, results, "python says.py")
    assert again == Published(done.commit, new=False, said={"released": "toy"})  # it is asked, and makes nothing
    assert made.git("rev-parse", "nightly") == done.commit
    found = newest(record(made), Commit(made.root, "HEAD"), reading.read(made.root))
    assert set(found) == set(results)
    assert {came for [(_, came), *_] in found.values()} == {done.commit}


def test_what_a_push_refuses_is_kept_and_found_again(toy: Make) -> None:
    made = toy()
    results = made.run(made.git("rev-parse", "HEAD"))
    made.git("checkout", "-q", "-b", "nightly")  # a push may not move a branch that is checked out
    done = publication(made, results)
    assert not done.new
    assert done.refused
    assert made.git("rev-parse", f"{REFS}/unpublished/night") == done.commit
    made.git("checkout", "-q", "main")
    assert set(newest(record(made), Commit(made.root, "HEAD"), reading.read(made.root))) == set(results)
    assert publication(made, results).new
    assert made.git("for-each-ref", REFS) == ""  # what waited is in the branch's entries


@pytest.mark.parametrize("answered", [True, False])
def test_two_overlapping_attempts_end_in_one_publication(
    answered: bool, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is thought to be dead was faster; or the answer to its own push was lost."""
    made = toy(**{"say.py": SAYS})
    results, push, done = made.run("HEAD"), Repository.publish, list[Published]()

    def late(self: Repository, *asked: Any) -> str:
        monkeypatch.undo()
        if answered:
            done.append(publication(made, results))  # another message, as of another second
            return push(self, *asked)
        push(self, *asked)
        return "the remote end hung up unexpectedly"

    monkeypatch.setattr(Repository, "publish", late)
    second = publication(made, results, "python say.py")
    assert (second.new, second.refused, second.said["released"]) == (False, "", "toy")
    assert second.commit == made.git("rev-parse", "nightly")
    assert not answered or (done[0].new and done[0].commit == second.commit)
    assert record(made).unpublished() == {}


def test_one_night_at_a_time(toy: Make) -> None:
    made = toy()
    lease.take(record(made), "one", "here", now=1000.0)
    with pytest.raises(lease.Held, match="the night one on here is under way"):
        lease.take(record(made), "two", "here", now=1000.0 + lease.STALE_S - 1)
    assert not lease.release(record(made), "two")
    assert lease.take(record(made), "two", "there", now=1000.0 + lease.STALE_S).run == "two"
    assert lease.take(record(made), "three", "there", now=1601.0, ended=lambda run: run == "two").run == "three"
    with pytest.raises(lease.Held):  # its clock may be the one that goes wrong
        lease.take(record(made), "four", "there", now=1601.0 - 10 * 86_400.0)
    assert lease.release(record(made), "three")
    assert lease.read(record(made)) is None


def test_a_lease_is_renewed_when_it_is_old_and_stays_away_once_it_was_given_back(toy: Make) -> None:
    made = toy()
    lease.take(record(made), "one", "here", now=1000.0, owner="a")
    lease.renew_once(record(made), "one", "there", 1029.0, "a", 30.0)
    lease.renew_once(record(made), "one", "there", 1031.0, "a", 30.0)
    held = lease.read(record(made))
    assert held is not None
    assert (held.host, held.renewed) == ("there", 1031.0)
    with pytest.raises(lease.Held):
        lease.renew_once(record(made), "one", "here", 2000.0, "b", 30.0)
    assert lease.release(record(made), "one", "a")
    lease.renew_once(record(made), "one", "here", 2000.0, "a", 30.0)
    assert lease.read(record(made)) is None


def test_runs_of_two_dags_that_are_called_the_same_are_two(toy: Make) -> None:
    made = toy()
    lease.take(record(made), "scheduled", "here", now=1000.0, owner="a")
    with pytest.raises(lease.Held):
        lease.take(record(made), "scheduled", "here", now=1001.0, owner="b")
    assert not lease.release(record(made), "scheduled", "b")
    late = 1001.0 + lease.STALE_S
    with pytest.raises(lease.Held):  # it waits for a person, and Airflow says that it is under way
        lease.take(record(made), "two", "here", now=late, owner="a", running=lambda run: run == "scheduled")
    assert lease.take(record(made), "two", "here", now=late, owner="a").run == "two"


def test_a_night_that_did_not_see_a_later_one_does_not_go_over_it(toy: Make) -> None:
    made = toy()
    late = pinned(made, "late")
    results = made.run("HEAD")
    first = publication(made, results)
    made.commit({"seed.txt": "8"})
    clones, known = made.root / ".dvc/tmp/clones", reading.read(made.root)
    older = made.run(made.commit({"params.yaml": "total: {by: 7}\n"}))
    refused = publish(late, known, older, record(made), None, {}, clones)
    assert (refused.new, refused.refused) == (False, "nightly has moved since this night was pinned")
    assert record(made).tip == first.commit
    after = publication(made, made.run(made.commit({"seed.txt": "9"})))
    assert refused.commit in made.git("log", "-1", "--format=%P", after.commit)  # it is brought along
    assert record(made).unpublished() == {}


def test_what_a_checkout_of_dvcs_left_is_no_change(toy: Make) -> None:
    """`dvc checkout` of a night's lock writes outs that no .gitignore of the work tree names."""
    made = toy()
    head = made.git("rev-parse", "HEAD")
    (made.root / "data").mkdir()
    for path in ("total.txt", "data/part", "mine.txt"):
        (made.root / path).write_text("2" * ((1 << 20) + 1) if path != "mine.txt" else "3")
    outs = {"total.txt", "data", "seed.txt"}
    (made.root / "seed.txt").write_text("9")  # in Git, whatever it is to DVC
    commit = snapshot.take(made.root, outs)
    assert set(made.git("diff", "--name-only", head, commit).split()) == {"seed.txt", "mine.txt"}
    (made.root / "seed.txt").write_text("7")
    (made.root / "mine.txt").unlink()
    assert snapshot.take(made.root, outs) == head


def test_a_merge_under_way_is_refused_by_name(toy: Make) -> None:
    made = toy()
    made.git("checkout", "-q", "-b", "theirs")
    made.commit({"seed.txt": "1"})
    made.git("checkout", "-q", "main")
    made.commit({"seed.txt": "2"})
    with pytest.raises(GitError):
        made.git("merge", "theirs")
    with pytest.raises(snapshot.Refused, match=r"^seed\.txt has conflicts of a merge; resolve them and commit"):
        snapshot.take(made.root)


def test_a_repository_without_a_commit_is_refused(toy: Make) -> None:
    made = toy()
    made.git("checkout", "-q", "--orphan", "new")
    with pytest.raises(snapshot.Refused, match="toy has no commit yet; make one"):
        snapshot.take(made.root)


def test_a_lock_file_is_read_once_for_all_of_its_stages(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy()
    publication(made, made.run("HEAD"))
    real, parsed = lock.parse, []
    monkeypatch.setattr(lock, "parse", lambda text: parsed.append(text) or real(text))
    found = newest(record(made), Commit(made.root, "HEAD"), reading.read(made.root))
    assert len(found) == 4
    assert len(parsed) == 1


def test_of_two_that_take_the_lease_at_once_one_is_told(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy()
    real, fired = lease.read, []

    def slow(asked: Repository) -> lease.Lease | None:
        seen = real(asked)
        if not fired:
            fired.append(True)
            lease.take(record(made), "first", "here", now=1.0)
        return seen

    monkeypatch.setattr(lease, "read", slow)
    with pytest.raises(lease.Held, match="the night first"):
        lease.take(record(made), "second", "here", now=1.0)
    assert fired


def test_who_loses_to_a_renewal_of_its_own_run_has_it_renewed(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy()
    lease.take(record(made), "one", "here", now=1.0)
    real, fired = lease.read, list[lease.Lease | None]()

    def slow(asked: Repository) -> lease.Lease | None:
        seen = real(asked)
        if not fired:
            fired.append(None)
            fired[0] = lease.take(record(made), "one", "here", now=2.0)
        return seen

    monkeypatch.setattr(lease, "read", slow)
    assert lease.take(record(made), "one", "here", now=3.0) == fired[0] == real(record(made))


def test_a_lease_that_git_cannot_write_is_not_laid_to_anyone(toy: Make) -> None:
    made = toy()
    lease.take(record(made), "one", "here", now=1.0)
    (made.root / ".git" / REFS / "running.lock").write_text("")
    with pytest.raises(GitError, match=r"running\.lock': File exists"):
        lease.take(record(made), "one", "here", now=2.0)


def test_renewing_goes_on_after_a_failure(
    toy: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, over = toy(), threading.Event()
    failures: list[Exception] = [lease.Held(record(made), "two", "there"), GitError("git update-ref: no room")]

    def renew(*_: object) -> None:
        if failures:
            raise failures.pop(0)
        over.set()

    monkeypatch.setattr(lease, "renew_once", renew)
    with lease.renewed(record(made), "one", "here", every_s=0.01):
        assert over.wait(10)
    assert [record.getMessage() for record in caplog.records if record.name == lease.__name__] == [
        "the lease was not renewed: the night two on there is under way; follow it, or wait until it ends; "
        f"where nothing of it runs any more, `git -C {made.root} update-ref -d {REFS}/running`",
        "the lease was not renewed: git update-ref: no room",
    ]


LOOSE = """\
stages:
  split:
    cmd:
    - rm -rf parts && mkdir parts
    - for n in $(cat seed.txt); do printf "\\\\377$n" > parts/$n; done
    - cp -r parts hidden
    deps: [seed.txt]
    outs: [{parts: {cache: false}}, {hidden: {cache: false}}]
  join:
    cmd: cat parts/* hidden/* | wc -c > size.txt
    deps: [parts, hidden]
    outs: [{size.txt: {cache: false}}]
"""


def test_data_that_dvc_does_not_cache_goes_from_clone_to_clone_and_into_the_commit_unless_git_ignores_it(
    toy: Make,
) -> None:
    made = toy(LOOSE, **{"seed.txt": "1 2", ".gitignore": "hidden\n"})
    first = made.run(made.git("rev-parse", "HEAD"))
    assert {name: one.outcome for name, one in first.items()} == {"split": "ran", "join": "ran"}, first
    published = publication(made, first)
    assert made.git("ls-tree", "-r", "--name-only", published.commit, "parts", "hidden", "size.txt").split() == [
        "parts/1", "parts/2", "size.txt",
    ]  # fmt: skip
    assert made.git("show", f"{published.commit}:size.txt") == "8"
    made.came = dict.fromkeys(first, published.commit)
    made.git("checkout", published.commit, "--", "parts")  # somebody takes the night over
    second = made.run(made.commit({"seed.txt": "3"}))
    assert {one.outcome for one in second.values()} == {"ran"}
    later = publication(made, second)
    assert made.git("ls-tree", "-r", "--name-only", later.commit, "parts").split() == ["parts/3"]  # and no others
