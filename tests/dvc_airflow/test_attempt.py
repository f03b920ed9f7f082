"""One stage in a clone of its own: what runs and what does not, what a failure says, and that nothing is left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dvc_engine.pipeline import lock, reading
from dvc_engine.stage import process
from dvc_engine.stage.outcome import Result
from dvc_engine.store import objects, uncached, workspace
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
NOBODY = 65534  # a user's number, and a group's

REFUSAL = '{"outcome": "refused", "sentence": "no data"}'
FAILING = """\
stages:
  bad:
    cmd: {cmd}
    outs: [out.txt]
"""


@pytest.mark.parametrize(
    ("cmd", "outcome", "said"),
    [
        ("echo first >&2; echo last words >&2; exit 37", "failed", "its command ended with 37\nfirst\nlast words"),
        ("kill -9 $$", "lost", "SIGKILL"),
        ("kill -TERM $$", "lost", "SIGTERM"),
        ("kill -HUP $$", "lost", "SIGHUP"),
        ("echo last words >&2; kill -BUS $$", "lost", "SIGBUS (out of memory, or a worker that died)\nlast words"),
        ("kill -SEGV $$", "failed", "its command ended with 139"),
        ("kill -ABRT $$", "failed", "its command ended with 134"),
        ("kill -9 $PPID; sleep 1000", "lost", "the process that records its command was ended by SIGKILL"),
        ("true", "failed", "output 'out.txt' does not exist"),
        (f"echo '{REFUSAL}' > $DVC_AIRFLOW_OUTCOME; exit 12", "refused", "no data"),
    ],
)
def test_a_failing_stage_says_what_happened(cmd: str, outcome: str, said: str, toy: Make) -> None:
    made = toy(FAILING.format(cmd=json.dumps(cmd)))
    held = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, and then in every child
    try:
        result = made.attempt("bad", made.night("HEAD"), {}).run()
    finally:
        signal.signal(signal.SIGHUP, held)
    assert result.outcome == outcome
    assert said in result.sentence
    assert result.entry is None


@pytest.mark.spawned
def test_a_night_runs_then_nothing_does(toy: Make) -> None:
    made = toy()
    commit = made.git("rev-parse", "HEAD")
    first = made.run(commit)
    assert {r.outcome for r in first.values()} == {"ran"}
    assert list(first) == ["numbers", "total", "each@a", "each@b"]
    assert first["total"].files == {"total.json": '{"total": 6}'}
    (made.root / "total.json").write_text(first["total"].files["total.json"])
    published = made.commit({})
    made.came = dict.fromkeys(made.entries, published)
    second = made.run(published)
    assert {r.outcome for r in second.values()} == {"unchanged"}
    assert {n: r.entry for n, r in second.items()} == {n: r.entry for n, r in first.items()}
    assert made.git("status", "--porcelain") == ""


def test_metrics_of_another_commit_do_not_pass_for_the_entrys(toy: Make) -> None:
    made = toy()
    made.run(made.git("rev-parse", "HEAD"))
    made.came = dict.fromkeys(made.entries, made.commit({"total.json": '{"total": 99}'}))
    again = made.run(made.git("rev-parse", "HEAD"))
    assert again["total"].outcome == "unchanged"
    assert again["total"].files == {"total.json": '{"total": 6}'}
    shutil.rmtree(uncached.store(made.root / ".dvc" / "cache"))
    anew = made.run(made.git("rev-parse", "HEAD"))
    assert anew["total"].outcome == "unchanged"  # for its run cache DVC keeps an object of that, too
    assert anew["total"].files == {"total.json": '{"total": 6}'}


def test_a_changed_param_runs_its_stage_and_what_follows_only_if_the_out_differs(toy: Make) -> None:
    made = toy()
    made.came = dict.fromkeys(made.run(made.git("rev-parse", "HEAD")), "HEAD")
    outcomes = {n: r.outcome for n, r in made.run(made.commit({"params.yaml": "total: {by: 2}\n"})).items()}
    assert outcomes == {"numbers": "unchanged", "total": "ran", "each@a": "unchanged", "each@b": "unchanged"}


def test_an_object_that_is_gone_is_made_again(toy: Make) -> None:
    made = toy()
    commit = made.git("rev-parse", "HEAD")
    first = made.run(commit)
    made.came = dict.fromkeys(first, commit)
    gone = objects.place(
        made.root / ".dvc/cache",
        lock.hashes(reading.read(made.root).stages["numbers"], first["numbers"].entry or {}, "outs")["numbers.txt"],
    )
    gone.unlink()
    again = made.run(commit)
    assert again["numbers"].outcome == "ran"
    assert gone.is_file()


def test_the_lock_is_the_one_that_dvc_writes(toy: Make, tmp_path: Path) -> None:
    made = toy()
    results = made.run(made.git("rev-parse", "HEAD"))
    ours = lock.files(reading.read(made.root), {n: r.entry for n, r in results.items() if r.entry})["dvc.lock"]
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(made.root), str(other)], check=True)
    subprocess.run(["dvc", "repro", "-q", "--no-run-cache"], cwd=other, check=True)
    assert ours == (other / "dvc.lock").read_text()


@pytest.mark.parametrize("above", [{}, {"numbers": Result("numbers", "failed")}])
def test_a_stage_whose_input_was_not_made_is_refused(above: dict[str, Result], toy: Make) -> None:
    """Somebody marked the task that makes it as a success, before it said anything or since."""
    made = toy()
    result = made.attempt("total", made.night("HEAD"), above).run()
    assert (result.outcome, result.sentence) == (
        "refused",
        "it reads what numbers makes, which has no result tonight: it failed, or was marked as a success by "
        "hand, or the DAG has changed since; clear its task",
    )


@pytest.mark.spawned
def test_killing_a_stage_that_ignores_sigterm_leaves_no_process(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    made = toy(FAILING.format(cmd=json.dumps(f"trap '' TERM; sleep 1000 & echo $! $$ > {mark}; wait; wait")))
    began = time.monotonic()
    assert _killed(made, mark).outcome == "cancelled"
    assert time.monotonic() - began < 30
    _gone([int(pid) for pid in mark.read_text().split()])


@pytest.mark.spawned
def test_a_task_that_is_killed_takes_its_stage_along(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    made = toy(FAILING.format(cmd=json.dumps(f"trap '' TERM; sleep 1000 & echo $! $$ > {mark}; wait; wait")))
    _killed_with_its_task(made, mark)


@pytest.mark.long
@pytest.mark.spawned
def test_a_helper_that_ignores_sigterm_goes_with_a_stage_that_does_not(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    helper = "(trap '' TERM; exec sleep 1000) >/dev/null 2>&1 &"
    made = toy(FAILING.format(cmd=json.dumps(f"{helper} echo $! $$ > {mark}; exec sleep 1000")))
    _killed_with_its_task(made, mark)


# in a session of its own, which does not end on SIGTERM, of a shell that is gone
APART = r"""(setsid sh -c "trap '' TERM; echo \$\$ > {mark}.apart; exec sleep 1000" >/dev/null 2>&1 &)
until [ -s {mark}.apart ]; do sleep 0.1; done; echo $(cat {mark}.apart) $$ > {mark}
"""


@pytest.mark.spawned
@pytest.mark.parametrize("dies", [pytest.param(True, marks=pytest.mark.long), False])
def test_what_has_left_the_session_of_its_stage_goes_with_it(dies: bool, toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    made = toy(FAILING.format(cmd=json.dumps(APART.format(mark=mark) + "exec sleep 1000")))
    if dies:
        _killed_with_its_task(made, mark)
        return
    assert _killed(made, mark).outcome == "cancelled"
    _gone([int(pid) for pid in mark.read_text().split()])


@pytest.mark.spawned
def test_what_has_left_the_session_of_its_stage_does_not_outlive_it(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    made = toy(FAILING.format(cmd=json.dumps(APART.format(mark=mark) + "exit 3")))
    assert made.attempt("bad", made.night("HEAD"), {}).run().outcome == "failed"
    _gone([int(pid) for pid in mark.read_text().split()])


@pytest.mark.spawned
def test_a_stage_may_wait_for_what_has_left_its_session(toy: Make, tmp_path: Path) -> None:
    pid = f"{tmp_path}/pid"
    start = f"(setsid sh -c 'echo $$ > {pid}; exec sleep 0.3' &); until [ -s {pid} ]; do sleep 0.1; done"
    wait = f"for n in $(seq 100); do kill -0 $(cat {pid}) && sleep 0.1; done; kill -0 $(cat {pid}) || echo 1 > out.txt"
    made = toy(FAILING.format(cmd=json.dumps(f"{start}; {wait}")))
    result = made.attempt("bad", made.night("HEAD"), {}).run()
    assert result.outcome == "ran", result.sentence


@pytest.mark.spawned
def test_what_is_started_again_and_again_ends_with_its_stage(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    again = f"while true; do setsid -w sh -c 'echo $$ > {mark}; exec sleep 1000'; done >/dev/null 2>&1 &"
    made = toy(FAILING.format(cmd=json.dumps(f"{again}\nuntil [ -s {mark} ]; do sleep 0.1; done; exit 3")))
    assert made.attempt("bad", made.night("HEAD"), {}).run().outcome == "failed"
    time.sleep(0.2)
    _gone([int(mark.read_text())])


@pytest.mark.spawned
def test_what_has_left_the_session_of_its_stage_goes_with_dvc(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    of_dvc = "$(ps -o ppid= -p $PPID)"  # of the recorder, that is
    made = toy(FAILING.format(cmd=json.dumps(APART.format(mark=mark) + f"kill -9 {of_dvc}; exec sleep 1000")))
    result = made.attempt("bad", made.night("HEAD"), {}).run()
    assert (result.outcome, result.sentence.partition(" (")[0]) == ("lost", "it was ended by SIGKILL")
    _gone([int(pid) for pid in mark.read_text().split()])


@pytest.mark.spawned
def test_what_has_left_the_session_of_its_stage_may_end_by_itself(toy: Make, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saves = f"trap 'sleep 1; echo > {saved}; exit' TERM; echo > {saved}.begun; while true; do sleep 0.1; done"
    made = toy(FAILING.format(cmd=json.dumps(f'setsid sh -c "{saves}" & exec sleep 1000')))
    assert _killed(made, Path(f"{saved}.begun")).outcome == "cancelled"
    assert saved.exists()


@pytest.mark.spawned
def test_a_recorder_that_is_killed_leaves_no_stage(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    made = toy(FAILING.format(cmd=json.dumps(f"echo $$ > {mark}; kill -9 $PPID; exec sleep 1000")))
    assert made.attempt("bad", made.night("HEAD"), {}).run().outcome == "lost"
    _gone([int(mark.read_text())])


@pytest.mark.spawned
def test_a_leader_that_is_killed_leaves_nothing_that_had_left_its_session(toy: Make, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    leader = "$(cut -d' ' -f5 /proc/$$/stat)"
    made = toy(FAILING.format(cmd=json.dumps(APART.format(mark=mark) + f"kill -9 {leader}; exec sleep 1000")))
    assert made.attempt("bad", made.night("HEAD"), {}).run().outcome == "lost"
    _gone([int(pid) for pid in mark.read_text().split()])


def test_a_stage_that_is_ended_while_it_is_cloned_does_not_start(
    toy: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "started"
    made = toy(FAILING.format(cmd=f"touch {mark}"))
    attempt = made.attempt("bad", made.night("HEAD"), {})
    real = workspace.make

    def make(*given: Any) -> Path:
        attempt.kill()
        return real(*given)

    monkeypatch.setattr(workspace, "make", make)
    assert attempt.run().outcome == "cancelled"
    assert not mark.exists()


@pytest.mark.spawned
def test_a_disk_that_fails_before_the_clone_is_said_too(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bool:
        raise OSError(5, "Input/output error", "cache")

    made = toy()
    monkeypatch.setattr(workspace, "make", fails)
    attempt = made.attempt("numbers", made.night("HEAD"), {})
    result = attempt.run()
    assert (result.outcome, result.sentence) == ("storage", "cache: Input/output error")
    _none_of(attempt.job)


@pytest.mark.spawned
def test_a_disk_that_fails_once_the_clone_is_made_leaves_no_process(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.touch

    def touch(path: Path, *given: Any, **named: Any) -> None:
        if path.name == "record.jsonl":
            raise OSError(28, "No space left on device", str(path))
        real(path, *given, **named)

    made = toy()
    monkeypatch.setattr(Path, "touch", touch)
    attempt = made.attempt("numbers", made.night("HEAD"), {})
    assert attempt.run().outcome == "storage"
    _none_of(attempt.job)


def _none_of(job: Path) -> None:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # another that has ended
            assert str(job).encode() not in command.read_bytes()


@pytest.mark.parametrize("damaged", [True, False])
def test_what_persists_and_is_lost_is_begun_anew(damaged: bool, toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: cat seed.txt >> x, deps: [seed.txt], outs: [{x: {persist: true}}]}\n")
    first = made.run("HEAD")["one"]
    held = objects.place(workspace.cache_of(made.root), (first.entry or {})["outs"][0]["md5"])
    seed = (made.root / "seed.txt").read_text()
    held.chmod(0o644)
    held.write_text("?") if damaged else held.unlink()
    result = made.run(made.commit({"seed.txt": f"{seed}2\n"}))["one"]
    assert result.outcome == "ran", result.sentence
    md5 = (result.entry or {})["outs"][0]["md5"]
    assert objects.place(workspace.cache_of(made.root), md5).read_text() == f"{seed}2\n"


def test_on_a_full_disk_what_failed_makes_place(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy("stages:\n  bad: {cmd: 'false', outs: [x]}\n  good: {cmd: echo 1 > y, outs: [y]}\n")
    night = made.night("HEAD")
    failing = made.attempt("bad", night, {})
    assert failing.run().outcome == "failed"
    assert (failing.job / "clone").is_dir()
    full = type(shutil.disk_usage("/"))(1 << 40, (1 << 40) - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    workspace._owned.pop(failing.job).close()  # its task has ended
    assert made.attempt("good", night, {}).run().outcome == "ran"
    assert not failing.job.exists()


def test_what_fails_bounds_what_failed_before(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy("stages:\n  bad: {cmd: 'false', outs: [x]}\n")
    monkeypatch.setattr(workspace, "MOST_KEPT", 2)
    tries = [made.attempt("bad", made.night("HEAD"), {}, number) for number in range(4)]
    for number, one in enumerate(tries):
        assert one.run().outcome == "failed"
        os.utime(one.job, (number, number))
        workspace._owned.pop(one.job).close()  # its task has ended
    assert [(one.job / "clone").is_dir() for one in tries] == [False, False, True, True]


def test_what_failed_is_told_though_what_failed_before_cannot_be_removed(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error", "clones")

    made = toy("stages:\n  bad: {cmd: 'false', outs: [x]}\n")
    attempt = made.attempt("bad", made.night("HEAD"), {})
    monkeypatch.setattr(workspace, "sweep", fails)
    assert attempt.run().outcome == "failed"
    assert (attempt.job / "clone").is_dir()


def test_what_dvc_keeps_of_a_clone_goes_with_it(toy: Make) -> None:
    """It has a folder of the whole machine for that, in which each clone would leave one."""
    made = toy("stages:\n  bad: {cmd: 'false', outs: [x]}\n")
    failing = made.attempt("bad", made.night("HEAD"), {})
    assert failing.run().outcome == "failed"
    assert sorted(path.name for path in (failing.job / "site" / "repo").glob("*/*")) == ["hashes", "links"]


def test_of_what_failed_the_newest_stay_and_of_the_living_all(toy: Make, tmp_path: Path) -> None:
    made, clones = toy(), tmp_path / "clones"
    cache = workspace.cache_of(made.root)
    for number, name in enumerate(["living", "eldest", "older", "newest"]):
        clone = workspace.make(made.root, "HEAD", clones / name, {}, cache)
        (clone / "left").write_bytes(b"x" * 1_000_000)
        os.utime(clones / name, (number, number))
        if name != "living":
            workspace._owned.pop(clones / name).close()
    (clones / "being-made").mkdir()
    assert [path.name for path in workspace.sweep(clones, most=2)] == ["eldest"]
    assert [path.name for path in workspace.sweep(clones, most_bytes=1_500_000)] == ["older"]
    assert sorted(path.name for path in clones.iterdir()) == ["being-made", "living", "newest"]


def test_a_clone_with_a_folder_that_is_read_only_goes_and_what_it_links_to_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, others = tmp_path / "left/clone/go/pkg", tmp_path / "others"
    for folder in (modules, others):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (modules.parent / "link").symlink_to(others)
    (tmp_path / "left/owner").touch()
    for folder in (others, modules, modules.parent):
        folder.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    with _unprivileged(tmp_path):
        assert (workspace.sweep(Path(), most=0), Path("left").exists()) == ([Path("left")], False)
        assert (Path("others").stat().st_mode & 0o777, Path("others/file").is_file()) == (0o555, True)


@contextmanager
def _unprivileged(folder: Path) -> Iterator[None]:
    """The block as a user for whom what is read-only is so; the folder is theirs. It is left as root, if need be."""
    if root := os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_clone_is_its_owners_on_the_other_side_of_a_containers_wall(toy: Make, tmp_path: Path) -> None:
    made, clones = toy(), tmp_path / "clones"
    workspace.make(made.root, "HEAD", clones / "held", {}, workspace.cache_of(made.root))
    os.utime(clones / "held", (0, 0))
    look = (
        "import sys; from pathlib import Path; from dvc_engine.store import workspace; "
        "print(workspace.sweep(Path(sys.argv[1]), most=0))"
    )
    wall = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*wall, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make a namespace of processes")
    asked = [*wall, sys.executable, "-c", look, str(clones)]
    env = os.environ | {"PYTHONPATH": str(Path(workspace.__file__).parents[2])}
    ended = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), (clones / "held").is_dir()) == ("[]", True), ended.stderr


@pytest.mark.spawned
def test_the_stage_sees_no_airflow_secret(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "key-x9")
    made = toy(FAILING.format(cmd="env > out.txt"))
    result = made.attempt("bad", made.night("HEAD"), {}).run()
    md5 = lock.hashes(reading.read(made.root).stages["bad"], result.entry or {}, "outs")["out.txt"]
    seen = objects.place(made.root / ".dvc/cache", md5).read_text()
    assert "PATH=" in seen
    assert "key-x9" not in seen


def _killed(made: Toy, mark: Path, stage: str = "bad") -> Result:
    """The result of the stage, ended once this file is there."""
    attempt = made.attempt(stage, made.night("HEAD"), {})
    killer = threading.Thread(target=lambda: (_appears(mark), attempt.kill()))
    killer.start()
    result = attempt.run()
    killer.join()
    return result


def _killed_with_its_task(made: Toy, mark: Path) -> None:
    """Run the stage in a task of its own, kill that once the stage wrote its pids, and see them go."""
    task = os.fork()
    if task == 0:
        made.attempt("bad", made.night("HEAD"), {}).run()
        os._exit(0)
    _appears(mark)
    os.kill(task, 9)
    os.waitpid(task, 0)
    _gone([int(pid) for pid in mark.read_text().split()], within_s=10)


def _appears(path: Path, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not (path.is_file() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def _gone(pids: list[int], within_s: float = 5) -> None:
    assert pids
    deadline = time.monotonic() + within_s
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    with suppress(OSError):  # it goes while it is looked at
        return "Z" not in Path(f"/proc/{pid}/stat").read_text()
    return False


WORKER = """\
import os, sys
from pathlib import Path
from dvc_engine.stage.process import attended

began, ended = map(Path, sys.argv[1:])
if task := os.fork():
    os.waitpid(task, 0)
else:
    parent = os.getppid()
    began.touch()
    sys.stdin.read(1)
    with attended(ended.touch, parent, every_s=0.02):
        began.with_name("attended").touch()
        sys.stdin.read(1)
"""


@pytest.mark.parametrize("dies", ["before", "since", ""])
def test_a_task_whose_worker_dies_ends_its_stage(dies: str, tmp_path: Path) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"
    env = os.environ | {"PYTHONPATH": str(Path(process.__file__).parents[2])}
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(began), str(ended)], stdin=subprocess.PIPE, env=env)
    assert worker.stdin is not None
    until(began.is_file)
    if dies == "before":
        worker.kill()
        worker.wait()
    worker.stdin.write(b"x")
    worker.stdin.flush()
    until((tmp_path / "attended").is_file)
    if dies:
        worker.kill()
        until(ended.is_file)
    worker.stdin.close()
    worker.wait()
    assert ended.is_file() is bool(dies)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
