"""What two processes on one store do at once, and what is told of it to others: nothing fails, leaks, or is left."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_airflow.__main__ import main
from dvc_engine.git import GitError, git
from dvc_engine.store import commit, gc, lease, objects, repository, snapshot, workspace, written
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


def test_a_renewal_under_way_has_ended_before_the_lease_goes_back(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    record = repository.of(toy().root)
    lease.take(record, "one", "here", time.time() - 100)
    real, inside, done = Repository.swap, threading.Event(), threading.Event()

    def swap(self: Repository, name: str, new: str | None, old: str | None) -> None:
        if new:
            inside.set()
            time.sleep(0.2)  # as a remote takes
            real(self, name, new, old)
            done.set()
        else:
            real(self, name, new, old)

    monkeypatch.setattr(Repository, "swap", swap)
    with lease.renewed(record, "one", "here"):
        assert inside.wait(10)
    assert done.is_set()
    assert lease.release(record, "one")
    assert lease.read(record) is None


def test_what_one_logs_in_with_is_in_no_sentence(toy: Make) -> None:
    made, url = toy(), "https://me:S3CRET@127.0.0.1:9/x.git"
    with pytest.raises(GitError, match=r"https://127\.0\.0\.1:9/x\.git") as failed:
        git(made.root, "ls-remote", url, "refs/heads/x")
    assert "S3CRET" not in str(failed.value)
    (made.root / "seed.txt").write_text("8")
    with pytest.raises(snapshot.Refused, match=r"published at https://127\.0\.0\.1:9/x\.git"):
        snapshot.refuse_changes(made.root, url)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_clones_own_configuration_is_read_by_who_reads_the_projects(mode: int, toy: Make) -> None:
    made = toy()
    config = made.root / ".dvc" / "config.local"
    config.write_text("['remote \"store\"']\n    url = ../elsewhere\n")
    config.chmod(mode)
    job = made.root / ".dvc" / "tmp" / "clones" / "job"
    clone = workspace.make(made.root, made.git("rev-parse", "HEAD"), job, {}, workspace.cache_of(made.root))
    assert (clone / ".dvc" / "config.local").stat().st_mode & 0o777 == mode
    with Repo(str(clone)) as there, Repo(str(made.root)) as here:  # a path is named from the folder of the project's
        assert there.cloud.get_remote("store").path == here.cloud.get_remote("store").path
    workspace.remove(job)


@pytest.mark.parametrize("said", ["", "0 blob 10", "0 blob 10\nhalf"])
def test_a_file_is_not_missing_because_git_died_under_the_question(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's lines would be written into a new .gitignore, say, over those that are there."""
    pipe, asked = subprocess.PIPE, ["sh", "-c", f"read name; printf '{said}'"]
    dies = subprocess.Popen(asked, stdin=pipe, stdout=pipe)
    monkeypatch.setattr(commit, "_reader", lambda repository: dies)
    for _ in range(2):  # under it, and before it
        with pytest.raises(GitError, match=r"git cat-file: it ended before it had said what main:\.gitignore is"):
            Commit(tmp_path, "main").content(".gitignore")
        assert dies.wait() == 0
    dies.communicate()


def test_what_another_has_put_aside_or_swept_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = objects.place(tmp_path, "a" * 32)
    held.parent.mkdir(parents=True)
    held.write_text("damaged")
    real = objects.sound

    def sound(path: Path) -> bool:
        found = real(path)
        path.unlink()
        return found

    monkeypatch.setattr(objects, "sound", sound)
    (found,) = objects.problems(tmp_path, {"x": "a" * 32})
    assert "was damaged, and is put aside" in found.sentence

    clones, dead = tmp_path / "clones", workspace._dead
    for name in ("a", "b"):
        (clones / name).mkdir(parents=True)
        (clones / name / workspace.OWNER).touch()

    def swept(job: Path) -> bool:
        found = dead(job)
        if job.name == "a":
            shutil.rmtree(job)
        return found

    monkeypatch.setattr(workspace, "_dead", swept)
    workspace.sweep(clones, most=0)
    assert list(clones.iterdir()) == []


def test_two_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    failed, place = list[OSError](), tmp_path / "night.json"

    def write(content: bytes) -> None:
        try:
            for _ in range(200):
                written.write(str(place), content)
        except OSError as error:
            failed.append(error)

    both = [threading.Thread(target=write, args=(one * 20_000,)) for one in (b"1", b"2")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert failed == []
    assert place.read_bytes() in (b"1" * 20_000, b"2" * 20_000)
    assert list(tmp_path.iterdir()) == [place]


def test_of_two_gc_at_once_one_is_told(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made, second = toy(), list[int]()
    made.git("branch", "dvc-airflow")
    real = gc.look

    def look(*given: object) -> gc.Sweep:
        with monkeypatch.context() as within:
            within.setattr("os.getpid", lambda: 1)
            second.append(main(["gc", str(made.root), "--nights", "1"]))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gc, "look", look)
    assert main(["gc", str(made.root), "--nights", "1"]) == 0
    assert second == [2]
    assert lease.read(repository.of(made.root)) is None
